"""The figures of `docs/beside-others.md`: this project's first stage beside the same job in Ray Data.

`benchmarks.pages` writes them between the page's comments, from `results/ray_data.json`, which
`benchmarks.ray_data` measures. The words around them are the page's own.
"""

from __future__ import annotations

import inspect
import re
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import ray_data_job
from benchmarks.alternating import kept

Figures = dict[str, Any]
NAMES = {
    "ours": "ours",
    "ours, batches of 8": "ours, `--batch 8`",
    "tuned": "Ray Data, tuned",
    "plain": "Ray Data, plain",
    "plain, max_errored_blocks": "Ray Data, plain, `max_errored_blocks=-1`",
}
PART = r"(?<=<!-- {} -->\n).*?(?=<!-- end -->)"


def with_figures(page: str) -> str:
    """The page with the plain job, and its figures where they were measured, written again."""
    figures = kept("ray_data")
    parts = {"plain job": f"```python\n{plain_job()}\n```"}
    if figures.get("events"):
        killed, command, broken = event_tables(figures)
        parts |= {
            "rates": rate_table(figures),
            "killed": killed,
            "command": command,
            "broken": broken,
            "again": again(figures),
            "machine": _machine(figures),
        }
    for name, text in parts.items():
        between = re.compile(PART.format(name), re.DOTALL)
        page = between.sub(lambda _, text=text: f"{text}\n", page, count=1)
    return page


def rate_table(figures: Figures) -> str:
    """Medians of the rounds, a column per way."""
    rounds, again = figures["rounds"], figures["again"]
    clips = figures["clips"]
    rows: list[tuple[str, Callable[[str], str]]] = [
        ("clips/s, whole command", lambda way: f"{clips / _median(rounds[way], 'wall_s'):.2f}"),
        ("frames/s, whole command", lambda way: f"{_whole_fps(rounds[way]):.0f}"),
        (
            "the same, ours is ×",
            lambda way: f"{_ratio(rounds, way, lambda one: one['frames'] / one['wall_s']):.2f}",
        ),
        ("frames/s, steady", lambda way: f"{_median(rounds[way], 'steady_fps'):.0f}"),
        (
            "the same, ours is ×",
            lambda way: f"{_ratio(rounds, way, lambda one: one['steady_fps']):.2f}",
        ),
        ("first frames done after, s", lambda way: f"{_median(rounds[way], 'first_s'):.1f}"),
        ("CPU seconds, all processes", lambda way: f"{_median(rounds[way], 'cpu_s'):.0f}"),
        ("peak memory, MiB", lambda way: f"{_median(rounds[way], 'peak_mib'):,.0f}"),
        ("the same command again, s", lambda way: f"{_median(again[way], 'wall_s'):.1f}"),
    ]
    ways = list(rounds)
    lines = [
        f"| {clips} clips, {len(rounds['ours'])} rounds | "
        + " | ".join(NAMES[way] for way in ways)
        + " |",
        "| --- |" + " ---: |" * len(ways),
    ]
    lines += [f"| {text} | " + " | ".join(cell(way) for way in ways) + " |" for text, cell in rows]
    return "\n".join(lines)


def event_tables(figures: Figures) -> list[str]:
    """A process with the CNN or one that decodes is killed; the command is; clips are broken."""
    if not (events := figures.get("events")):
        return []
    return [_killed(figures, events), _command(figures, events["command"]), _broken(figures)]


def again(figures: Figures) -> str:
    """A second run with nothing to do, and one for which a file was replaced, of each way."""
    found, changed = figures["again"], figures["changed"]
    whole = _frames(figures)
    lines = [
        "| way | the same command again, s | CPU s | frames computed | rows of clips twice "
        "| frames computed after one clip was replaced |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, runs in found.items():
        last = runs[-1]
        twice = last["rows"]["rows"] - last["rows"]["clips"]
        after = changed[way]["frames"] if way in changed else "all"
        lines.append(
            f"| {NAMES[way]} | {_median(runs, 'wall_s'):.1f} | {_median(runs, 'cpu_s'):.1f} "
            f"| {last['frames']} of {whole} | {twice} | {after} |"
        )
    return "\n".join(lines)


def plain_job() -> str:
    """The source of the plain job."""
    parts = (ray_data_job.decode, ray_data_job.Model, ray_data_job.plain)
    return "\n\n".join(inspect.getsource(part) for part in parts).rstrip()


def _machine(figures: Figures) -> str:
    words = [f"{name.replace('_', ' ')} {_number(v)}" for name, v in figures["machine"].items()]
    words += [f"in Ray's environment {name} {v}" for name, v in figures["versions"].items()]
    least = min(one["least"] for one in figures["agreement"].values())
    return (
        f"The features of all ways agree: the least cosine of two vectors of one step is {least:.5f}.\n\n"
        f"Measured with: {', '.join(words)}."
    )


def _killed(figures: Figures, events: Figures) -> str:
    lines = [
        "| killed | way | ended | clips in the result | CPU time × | wall time × |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for event, text in (("model", "the process with the CNN"), ("decoder", "one that decodes")):
        for name, one in events[event].items():
            lines.append(
                f"| {text} | {NAMES[name]} | {_ended(one)} | {_clips(one, figures)} "
                f"| {_cost([one], name, figures, 'cpu_s'):.2f} "
                f"| {_cost([one], name, figures, 'wall_s'):.2f} |"
            )
    return "\n".join(lines)


def _command(figures: Figures, found: Figures) -> str:
    lines = [
        "| way | good clips when it was killed | after the next run | rows of clips twice "
        "| frames computed again | CPU time of both × | processes left 30 s later |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, pair in found.items():
        first, after = pair["first"], pair["next"]
        twice = after["rows"]["rows"] - after["rows"]["clips"]
        lines.append(
            f"| {NAMES[name]} | {first['rows']['good']} | {_clips(after, figures)} | {twice} "
            f"| {after['frames']} of {_frames(figures)} "
            f"| {_cost([first, after], name, figures, 'cpu_s'):.2f} | {len(first['left_behind'])} |"
        )
    return "\n".join(lines)


def _broken(figures: Figures) -> str:
    clips = figures["clips"]
    lines = [
        "| way | ended | good clips | the two broken ones |",
        "| --- | --- | ---: | --- |",
    ]
    for name, one in figures["events"]["broken"].items():
        told = one["rows"]["errors"]
        said = f"{told} rows that say why" if told else "in the log alone"
        lines.append(
            f"| {NAMES[name]} | {_ended(one)} | {one['rows']['good']} of {clips} | {said} |"
        )
    return "\n".join(lines)


def _ended(one: Figures) -> str:
    return "done" if one["status"] == 0 else f"failed, after {one['wall_s']:.0f} s"


def _clips(one: Figures, figures: Figures) -> str:
    return f"{one['rows']['good']} of {figures['clips']}"


def _way(name: str) -> str:
    return name.split(",")[0]


def _cost(runs: list[Figures], name: str, figures: Figures, kind: str) -> float:
    """What runs took together, in undisturbed runs of the same way."""
    return sum(one[kind] for one in runs) / _median(figures["rounds"][_way(name)], kind)


def _median(runs: list[Figures], kind: str) -> float:
    return statistics.median(one[kind] for one in runs)


def _frames(figures: Figures) -> int:
    """Frames of all clips."""
    return max(one["frames"] for one in figures["rounds"]["tuned"])


def _whole_fps(runs: list[Figures]) -> float:
    return statistics.median(one["frames"] / one["wall_s"] for one in runs)


def _ratio(rounds: Figures, way: str, value: Callable[[Figures], float]) -> float:
    """The median over the rounds of ours over that way's."""
    pairs = zip(rounds["ours"], rounds[way], strict=True)
    return statistics.median(value(ours) / value(other) for ours, other in pairs)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
