"""How results look on standard output: tables that fit, colour only on a terminal, or JSON."""

from __future__ import annotations

import numbers
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pipeline.heads.repeats import Repeats


_MOST_ROWS = 40


def console(*, quiet: bool = False) -> Console:
    """Standard output. Rich leaves colour out where it is no terminal, or NO_COLOR is set."""
    return Console(highlight=False, soft_wrap=False, quiet=quiet)


def headline(text: str) -> None:
    """A line in bold, as it is: a path in it may hold [brackets] or be wider than the terminal."""
    console().print(Text(text, style="bold"), soft_wrap=True)


def suggest(*words: object) -> None:
    """Say which command comes next, quoted so that it can be pasted into a shell."""
    print("next: pixels-once " + shlex.join(map(str, words)))


def print_json(values: Mapping[str, Any] | None = None, **more: Any) -> None:
    from pipeline.plain import json_text

    print(json_text({**(values or {}), **more}))


def print_table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], *, rest: str = ""
) -> None:
    """A table: text to the left, numbers to the right, columns with nothing in them left out.

    rest: a file with all rows; where it is named, 40 of them are shown
    """
    rows = [list(row) for row in rows]
    more = max(0, len(rows) - _MOST_ROWS) if rest else 0
    rows = rows[: len(rows) - more]
    shown = [i for i in range(len(head)) if not rows or any(_cell(row[i]) for row in rows)]
    head, rows = [head[i] for i in shown], [[row[i] for i in shown] for row in rows]
    table = Table(header_style="bold")
    for column, name in enumerate(head):
        numeric = all(isinstance(row[column], numbers.Real) for row in rows)
        table.add_column(name, justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        # Text, not markup: a clip's name may hold [brackets].
        table.add_row(*[Text(_cell(value)) for value in row])
    out = console()
    if not out.is_terminal:
        out.width = 160  # a pipe has no width of its own
    out.print(Text(title, style="bold"))
    out.print(table)
    if more:
        print(f"and {more:,} more in {rest}")


def print_over_seeds(repeats: Sequence[Repeats]) -> None:
    """Mean and spread of trainings that differ in their seed alone, a line each."""
    from pipeline.heads.repeats import COLUMNS

    if not repeats:
        return
    title = "over seeds: mean ± standard deviation (lowest to highest)"
    print_table(title, COLUMNS, [each.line() for each in repeats])
    if not all(each.same_test for each in repeats):
        print(
            "where each seed cuts a test of its own, the spread is of split and training together; "
            "--test-set, or a split given by the data, tests all on the same clips"
        )


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error for a step that may take long: call what it yields with (done, total).

    Shown on a terminal only, from the first call on. A total of None is not known.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )
    with bar:
        task = bar.add_task(description, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _cell(value: Any) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return f"{value:.4g}"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    # A carriage return would overwrite the line, an escape colour the rest of it.
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(value))
