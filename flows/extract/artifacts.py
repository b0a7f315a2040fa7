"""The artifacts of a run in the Prefect UI: progress, failures, a summary. Keys are per store.

None of these may delay or fail a run: they are written by its `RunPage`.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.extract import charts
from flows.extract.summary import Summary, advice, stage_rows
from flows.names import key
from flows.server.markdown import markdown_table, picture
from flows.server.run_page import RunPage
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
        self._page.latest("the progress", partial(self._put, round(100 * fraction, 1), text))

    def _put(self, percent: float, text: str) -> None:
        if self._id is None:  # the first, or the server did not take the first
            self._id = create_progress_artifact(  # type: ignore[assignment]
                progress=percent, key=key("progress", self._store), description=text
            )
            return
        update_progress_artifact(artifact_id=self._id, progress=percent, description=text)


def publish_link(page: RunPage, store: str, client: Any) -> str:
    """Link the Dask dashboard on the run's page while the run lasts; returns its address, or ""."""
    address = str(client.dashboard_link or "")
    if address:
        page.add(
            "the link to the Dask dashboard",
            partial(
                create_link_artifact,
                key=key("dashboard", store),
                link=address,
                link_text="Dask dashboard",
                description=f"workers and batches of the run that makes {store}, while it lasts; "
                "the scheduler needs `pip install bokeh` to show them",
            ),
        )
    return address


def publish_summary(page: RunPage, summary: Summary) -> None:
    """Write the run's failure table and its summary in markdown."""
    if summary.failures:
        page.add("the failed clips", partial(_put_failures, summary))
    page.add("the summary", partial(_put_summary, summary))


def _put_failures(summary: Summary) -> None:
    create_table_artifact(
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


def _put_summary(summary: Summary) -> None:
    create_markdown_artifact(
        key=key("summary", summary.store),
        markdown=markdown(summary),
        description=f"{summary.headline()} · {_counts(summary.rows)}",
    )


def _counts(rows: dict[str, int]) -> str:
    """
    >>> _counts({"ready": 10, "failed": 0, "gone": 2})
    'the store has 10 ready, 2 gone'
    """
    counts = ", ".join(f"{count} {state}" for state, count in rows.items() if count)
    return f"the store has {counts or 'no rows'}"


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
        lines += [picture("stage shares", charts.stage_shares(seconds)), ""]
    if len(summary.throughput) > 2:
        lines += [picture("frames per second", charts.throughput(summary.throughput)), ""]
    texts = [fact for fact in labelled if fact not in counts]
    lines += [f"{label}: `{value}`  " for label, value in texts if value]
    return "\n".join(lines)
