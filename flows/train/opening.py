"""The stores of a training, opened: `,` between views of the same clips, `+` between their streams.

Each may be many, a pattern: `shards/*.zarr`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import store
from flows.names import label
from pipeline.errors import ConfigError
from pipeline.heads.joined_source import JoinedSource
from pipeline.heads.skeleton_source import read_as

if TYPE_CHECKING:
    from pipeline.heads.source import SequenceSource


def split_views(stores: str) -> list[str]:
    """The views that commas part, the first of them what a run is tested on.

    Raises `ConfigError` for an empty text, and for several views of which one joins streams.
    """
    views = [url.strip() for url in stores.split(",") if url.strip()]
    if not views:
        raise ConfigError("store is empty: name a store that `features` made")
    if len(views) > 1 and any(len(split_streams(view)) > 1 for view in views):
        raise ConfigError(
            f"store is {stores!r}, with views (,) of joined streams (+): train on streams or on views"
        )
    return views


def split_streams(text: str) -> list[str]:
    """The stores that `+` joins. A store whose own name has a + stays whole.

    Of the ways to cut the text into stores that exist, the one with the longest names, from the left.
    Raises `ConfigError` for a + without a store on both sides, `StoreNotFound` if no way is found.
    """
    text = text.strip()
    pieces = text.split("+")
    if len(pieces) == 1 or _is_store(text):
        return [text]
    if found := _cut(pieces):
        return found
    if not all(piece.strip() for piece in pieces):
        raise ConfigError(f"store is {text!r}: name a store on each side of a +")
    absent = next(piece.strip() for piece in pieces if not _is_store(piece))
    raise store.StoreNotFound(
        f"there is no feature store at {absent}, one of those that {text} joins: check the path, or make "
        "one with `pixels-once features`"
    )


def open_source(text: str, *, skeleton: str = "auto", frozen: bool = False) -> SequenceSource:
    """The store of this address, or the streams that it joins, as heads read them.

    skeleton: as a training has it; "yes" if at least one stream holds poses. Raises `store.StoreError`,
    and as `JoinedSource` and `read_as`.
    """
    return source_of([store.open_all(url, frozen=frozen) for url in split_streams(text)], skeleton)


def source_of(stores: list[store.Store | store.Shards], skeleton: str) -> SequenceSource:
    """One store as heads read it, or several joined."""
    if len(stores) == 1:
        return read_as(stores[0], skeleton)
    poses = [source.spec.get("backbone") == "pose" for source in stores]
    if skeleton == "yes" and not any(poses):
        raise ConfigError(
            f"skeleton is yes, and none of {', '.join(source.url for source in stores)} is a store of "
            "backbone pose: leave it out"
        )
    return JoinedSource(
        [
            read_as(source, skeleton if pose else "no")
            for source, pose in zip(stores, poses, strict=True)
        ]
    )


def require_one_store(text: str, remedy: str) -> None:
    """Raise `ConfigError` for stores that are joined, if at least one of them exists."""
    pieces = text.split("+")
    if len(pieces) > 1 and not _is_store(text) and any(map(_is_store, pieces)):
        raise ConfigError(f"store is {text!r}, which joins several, and one is needed: {remedy}")


def store_name(stores: str) -> str:
    """What a run is called after its stores: their stems, with + between streams."""
    return "+".join(label(url) for url in split_streams(stores.split(",")[0]))


def _cut(pieces: list[str]) -> list[str]:
    """The pieces put together to names of stores; empty if that cannot be done."""
    for count in range(len(pieces), 0, -1):
        name = "+".join(pieces[:count]).strip()
        if not name or not _is_store(name):
            continue
        if count == len(pieces):
            return [name]
        if rest := _cut(pieces[count:]):
            return [name, *rest]
    return []


def _is_store(url: str) -> bool:
    try:
        return bool(url.strip()) and all(map(store.exists, store.stores_of(url.strip())))
    except store.StoreNotFound:  # a pattern that nothing matches
        return False
    except (ValueError, ImportError):  # what fsspec raises for a scheme that it does not know
        return False
