"""A day on JAX, where there is no TensorFlow: features, train and predict."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.flows.running import ROOT, run

# What Python reads at its start in every process: as if neither were installed.
_ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "openvino"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed here")
def test_nothing_needs_tensorflow_where_jax_is_chosen(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sitecustomize.py").write_text(_ABSENT)
    around = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{tmp_path / 'absent'}:{ROOT}",
        "PIXELS_ONCE_CACHE": str(tmp_path / "cache"),
    }
    videos = ("--videos", str(clips), "--backbone", "mobilenet_v2", "--weights", "random")
    words = ("--store", "s.zarr", "--json", *videos)
    made = run("features", *words, cwd=tmp_path, env=around, timeout_s=400)
    assert made.status == 0, made.err
    assert made.json["ready"] == 12
    assert made.json["engine"] == "jax"
    head = ("--store", "s.zarr", "--head", "gru", "--epochs", "2", "--name", "gru")
    trained = run("train", *head, cwd=tmp_path, env=around, timeout_s=400)
    assert trained.status == 0, trained.err
    clip = next(path for path in sorted(clips.rglob("*")) if path.is_file())
    said = run(
        "predict",
        "--run",
        "runs/gru",
        "--video",
        str(clip),
        cwd=tmp_path,
        env=around,
        timeout_s=400,
    )
    assert said.status == 0, said.err
    # Compiled once: the cache has what the three commands compiled.
    assert list((tmp_path / "cache" / "jax").rglob("*-cache"))
