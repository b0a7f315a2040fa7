"""The result of a refresh: as a value, as a page in the UI, and as an event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows.names import key
from flows.server.run_page import RunPage, markdown_table, picture
from flows.settings.refresh import RefreshSettings
from flows.train.shared import Made
from pipeline.heads.steps.measures import STEP_FIGURES

EVENT = "pixels-once.refresh"
FIGURES = ("top1", "accepted_top1", "difference", "low", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshResult:
    """The result of a refresh. All figures are on the same `clips` clips of the test set.

    outcome: promoted · refused · unchanged (nothing new: no training) · skipped (store busy) ·
    interrupted (asked to stop, by the signal `stopped_by`: nothing trained or promoted).
    since: how many clips are new, gone or changed since the accepted run.
    """

    outcome: str
    store: str
    run: str = ""
    accepted: str = ""
    test_set: str = ""
    top1: float = 0.0
    accepted_top1: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""
    clips: int = 0
    groups: int = 0
    classes: tuple[dict[str, Any], ...] = ()
    since: dict[str, int] = field(default_factory=dict)
    extracted: int = 0
    failed: int = 0
    stopped_by: str = ""

    def class_rows(self) -> list[tuple[str, int, str, str, str]]:
        """(class, clips, recall, the accepted run's recall, the difference) of every class."""
        return [
            (
                line["class"],
                line["clips"],
                f"{line['recall']:.3f}",
                _figure(line.get("accepted_recall")),
                _figure(line.get("difference"), "+"),
            )
            for line in self.classes
        ]

    def headline(self) -> str:
        """The outcome and its reason in one line."""
        if self.outcome == "skipped":
            return f"skipped: another run holds {self.store}"
        if self.outcome == "unchanged":
            return f"unchanged: {self.store} is as it was at the last refresh"
        if self.outcome == "interrupted":
            return (
                f"interrupted by {self.stopped_by}: nothing was promoted, a later refresh goes on"
            )
        new = f"{self.run} has top-1 {self.top1:.3f} on {self.clips} clips of {self.test_set}"
        if self.accepted_top1 is None:
            return f"{self.outcome}: {new}; {self.why}"
        return f"{self.outcome}: {new}, the accepted {self.accepted} {self.accepted_top1:.3f}; {self.why}"


def publish_head(page: RunPage, key: str, made: Made, *, named: bool = False) -> None:
    """Put a run's figures and pictures on the flow run's page. named: with its folder's name."""
    what = "right steps" if made.metrics.get("labels") == "steps" else "top-1"
    top1 = f"test {what} {made.metrics['test']['top1']:.3f}"
    page.add(
        f"the head {made.folder.name}",
        create_markdown_artifact,
        key=key,
        markdown=head_page(made),
        description=f"{top1} ({made.folder.name})" if named else top1,
    )


def head_page(made: Made) -> str:
    """A run's figures and pictures as markdown."""
    parts = [(part, made.metrics[part]) for part in ("test", "validation")]
    if made.metrics.get("labels") == "steps":
        return _steps_page(made, parts)
    rows = [(part, f"{v['top1']:.3f}", f"{v['top5']:.3f}", v["clips"]) for part, v in parts]
    lines = [f"# {made.folder.name}", "", *markdown_table(("", "top-1", "top-5", "clips"), rows)]
    for name in ("curves", "confusion"):
        file = made.folder / f"{name}.png"
        if file.exists():
            lines += ["", picture(name, file.read_bytes())]
    return "\n".join(lines)


def _steps_page(made: Made, parts: list[tuple[str, dict[str, Any]]]) -> str:
    """The page of a head that labels every step: its published figures, and the test videos as strips."""
    names = [name for name in STEP_FIGURES if name in parts[0][1]]
    rows = [
        (part, *(_figure(values[n]) for n in names), values["videos"]) for part, values in parts
    ]
    head = ("", *(STEP_FIGURES[name] for name in names), "videos")
    lines = [f"# {made.folder.name}", "", *markdown_table(head, rows)]
    for name in ("curves", "strips"):
        file = made.folder / f"{name}.png"
        if file.exists():
            lines += ["", picture(name, file.read_bytes())]
    return "\n".join(lines)


def publish(result: RefreshResult, settings: RefreshSettings, heads: list[Made]) -> None:
    """Write the comparison as an artifact, and emit an event that automations can wait for."""
    runs = [
        (
            head.folder.name,
            *(f"{head.metrics[part]['top1']:.3f}" for part in ("validation", "test")),
        )
        for head in heads
    ]
    accepted, difference = _figure(result.accepted_top1), _figure(result.difference, "+")
    every = ("all", result.clips, f"{result.top1:.3f}", accepted, difference)
    lines = [
        f"# {result.headline()}",
        "",
        *markdown_table(("run", "validation top-1", "its own test top-1"), runs),
        "",
        f"On {result.clips} clips of {result.groups} groups of {result.test_set}:",
        "",
        *markdown_table(
            ("class", "clips", "recall", "accepted", "difference"), [*result.class_rows(), every]
        ),
    ]
    if result.low is not None and result.high is not None:
        lines += [
            "",
            f"95 % confidence interval of the difference: {result.low:+.3f} to {result.high:+.3f}.",
        ]
    lines += ["", f"May be worse by {settings.threshold:.3f}."]
    if result.since:
        changes = ", ".join(f"{count} {what}" for what, count in result.since.items())
        lines += ["", f"Clips since {result.accepted}: {changes}."]
    lines += ["", f"{result.extracted} clips were extracted, {result.failed} failed."]
    create_markdown_artifact(
        key=key("refresh", settings.store), markdown="\n".join(lines), description=result.headline()
    )
    emit_event(
        event=f"{EVENT}.{result.outcome}",
        resource={
            "prefect.resource.id": f"pixels-once.{key('store', settings.store)}",
            "prefect.resource.name": settings.store,
        },
        payload={name: getattr(result, name) for name in ("run", "accepted", *FIGURES)},
    )


def _figure(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"
