"""What a run did, in numbers: for the terminal, for `--json`, and for the run's page."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The outcome of one `features` run.

    clips: in the catalog · planned: to be made · ready, failed: of those · left: not made, for the
    next run · unknown: rows that stay as they are, since nobody says what their clip is now ·
    stage_share: where the workers' time went, as shares.
    """

    store: str
    outcome: str  # done | nothing to do | interrupted | skipped | dry run
    clips: int
    planned: int = 0
    ready: int = 0
    failed: int = 0
    left: int = 0
    gone: int = 0
    returned: int = 0
    unknown: int = 0
    why: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)  # of ready clips, by reason
    failures: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    weights: str = ""
    fingerprint: str = ""
    engine: str = ""
    estimate_s: float | None = None
    estimate_bytes: int | None = None
    throughput: list[tuple[float, int]] = field(default_factory=list)  # (seconds, frames so far)
    dashboard: str = ""
    stopped_by: str = ""  # the signal, where outcome is interrupted

    @property
    def frames_per_second(self) -> float:
        """Frames through the CNN per second of the extraction, start-up included."""
        return self.frames / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {**asdict(self), "frames_per_second": round(self.frames_per_second, 2)}

    def headline(self) -> str:
        """One line that says it all."""
        if self.outcome == "skipped":
            return f"skipped: another run holds {self.store}"
        if self.outcome == "dry run":
            return (
                f"would extract {self.planned} of {self.clips} clips into {self.store} "
                f"(about {_minutes(self.estimate_s or 0)}, "
                f"{(self.estimate_bytes or 0) / 2**20:.0f} MiB)"
            )
        if self.planned == 0 and self.unknown:
            return f"nothing to do, as far as {self.clips - self.unknown} of {self.clips} clips say"
        if self.planned == 0:
            return f"nothing to do: all {self.clips} clips are in {self.store}"
        made = f"{self.ready} ready, {self.failed} failed"
        rate = (
            f" · {self.frames} frames at {self.frames_per_second:.0f}/s in {_minutes(self.seconds)}"
        )
        left = f" · {self.left} left for the next run" if self.left else ""
        warned = ", ".join(f"{count} {reason}" for reason, count in sorted(self.warnings.items()))
        warned = f" · with a warning: {warned}" if warned else ""
        return f"{self.store}: {made} of {self.planned} clips{warned}{left}{rate}"


def stage_rows(seconds: dict[str, float]) -> list[tuple[str, float, float]]:
    """(stage, seconds, share) for the stage report, largest first."""
    total = sum(seconds.values())
    return [
        (name, value, value / total if total else 0.0)
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def advice(seconds: dict[str, float]) -> str:
    """What to change, from where the time went."""
    shares = {name: share for name, _, share in stage_rows(seconds)}
    if not shares:
        return ""
    largest = max(shares, key=lambda name: shares[name])
    return {
        "cnn": "the CNN is the bottleneck, as it should be: a GPU or more workers would help",
        "decode": "decoding is the bottleneck: more --decoders, or clips at a lower resolution",
        "waiting": "the CNN waited for frames: more --decoders would help",
        "write": "writing is the bottleneck: a faster disk or a nearer object store would help",
        "commit": "committing is the bottleneck: the store's folder is slow with small files",
    }.get(largest, "")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
