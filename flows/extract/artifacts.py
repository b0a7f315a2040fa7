"""The artifacts of a run in the Prefect UI, written by its `RunPage`. Keys are per store."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
from prefect import artifacts

from flows.extract.summary import Summary, advice, stage_rows
from flows.names import key
from flows.server.run_page import RunPage, markdown_table, picture
from pipeline.drawing import new_figure, save_figure
from pipeline.features.reasons import FAILURES

_TABLE_ROWS = 500


class ProgressArtifact:
    """The one progress artifact of a run; `update` takes a fraction and a line of text."""

    def __init__(self, page: RunPage, store: str) -> None:
        self._page = page
        self._store = store
        self._id: UUID | None = None
        self.update(0.0, "clips done")

    def update(self, fraction: float, text: str) -> None:
        """Set the progress (0 to 1) and its description."""
        self._page.latest("the progress", self._put, round(100 * fraction, 1), text)

    def _put(self, percent: float, text: str) -> None:
        if self._id is None:  # the first, or the server did not take the first
            self._id = artifacts.create_progress_artifact(  # type: ignore[assignment]
                progress=percent, key=key("progress", self._store), description=text
            )
            return
        artifacts.update_progress_artifact(artifact_id=self._id, progress=percent, description=text)


def publish_link(page: RunPage, store: str, client: Any) -> str:
    """Link the Dask dashboard on the run's page while the run lasts; returns its address, or ""."""
    address = str(client.dashboard_link or "")
    if address:
        page.add(
            "the link to the Dask dashboard",
            artifacts.create_link_artifact,
            key=key("dashboard", store),
            link=address,
            link_text="Dask dashboard",
            description=f"workers and batches of the run that makes {store}, while it lasts; "
            "the scheduler needs `pip install bokeh` to show them",
        )
    return address


def publish_summary(page: RunPage, summary: Summary) -> None:
    """Write the run's failure table and its summary in markdown."""
    if summary.failures:
        page.add(
            "the failed clips",
            artifacts.create_table_artifact,
            key=key("failures", summary.store),
            table=[
                {
                    "clip": f["video_id"],
                    "reason": f["reason"],
                    "what to do": FAILURES[f["reason"]].remedy if f["reason"] in FAILURES else "",
                    "detail": f["detail"][:200],
                }
                for f in summary.failures[:_TABLE_ROWS]
            ],
            description=f"clips that failed in this run: {len(summary.failures)}",
        )
    page.add("the summary", _put_summary, summary)


def _put_summary(summary: Summary) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in summary.rows.items() if count)
    artifacts.create_markdown_artifact(
        key=key("summary", summary.store),
        markdown=markdown(summary),
        description=f"{summary.headline()} · the store has {counts or 'no rows'}",
    )


def markdown(summary: Summary) -> str:
    """The summary as markdown: headline, counts, where the time went, what to change."""
    labelled = list(summary.labelled())
    lines = [f"# {summary.headline()}", ""]
    lines += [*markdown_table(("rows of the store", "count"), sorted(summary.rows.items())), ""]
    counts = [fact for fact in labelled if type(fact[1]) in (int, float)]
    lines += [*markdown_table(("this run", "count"), counts), ""]
    if seconds := summary.stage_seconds:
        rows = [(name, f"{s:.1f}", f"{share:.0%}") for name, s, share in stage_rows(seconds)]
        lines += [*markdown_table(("stage", "seconds", "share"), rows), "", advice(seconds), ""]
        lines += [picture("stage shares", _stage_shares(seconds)), ""]
    if len(summary.throughput) > 2:
        lines += [picture("frames per second", _throughput(summary.throughput)), ""]
    texts = [fact for fact in labelled if fact not in counts]
    lines += [f"{label}: `{value}`  " for label, value in texts if value]
    return "\n".join(lines)


_COLOURS = {
    "cnn": "#3b6fb6",
    "decode": "#e08b3e",
    "waiting": "#b8bcc4",
    "write": "#4f9d69",
    "commit": "#9467a8",
}
_SMOOTHED_OVER = 3


def _stage_shares(seconds: dict[str, float]) -> bytes:
    """One bar per stage with its seconds and its share, largest on top."""
    rows = stage_rows(seconds)[::-1]
    figure, axes = _canvas(0.42 * len(rows) + 0.9)
    bars = axes.barh(
        [name for name, _, _ in rows],
        [value for _, value, _ in rows],
        color=[_COLOURS.get(name, "#777777") for name, _, _ in rows],
    )
    axes.bar_label(bars, [f" {value:.1f} s · {share:.0%}" for _, value, share in rows], fontsize=9)
    axes.set_xlim(0, max((value for _, value, _ in rows), default=1) * 1.25 or 1)
    axes.set_xlabel("seconds of the workers")
    return _png(figure)


def _throughput(curve: Sequence[tuple[float, int]]) -> bytes:
    """Frames per second over the run, from (seconds since the start, frames so far)."""
    seconds, frames = np.array(curve, float).reshape(-1, 2).T
    first = np.maximum(np.arange(1, len(seconds)) - _SMOOTHED_OVER, 0)
    elapsed = seconds[1:] - seconds[first]
    moved = elapsed > 0
    middles, rates = seconds[1:][moved], (frames[1:] - frames[first])[moved] / elapsed[moved]
    figure, axes = _canvas(2.4)
    axes.fill_between(middles, rates, color=_COLOURS["cnn"], alpha=0.2, linewidth=0)
    axes.plot(middles, rates, color=_COLOURS["cnn"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the workers were asked for")
    axes.set_ylabel("frames/s")
    return _png(figure)


def _canvas(height: float) -> tuple[Any, Any]:
    figure = new_figure(6.4, height, dpi=100)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    save_figure(figure, out, dpi=100)
    return out.getvalue()
