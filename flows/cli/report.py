"""`pixels-once report`: a store and its runs as one HTML page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from flows.cli.terminal import headline, print_json, progress_bar
from flows.settings.resolve import LARGEST_SEED, require_file, setting

EXAMPLES = "pixels-once report --store clips.zarr --runs runs --out report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Writes one HTML page of a store and its runs: clips, map, near-duplicates, leaderboard."""

    store: str = setting(
        "features.zarr", "the store, or a quoted pattern: 'shards/*.zarr'", metavar="PATH"
    )
    runs: str = setting(
        "runs", "folder of all runs; those of other stores are left out", metavar="DIR"
    )
    out: str = setting("report.html", "the page to write", metavar="FILE")
    wall: int = setting(20, "random clips to show")
    hover: int = setting(2000, "clips of the map that show their picture under the pointer")
    near: float = setting(
        0.98, "cosine similarity from which two clips count as near-duplicates", least=-1, most=1
    )
    seed: int = setting(0, "which clips are drawn", most=LARGEST_SEED)


def run(settings: Settings, *, json: bool) -> int:
    out = Path(settings.out)
    require_file("out", settings.out)
    from flows.report.contents import gather
    from flows.train.opening import require_one_store
    from pipeline.plain import whole
    from pipeline.report.page import render

    require_one_store(
        settings.store, "name one of them, and runs that join it with others are shown too"
    )
    started = time.monotonic()
    with progress_bar("reading features", "clips") as progress:
        contents = gather(
            settings.store,
            settings.runs,
            wall=settings.wall,
            hover=settings.hover,
            near=settings.near,
            seed=settings.seed,
            on_progress=progress,
        )
    with whole(out) as making:
        making.write_text(render(contents), encoding="utf-8")
    size = out.stat().st_size
    pictures = any(card.pictures for card in contents.wall)
    if json:
        print_json(
            out=str(out),
            bytes=size,
            seconds=round(time.monotonic() - started, 2),
            rows=len(contents.table),
            runs=[view.name for view in contents.runs],
            look_alikes=len(contents.pairs),
            pictures=pictures,
        )
        return 0
    for sentence in contents.warnings:
        print(f"mind: {sentence}")
    if contents.wall and not pictures:
        print("no pictures: this store was made without previews")
    headline(
        f"{out}: {len(contents.table):,} rows, {len(contents.runs)} runs, {size / 2**20:.1f} MiB"
    )
    print(f"next: open {out.absolute().as_uri()} in a browser, or send the file to a colleague")
    return 0
