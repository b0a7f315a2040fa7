"""A Keras backend that is not there is one sentence, whichever command meets it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows import running
from tests.flows.stores import rising_or_falling

_RUN = """
import sys
from flows.cli.main import main
for words in sys.argv[1:]:
    print("-----", words, file=sys.stderr)
    print(main(words.split()))
"""
_BACKEND = next((n for n in ("torch", "jax") if importlib.util.find_spec(n) is None), "theano")
_NEED_KERAS = (
    "train --store s.zarr --head gru",
    "features --store new.zarr --weights random",
)
_NEED_NONE = ("show --store s.zarr", "heads --head gru")


@pytest.mark.long
def test_a_backend_that_is_absent_is_one_sentence(tmp_path: Path) -> None:
    rising_or_falling(tmp_path / "s.zarr")
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *_NEED_KERAS, *_NEED_NONE],
        env=running.environment({"KERAS_BACKEND": _BACKEND}),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said = dict(
        part.partition("\n")[::2] for part in done.stderr.split("----- ") if part.partition("\n")[0]
    )
    for words in _NEED_KERAS:
        last = said[words].strip().splitlines()[-1]
        assert last.startswith(f"pixels-once {words.split()[0]}: Keras' backend"), said[words]
        assert _BACKEND in last
    for words in _NEED_NONE:
        assert "Keras' backend" not in said[words]
    # Nothing was begun that could not be ended.
    assert not (tmp_path / "new.zarr").exists()
