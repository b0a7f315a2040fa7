"""Whether a new head may replace the accepted one: paired, over groups, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.heads.measures import LEAST_GROUPS, bootstrap_interval
from pipeline.heads.source import Mask, Names

Hits = Mask
"""(clips,) bool: whether a head named the clip rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the new head is promoted, and what that rests on.

    `difference` is in top-1 on the same clips, `low` and `high` its 95 % interval over groups; None
    where there is no accepted head, or too few groups. `classes` has one line per class: clips, the
    recall of both, their difference.
    """

    promoted: bool
    why: str
    clips: int
    groups: int
    top1: float
    accepted_top1: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    classes: tuple[dict[str, Any], ...] = ()


def judge_by_baselines(
    hits: Hits, labels: Names, groups: Names, baselines: Mapping[str, float], threshold: float
) -> Verdict:
    """Compare a new head with its own baselines, if the accepted one has seen the test clips.

    `baselines` are their top-1 on the same clips. Promoted if the head is not worse than the best
    of them by more than `threshold`.
    """
    name = max(baselines, key=lambda name: baselines[name])
    difference = float(hits.mean()) - baselines[name]
    what = f"beside {name} ({baselines[name]:.3f}) the difference"
    return _verdict(what, difference, threshold, _figures(hits, None, labels, groups))


def judge(
    hits: Hits, rival: Hits | None, labels: Names, groups: Names, threshold: float
) -> Verdict:
    """Compare a new head's hits with the accepted one's (`rival`) on the same clips.

    Promoted if it is not worse by more than `threshold`, as surely as the clips can tell: the
    low end of the paired interval over `groups` (n,) is not below −`threshold`. With fewer than
    five groups there is no interval, and the difference itself decides.
    """
    figures = _figures(hits, rival, labels, groups)
    number = figures["groups"]
    if rival is None:
        return Verdict(promoted=True, why="there is no accepted run to hold it against", **figures)
    difference = hits.astype(float) - rival.astype(float)
    held = float(difference.mean())
    figures |= {"accepted_top1": float(rival.mean()), "difference": held}
    what = f"no interval over {number} groups, the difference"
    if number >= LEAST_GROUPS:
        held, high = bootstrap_interval(difference, groups)
        figures |= {"low": held, "high": high}
        what = f"the low end of the 95 % interval over {number} groups"
    return _verdict(what, held, threshold, figures)


def _verdict(what: str, held: float, threshold: float, figures: dict[str, Any]) -> Verdict:
    promoted = held >= -threshold - 1e-9
    why = f"{what} ({held:+.3f}) is {'not ' * promoted}below {-threshold:+.3f}"
    return Verdict(promoted=promoted, why=why, **figures)


def _figures(hits: Hits, rival: Hits | None, labels: Names, groups: Names) -> dict[str, Any]:
    """What every verdict names."""
    return {
        "clips": len(hits),
        "groups": len(set(groups)),
        "top1": float(hits.mean()),
        "classes": tuple(_classes(hits, rival, labels)),
    }


def _classes(hits: Hits, rival: Hits | None, labels: Names) -> list[dict[str, Any]]:
    lines = []
    for name in sorted(set(labels)):
        own = labels == name
        line: dict[str, Any] = {
            "class": str(name),
            "clips": int(own.sum()),
            "recall": float(hits[own].mean()),
        }
        if rival is not None:
            before = float(rival[own].mean())
            line |= {"accepted_recall": before, "difference": line["recall"] - before}
        lines.append(line)
    return lines
