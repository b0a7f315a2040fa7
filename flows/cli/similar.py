"""`pixels-once similar`: the clips of a store that are most like a given one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.terminal import headline, print_json, print_table, progress_bar, suggest
from flows.notices import notice
from flows.settings.features import ENGINES
from flows.settings.resolve import require_file, setting
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

MOST_DRAWN = 59
"""Clips in the picture beside the one that was asked for; a larger one takes minutes to draw."""

EXAMPLES = """
pixels-once similar --store clips.zarr --video new.mp4
pixels-once similar --store clips.zarr --video Serve/v_Serve_g01_c01.mp4 --top 5
pixels-once similar --store clips.zarr
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Finds the clips nearest to one by features; without one, how often nearest clips share a label."""

    store: str = setting(
        "features.zarr", "the store, or a quoted pattern: 'shards/*.zarr'", metavar="PATH"
    )
    video: str = setting(
        "",
        "a clip's file, its id in the store, or its row number (required)",
        metavar="PATH|ID|ROW",
    )
    top: int = setting(10, "how many clips to find", least=1)
    out: str = setting(
        "similar.png",
        "a picture of the clips found, at most 59 of them (empty: none)",
        metavar="FILE",
    )
    weights: str = setting(
        "", "the backbone's weights, for a clip that is not in the store", metavar="WEIGHTS"
    )
    engine: str = setting("auto", "what runs the CNN", choices=ENGINES)


def run(settings: Settings, *, json: bool) -> int:
    """Print the nearest clips as a table and draw them; without a clip, print how telling they are."""
    require_file("out", settings.out)
    import numpy as np

    import store
    from flows.report.vectors import clip_vectors
    from pipeline.heads.neighbours import nearest

    source = store.open_all(settings.store)
    table = source.table()
    with progress_bar("reading features", "clips") as progress:
        known = clip_vectors(source, on_progress=progress)
    if not len(known.rows):
        raise ConfigError(f"{settings.store} has no ready rows: run `pixels-once features` first")
    if not settings.video:
        return _agreement(settings, table, known, json=json)
    row = _row(settings.video, table)
    if row is not None:
        if row not in known.rows:
            raise ConfigError(
                f"row {row} of {settings.store} is {table.at[row, 'state']!s} and has no features: "
                "name a ready clip"
            )
        place = int(np.searchsorted(known.rows, row))
        query, pictures = known.vectors[place], tuple(source.previews([row])[0])
        label = str(table.at[row, "label"])
    else:
        place, label = -1, ""
        query, pictures = _new_clip(settings, source)
    started = time.monotonic()
    places, cosines = nearest(
        known.vectors, query, count=settings.top, scaling=known.scaling, leave_out=place
    )
    seconds = time.monotonic() - started
    similar = table.loc[known.rows[places], ["video_id", "label", "group"]]
    similar = similar.rename_axis("row").reset_index()
    similar = similar.assign(similarity=cosines.astype(float).round(4))
    found: list[Any] = similar.to_dict("records")
    if settings.out:
        _draw(settings, source, found, pictures, label)
    if json:
        print_json({"store": settings.store, "video": settings.video, "label": label,
                    "compared": len(known.rows), "seconds": round(seconds, 3),
                    "similar": found, "picture": settings.out})  # fmt: skip
        return 0
    print_table(
        f"most like {settings.video}" + (f" ({label})" if label else ""),
        ("similarity", "label", "group", "clip", "row"),
        similar[["similarity", "label", "group", "video_id", "row"]].itertuples(index=False),
    )
    headline(f"{len(known.rows):,} clips compared in {seconds:.2f} s")
    if settings.out:
        print(f"next: look at {settings.out}")
    return 0


def _row(video: str, table: Any) -> int | None:
    """The row that the words mean: an id, or a number; None for the path of a file."""
    from pipeline.features.catalog import part_of_file

    rows = table.index[table["video_id"] == video]
    if len(rows):
        return int(rows[0])
    if video.isdigit() and not Path(video).exists():
        if int(video) not in table.index:
            raise ConfigError(f"there is no row {video}: the store has rows 0 to {table.index[-1]}")
        return int(video)
    if not Path(part_of_file(video)[0]).exists():
        raise ConfigError(
            f"{video} is neither a file, nor an id of the store, nor a row: "
            "the ids are in the column video_id of `store.open(…).table()`"
        )
    return None


def _new_clip(settings: Settings, source: Any) -> tuple[np.ndarray, tuple[bytes, ...]]:
    """The mean vector and the pictures of a clip that is not in the store."""
    from pipeline.features.catalog import part_of_file
    from pipeline.features.extraction import ClipSource
    from pipeline.features.stage import load_stored

    first_stage, notes = load_stored(
        source.spec,
        source.attributes.get("first_stage", {}),
        owner=source.url,
        weights=settings.weights,
        engine=settings.engine,
        decoders=1,
        previews=True,
    )
    for note in notes:
        notice(note)
    path, span = part_of_file(settings.video)
    clip = ClipSource(path, Path(path).stat().st_size, span)
    with first_stage:
        (result,) = first_stage.extractor.extract([clip])
    if result.features is None:
        raise ConfigError(
            f"{settings.video} cannot be read ({result.reason}{': ' * bool(result.detail)}"
            f"{result.detail}): name another clip"
        )
    steps = result.features[result.mask].astype("float32")
    return steps.reshape(len(steps), -1).mean(axis=0), result.previews


def _draw(
    settings: Settings, source: Any, found: list[dict[str, Any]], pictures: Any, label: str
) -> None:
    from pipeline.report.contents import ClipCard, save_grid

    drawn = found[:MOST_DRAWN]
    previews = source.previews([clip["row"] for clip in drawn]) if drawn else []
    cards = [ClipCard(video_id=settings.video, label=label, note="asked for", pictures=pictures)]
    for clip, previewed in zip(drawn, previews, strict=True):
        names = {"video_id": clip["video_id"], "label": clip["label"]}
        cards.append(ClipCard(**names, note=f"{clip['similarity']:.3f}", pictures=previewed))
    some = f" (the first {len(drawn)} of {len(found)})" if len(drawn) < len(found) else ""
    save_grid(cards, Path(settings.out), title=f"most like {Path(settings.video).name}{some}")


def _agreement(settings: Settings, table: Any, known: Any, *, json: bool) -> int:
    from pipeline.heads.neighbours import same_class_share

    labels = table.loc[known.rows, "label"].to_numpy()
    groups = table.loc[known.rows, "group"].to_numpy()
    among_all = same_class_share(known.vectors, labels)
    elsewhere = same_class_share(known.vectors, labels, groups=groups)
    if json:
        print_json({"store": settings.store, "all": among_all, "other_groups": elsewhere})
        return 0
    shares = {"all other clips": among_all, "clips of other groups": elsewhere}
    print_table(
        f"of a clip's {among_all['neighbours']} nearest, how many have its label",
        ("looked at", "same class", "chance"),
        [(n, f"{s['same_class']:.1%}", f"{s['chance']:.1%}") for n, s in shares.items()],
    )
    suggest("similar", "--store", settings.store, "--video", table["video_id"].iloc[0])
    return 0
