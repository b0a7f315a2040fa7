"""The corpus, made once for a test run and clip by clip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.frames.corpus import Corpus, opened


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with opened(tmp_path_factory.mktemp("frames")) as corpus:
        yield corpus
