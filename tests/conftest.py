"""What every room's tests share: one Prefect server for all processes of a parallel run, and no pictures
where a module looks at none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.flows.running import shared_server
from tests.sharing import THOROUGH

_for_the_run = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Start the server in the process that starts the others (pytest-xdist), before them."""
    if "not long" not in config.option.markexpr:
        os.environ[THOROUGH] = "1"
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        _for_the_run.enter_context(shared_server())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it when they have all ended."""
    _for_the_run.close()


@pytest.fixture(scope="module", autouse=True)
def pictures_where_they_are_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings draw nothing in a module that says `DRAWS = False`: a picture costs as much as they."""
    if getattr(request.module, "DRAWS", True):
        yield
        return
    from pipeline.heads import folds, training

    with pytest.MonkeyPatch.context() as patch:
        for module in (training, folds):
            patch.setattr(module, "draw_plots", lambda *_: None)
        yield
