"""What every room's tests share: modules that train and look at no picture need not draw any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def pictures_where_they_are_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings draw nothing in a module that says `DRAWS = False`: a picture costs as much as they."""
    if getattr(request.module, "DRAWS", True):
        yield
        return
    # Both first: a module that was imported meanwhile would keep what stands in for the function.
    from pipeline.heads import folds, pictures

    with pytest.MonkeyPatch.context() as patch:
        for module in (pictures, folds):
            patch.setattr(module, "draw_pictures", lambda *_: None)
        yield
