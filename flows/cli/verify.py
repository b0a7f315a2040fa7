"""`pixels-once verify`: reads every row back and says which are sound."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from flows.cli.terminal import headline, print_json, print_table, progress_bar
from flows.notices import notice
from flows.settings.resolve import LARGEST_SEED, setting
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import store

EXAMPLES = """
pixels-once verify --store clips.zarr
pixels-once verify --store clips.zarr --repair
pixels-once verify --store clips.zarr --sample 20
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Reads every row back and reports damage; --repair sets damaged rows to pending."""

    store: str = setting(
        "features.zarr", "the store, or a quoted pattern: 'shards/*.zarr'", metavar="PATH"
    )
    repair: bool = setting(False, "set damaged rows to pending; the next run extracts them again")
    lease: bool = setting(True, "hold the store's lease while repairing")
    sample: int = setting(0, "also extract this many random ready clips again and compare")
    videos: str = setting(
        "", "where the clips are, for --sample (default: where they were)", metavar="PATH"
    )
    weights: str = setting("", "the backbone's weights, for --sample", metavar="WEIGHTS")
    seed: int = setting(0, "which clips --sample picks", most=LARGEST_SEED)


def run(settings: Settings, *, json: bool) -> int:
    """Print damaged rows by name and kind; with --repair, send them to pending. 1 where damaged."""
    import pandas as pd

    import store

    urls = store.stores_of(settings.store)
    if len(urls) > 1 or urls != [settings.store]:
        if settings.sample:
            raise ConfigError(
                f"sample is {settings.sample} and {settings.store} is a pattern: the clips of one store "
                "are extracted again at a time, name it"
            )
        return _run_shards(settings, urls, json=json)
    with progress_bar("verify", "rows") as progress:
        report = store.verify(settings.store, on_progress=progress)
    again = None
    if settings.sample and report.columns:
        notice("--sample was left out: repair the damaged columns first")
    elif settings.sample:
        from flows.checks.recheck import recheck

        again = recheck(
            store.open(settings.store),
            settings.sample,
            videos=settings.videos,
            weights=settings.weights,
            seed=settings.seed,
        )
        damaged = pd.concat([report.damaged, again.different], ignore_index=True)
        damaged = damaged.drop_duplicates("row").sort_values("row", ignore_index=True)
        report = replace(report, damaged=damaged, sound=report.checked - len(damaged))
    repaired = 0
    if settings.repair and not report.ok:
        repaired = store.repair(settings.store, report, owner="verify", lease=settings.lease)
    if json:
        print_json(_facts(settings, report, again, repaired))
    else:
        _print(settings, report, again, repaired)
    if report.ok:
        return 0
    # Problems of the store as a whole are repaired by no run.
    return 0 if settings.repair and not report.problems else 1


def _run_shards(settings: Settings, urls: list[str], *, json: bool) -> int:
    """The same over every store that a pattern names."""
    import store

    found, repaired = {}, 0
    for url in urls:
        with progress_bar(f"verify {url.rsplit('/', 1)[-1]}", "rows") as progress:
            found[url] = report = store.verify(url, on_progress=progress)
        if settings.repair and not report.ok:
            repaired += store.repair(url, report, owner="verify", lease=settings.lease)
    reports = found.values()
    checked, sound = sum(r.checked for r in reports), sum(r.sound for r in reports)
    damaged = [
        {"store": url, **line} for url, r in found.items() for line in r.damaged.to_dict("records")
    ]
    problems = [problem for r in reports for problem in r.problems]
    columns = [{"store": url, "column": name} for url, r in found.items() for name in r.columns]
    if json:
        print_json(
            store=settings.store,
            stores=urls,
            checked=checked,
            sound=sound,
            damaged=damaged,
            columns=columns,
            problems=problems,
            repaired=repaired,
        )
    else:
        if damaged:
            lines = [(d["store"], d["row"], d["video_id"], d["what"]) for d in damaged]
            print_table("damaged rows", ("store", "row", "clip", "what"), lines)
        for each in columns:
            print(f"the column {each['column']} of {each['store']} is damaged")
        for problem in problems:
            print(problem)
        headline(f"{settings.store}: {sound} of {checked} rows of {len(urls)} stores are sound")
        if repaired:
            print(f"{repaired} rows are pending now; run `pixels-once features` for their stores")
        elif damaged or columns:
            print(
                "next: run this again with --repair, then `pixels-once features` for those stores"
            )
    is_mended = settings.repair and not problems
    return 0 if all(r.ok for r in reports) or is_mended else 1


def _facts(
    settings: Settings, report: store.Report, again: Any | None, repaired: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "store": settings.store,
        "checked": report.checked,
        "sound": report.sound,
        "damaged": report.damaged.to_dict("records"),
        "columns": report.columns,
        "problems": report.problems,
        "repaired": repaired,
    }
    if again is not None:
        numbers = {"different": len(again.different), "least_cosine": round(again.least_cosine, 6)}
        facts["sample"] = asdict(again) | numbers
    return facts


def _print(settings: Settings, report: store.Report, again: Any | None, repaired: int) -> None:
    if len(report.damaged):
        damaged = report.damaged[["row", "video_id", "what"]].itertuples(index=False)
        print_table("damaged rows", ("row", "clip", "what"), damaged)
    for name in report.columns:
        print(f"the column {name} is damaged")
    for problem in report.problems:
        print(problem)
    headline(f"{settings.store}: {report.sound} of {report.checked} rows are sound")
    if again is not None:
        gone = f"; {again.skipped} others have no unchanged clip there" if again.skipped else ""
        print(
            f"{again.checked} clips extracted again: {again.identical} identical, "
            f"{len(again.different)} different, cosine at least {again.least_cosine:.4f}{gone}"
        )
    if repaired:
        print(f"{repaired} rows are pending now; the next `pixels-once features` makes them anew")
    elif settings.repair and report.columns:
        print("the columns are reset; the next `pixels-once features` fills them in again")
    elif len(report.damaged) or report.columns:
        print("next: run this again with --repair, then `pixels-once features`")
