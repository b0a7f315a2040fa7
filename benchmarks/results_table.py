"""The figures of streams × heads as Markdown: the first part of `docs/results.md`, the README's table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import results_words
from benchmarks.results_cells import CELLS, STREAM_SETS, Cell, Stream, StreamSet
from pipeline.heads.leaks import WORDS, telling

Found = Mapping[str, Any]
"""The figures of one cell; empty where it was not run."""
SHARES = ("25%", "50%", "75%", "")
NOT_RUN = "not run"


def stream_sections(figures: Mapping[str, Any]) -> list[str]:
    """The sections of every set that has figures."""
    lines = [*results_words.STREAMS]
    for group in STREAM_SETS:
        if figures.get(group.name, {}).get("cells"):
            lines += ["", *_section(group, figures[group.name])]
    return lines


def _section(group: StreamSet, of_set: Mapping[str, Any]) -> list[str]:
    clips, groups = of_set.get("clips", "?"), of_set.get("groups", "?")
    lines = [
        f"### {group.title}: {clips} clips, {groups} groups, {len(of_set.get('classes', ()))} classes",
        "",
        *_leaks(of_set.get("leaks"), of_set),
        "",
        *_table(group, of_set, _heads("heads"), _score, empty=True),
        "",
        f"Lead over the frame average of {group.streams[0].title}:",
        "",
        *_table(group, of_set, _heads("heads"), _lead("lead")),
        "",
        "Lead over the frame average of the same stream:",
        "",
        *_table(group, of_set, _heads("heads")[1:], _lead("over_average")),
    ]
    order = _order(group, of_set)
    learning = _learning(group, of_set)
    return [*lines, *_recalls(group, of_set), *order, *learning]


def _heads(part: str) -> list[Cell]:
    return [cell for cell in CELLS if cell.part == part]


def _leaks(record: Mapping[str, Any] | None, of_set: Mapping[str, Any]) -> list[str]:
    """What the class can be told by without the action, and which heads do not leave that behind."""
    if not record:
        return ["No leak check was made of these clips."]
    told = []
    for check in record["checks"]:
        span = check["interval"]
        if check["top1"] is None:
            told.append(f"{check['sees']} not checked ({check['reason']})")
        else:
            interval = f" ({span[0]:.2f}–{span[1]:.2f})" if span else ""
            told.append(f"{check['sees']} {check['top1']:.3f}{interval}")
    names = ", ".join(WORDS[check["name"]] for check in telling(record))
    most = max((check["top1"] for check in record["checks"] if check["top1"]), default=0)
    behind = [
        f"{name} of {stream}"
        for stream, cells in of_set["cells"].items()
        for name, found in cells.items()
        if name in {cell.name for cell in _heads("heads")}
        if found["interval"] and found["interval"][0] <= most
    ]
    return [
        f"**Leak check** (`make leaks`), on the same folds: {'; '.join(told)}. Chance is "
        f"{record['chance']:.3f}, always the commonest class {record['majority']:.3f}. Beyond chance: "
        f"{names or 'none'}. Skeletons and motion see no watermark. Heads whose interval reaches down to "
        f"the highest of these scores ({most:.3f}): {', '.join(behind).replace('_', ' ') or 'none'}."
    ]


def _table(
    group: StreamSet,
    of_set: Mapping[str, Any],
    cells: Sequence[Cell],
    text: Callable[[Found], str],
    *,
    empty: bool = False,
) -> list[str]:
    """A row per stream. empty: also those of which nothing was run"""
    lines = [
        f"| stream | {' | '.join(cell.name.replace('_', ' ') for cell in cells)} |",
        f"| --- |{' --- |' * len(cells)}",
    ]
    for stream in group.streams:
        own = of_set["cells"].get(stream.name, {})
        if not own and not empty:
            continue
        found = [text(own[cell.name]) if cell.name in own else NOT_RUN for cell in cells]
        lines.append(f"| {stream.title} | {' | '.join(found)} |")
    return lines


def _score(found: Found) -> str:
    span = found.get("interval")
    return f"{found['top1']:.3f}" + (f" ({span[0]:.2f}–{span[1]:.2f})" if span else "")


def _lead(name: str) -> Callable[[Found], str]:
    def text(found: Found) -> str:
        gap = found.get(name)
        return difference(gap) if gap else "–"

    return text


def difference(gap: Mapping[str, Any]) -> str:
    """A paired difference with its interval, bold where it is beyond chance."""
    low, high = gap["low"], gap["high"]
    if low is None:
        return f"{gap['difference']:+.3f} (no interval: {gap['groups']} groups)"
    words = f"{gap['difference']:+.3f} ({low:+.2f} to {high:+.2f})"
    return f"**{words}**" if low > 0 or high < 0 else words


def _recalls(group: StreamSet, of_set: Mapping[str, Any]) -> list[str]:
    """A row per class, a column per stream: the share that its pyramid tells."""
    first = group.streams[0]
    told = [(f"frame average of {first.title}", first.name, "frame_average")]
    told += [(stream.title, stream.name, "pyramid") for stream in group.streams]
    columns = {
        title: of_set["cells"].get(stream, {}).get(head, {}).get("recall")
        for title, stream, head in told
    }
    columns = {title: recall for title, recall in columns.items() if recall}
    if not columns:
        return []
    return [
        "",
        results_words.RECALL,
        "",
        f"| class | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
        *(
            f"| {name} | {' | '.join(f'{recall[name]:.2f}' for recall in columns.values())} |"
            for name in next(iter(columns.values()))
        ),
    ]


def _order(group: StreamSet, of_set: Mapping[str, Any]) -> list[str]:
    rows = []
    for stream in group.streams:
        own = of_set["cells"].get(stream.name, {})
        for cell in _heads("order"):
            if cell.name in own and "lost" in own[cell.name]:
                found = own[cell.name]
                rows.append(
                    f"| {stream.title} | {_score(own[cell.head])} | {_score(found)} | "
                    f"{difference(found['lost'])} |"
                )
    if not rows:
        return []
    return [
        "",
        results_words.ORDER,
        "",
        "| stream | pyramid | steps shuffled | lost |",
        "| --- | --- | --- | --- |",
        *rows,
    ]


def _learning(group: StreamSet, of_set: Mapping[str, Any]) -> list[str]:
    rows = []
    for stream in group.streams:
        own = of_set["cells"].get(stream.name, {})
        for head in ("frame_average", "pyramid"):
            found = [own.get(f"{head} {share}".strip()) for share in SHARES]
            if all(found):
                cells = [
                    f"{one['top1']:.3f} ({one['training_clips']} clips)" for one in found if one
                ]
                rows.append(f"| {stream.title} | {head.replace('_', ' ')} | {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        "",
        results_words.LEARNING,
        "",
        "| stream | head | 25 % | 50 % | 75 % | all |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
    ]


def which_head(figures: Mapping[str, Any]) -> list[str]:
    """The README's table: the head to begin with, by how many clips there are to train on.

    Of each single stream and of all joined; numbers of clips of which the same is to be said are one
    line, with the figures of the largest.
    """
    lines = [
        "| clips to train on | stream | begin with | frame average | pyramid | pyramid's lead |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for group in STREAM_SETS:
        singles = sum(not stream.joins for stream in group.streams)
        for stream in group.streams:
            if len(stream.joins) not in (0, singles):
                continue
            own = figures.get(group.name, {}).get("cells", {}).get(stream.name, {})
            pairs = [
                tuple(own.get(f"{head} {share}".strip()) for head in ("frame_average", "pyramid"))
                for share in SHARES
            ]
            told = [pair for pair in pairs if all(pair) and pair[1].get("over_average")]
            for begin, alike in itertools.groupby(told, lambda pair: _begin_with(pair[1])):
                lines.append(_advice(group, stream, begin, list(alike)))
    return lines


def _begin_with(pyramid: Found) -> str:
    low, high = pyramid["over_average"]["low"], pyramid["over_average"]["high"]
    if low is not None and low > 0:
        return "**pyramid**"
    if high is not None and high < 0:
        return "**frame average**"
    return "either (no significant difference)"


def _advice(group: StreamSet, stream: Stream, begin: str, pairs: Sequence[Any]) -> str:
    average, pyramid = pairs[-1]
    gap = pyramid["over_average"]
    fewest, most = pairs[0][1]["training_clips"], pyramid["training_clips"]
    clips = f"{most}" if fewest == most else f"{fewest} to {most}"
    return (
        f"| {clips} ({group.name}) | {stream.title} | {begin} | "
        f"{average['top1']:.3f} | {pyramid['top1']:.3f} | "
        f"{gap['difference']:+.3f} ({gap['low']:+.2f} to {gap['high']:+.2f}) |"
    )
