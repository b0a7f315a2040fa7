"""Settings of a search by likeness."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarSettings:
    """The clips most like a given one, by their features; without one, how often likes are of a class."""

    store: str = setting("features.zarr", "the store", metavar="PATH")
    video: str = setting(
        "", "a clip's file, its id in the store, or its row number", metavar="PATH|ID|ROW"
    )
    top: int = setting(10, "how many clips to find", metavar="N", least=1)
    out: str = setting(
        "similar.png",
        "a picture of what was found, at most 59 clips of it (empty: none)",
        metavar="FILE",
    )
    weights: str = setting(
        "", "the backbone's weights, for a clip that is not in the store", metavar="WEIGHTS"
    )
    engine: str = setting("auto", "what runs the CNN", choices=("auto", "keras", "openvino"))
