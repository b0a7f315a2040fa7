"""The result of a run, in numbers: for the terminal, for `--json` and for the run's page.

A fact is a field of `Summary`: `--json` has every field, the run's page those with a label, the
terminal those with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipeline.errors import PixelsError


def shown(label: str = "", sentence: str = "") -> dict[str, Any]:
    """How a fact is shown, as a field's metadata.

    label: its name on the run's page; of a dictionary, with {} for the key, a line an entry.
    sentence: what the terminal prints of it, with {} for its value, unless that is 0 or empty.
    """
    return {"label": label, "sentence": sentence}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The outcome of one `features` run.

    clips: in the catalog · files: of which they are parts, 0 where each is a file · classes: of labels ·
    wanted: of the clips, what the settings let through · planned: to be made · ready, failed: of those ·
    reasons, warnings: of failed and of ready clips · left: not made, for the next run · unknown:
    unchanged rows whose clip could not be looked up · stage_seconds: where the workers' time went.
    """

    store: str = field(metadata=shown("Store"))
    outcome: str  # done | nothing to do | interrupted | skipped | dry run
    clips: int
    files: int = field(default=0, metadata=shown("files with parts", "clips are parts of {} files"))
    classes: int = 0
    wanted: int = 0
    planned: int = field(default=0, metadata=shown("to make"))
    ready: int = field(default=0, metadata=shown("ready"))
    failed: int = field(default=0, metadata=shown("failed"))
    left: int = field(default=0, metadata=shown("left for the next run"))
    gone: int = field(
        default=0, metadata=shown("gone", "{} rows are gone: their clips have left the folder")
    )
    returned: int = 0
    unknown: int = field(
        default=0,
        metadata=shown(
            sentence="{} clips did not say whether they have changed: their rows are as they were"
        ),
    )
    why: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict, metadata=shown("failed: {}"))
    warnings: dict[str, int] = field(default_factory=dict, metadata=shown("ready, {}"))
    cut_off_s: float = field(
        default=0.0,
        metadata=shown(
            "cut off, s",
            "{:.0f} s of video lie behind the last steps of clips (cut_off): with --sampling fps=N, "
            "--long split makes further rows of them",
        ),
    )
    failures: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    weights: str = field(default="", metadata=shown("Weights"))
    precision: str = field(default="", metadata=shown("Precision", "precision: {}"))
    fingerprint: str = field(default="", metadata=shown("Fingerprint"))
    engine: str = field(default="", metadata=shown("Engine"))
    estimate_s: float | None = None
    estimate_bytes: int | None = None
    throughput: list[tuple[float, int]] = field(default_factory=list)  # (seconds, frames so far)
    dashboard: str = field(default="", metadata=shown("Dask dashboard (while the run lasts)"))
    stopped_by: str = ""  # the signal, where outcome is interrupted

    @property
    def frames_per_second(self) -> float:
        """Frames through the CNN per second of the extraction, start-up included."""
        return self.frames / self.seconds if self.seconds else 0.0

    def labelled(self) -> Iterator[tuple[str, Any]]:
        """The label and value of every fact on the run's page."""
        for item in fields(self):
            label, value = item.metadata.get("label"), getattr(self, item.name)
            if isinstance(value, dict):
                yield from ((label.format(key), value[key]) for key in sorted(value) if label)
            elif label:
                yield label, value

    def sentences(self) -> Iterator[str]:
        """The lines of the terminal beside the headline."""
        for item in fields(self):
            if (value := getattr(self, item.name)) and (text := item.metadata.get("sentence")):
                yield text.format(value)
        if self.weights.startswith("random"):
            yield f"weights: {self.weights}: random, not ImageNet's; features are good for a demo only"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {**asdict(self), "frames_per_second": round(self.frames_per_second, 2)}

    def headline(self) -> str:
        """The outcome in one line."""
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
        if self.planned == 0 and self.wanted < self.clips:
            asked = f"{self.wanted} of {self.clips} clips were asked for"
            return f"nothing to do: {asked}, and all are in {self.store}"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Summaries:
    """The outcome of a `features` run that filled several stores. stores: of each, by `{backbone}`."""

    stores: dict[str, Summary]

    @property
    def outcome(self) -> str:
        """The outcome of the store that has most to say."""
        outcomes = [summary.outcome for summary in self.stores.values()]
        return next((name for name in _OUTCOMES if name in outcomes), outcomes[0])

    @property
    def stopped_by(self) -> str:
        """The signal that ended the run, "" for none."""
        return next((s.stopped_by for s in self.stores.values() if s.stopped_by), "")

    @property
    def left(self) -> int:
        """Rows that are left for the next run, of all stores."""
        return sum(summary.left for summary in self.stores.values())

    def headline(self) -> str:
        """The outcome of each store in a line."""
        return "\n".join(summary.headline() for summary in self.stores.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        stores = {name: summary.to_dict() for name, summary in self.stores.items()}
        return {"outcome": self.outcome, "stores": stores}


_OUTCOMES = ("interrupted", "done", "skipped", "dry run", "nothing to do")


def each_of(summary: Summary | Summaries) -> tuple[Summary, ...]:
    """The summary of each store."""
    return (summary,) if isinstance(summary, Summary) else tuple(summary.stores.values())


def stage_rows(seconds: dict[str, float]) -> list[tuple[str, float, float]]:
    """(stage, seconds, share) for the stage report, largest first."""
    total = sum(seconds.values())
    return [
        (name, value, value / total if total else 0.0)
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def advice(seconds: dict[str, float]) -> str:
    """The advice that follows from where the time went."""
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


class RunFailed(PixelsError, RuntimeError):
    """A run whose `summary` is not acceptable. exit_status: 3, too many failed; 4, the environment."""

    def __init__(self, message: str, summary: Summary | Summaries, exit_status: int) -> None:
        super().__init__(message)
        self.summary, self.exit_status = summary, exit_status


def require_reached(summary: Summary, run: Summary | Summaries) -> None:
    """Raise `RunFailed` if every planned clip was `unreachable`, or no clip's state is known.

    summary: of one store. run: of the whole run, which the error carries.

    The environment is at fault then, not the clips. A single clip that stays out of reach beside ready
    ones is its own fault, and costs only itself.
    """
    if not summary.planned and summary.unknown == summary.clips > 0:
        raise RunFailed(
            f"none of the {summary.clips} clips says whether it has changed: check the network, the "
            "mount and the credentials, and run again; the rows are as they were",
            run,
            exit_status=4,
        )
    unreachable = summary.reasons.get("unreachable", 0)
    alone = summary.planned == 1 and summary.rows.get("ready", 0) > 0
    if summary.planned and unreachable == summary.planned and not alone:
        raise RunFailed(
            f"none of the {summary.planned} clips could be reached (the first: "
            f"{summary.failures[0]['detail'][:200]}): check the network, the mount and the "
            "credentials, and run again",
            run,
            exit_status=4,
        )


def require_few_failed(summary: Summary, max_failed: float, run: Summary | Summaries) -> None:
    """Raise `RunFailed` if more than this share of the planned clips failed; as `require_reached`."""
    if summary.planned and summary.failed / summary.planned > max_failed:
        raise RunFailed(
            f"{summary.failed} of {summary.planned} clips failed, over --max-failed "
            f"{max_failed}: see the failure table",
            run,
            exit_status=3,
        )
