"""Weights are found, hashed and named for what they are; what cannot be had is one sentence."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, SpecMismatch, WeightsNotFound
from pipeline.features.backbones import keras_models as module
from pipeline.features.backbones import resolve_weights
from pipeline.features.backbones.keras_models import KERAS_MODELS
from pipeline.features.stage import stored_stage
from pipeline.spec import Spec

HDF5 = b"\x89HDF\r\n\x1a\n" + b"weights of a kind"
NAME = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    # Nothing listens there: a test that would download fails at once instead.
    monkeypatch.setattr(module, "WEIGHTS_SITE", "http://127.0.0.1:9/")
    return tmp_path / "keras" / "models"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served as Keras' site; gives the place of InceptionV3's file in it."""
    root = tmp_path / "site"
    file = root / KERAS_MODELS["inception_v3"].file
    file.parent.mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(module, "WEIGHTS_SITE", f"http://127.0.0.1:{server.server_port}/")
    yield file
    server.shutdown()
    server.server_close()
    thread.join()


def test_keras_own_cache_is_found_and_hashed(home: Path) -> None:
    home.mkdir(parents=True)
    (home / NAME).write_bytes(HDF5)
    weights = resolve_weights("imagenet", "inception_v3")
    assert weights.kind == "imagenet"
    assert weights.hash == "sha256:" + hashlib.sha256(HDF5).hexdigest()
    assert weights.path == home / NAME


def test_missing_imagenet_weights_name_both_ways_out(home: Path) -> None:
    with pytest.raises(WeightsNotFound) as caught:
        resolve_weights("imagenet", "inception_v3")
    sentence = str(caught.value)
    assert "WEIGHTS=path/to/file.h5" in sentence
    assert "WEIGHTS=random" in sentence
    assert "Connection refused" in sentence
    assert "\n" not in sentence
    assert isinstance(caught.value, FileNotFoundError)
    assert not list(home.glob("*"))


def test_a_download_may_be_forbidden(home: Path) -> None:
    with pytest.raises(WeightsNotFound, match="downloading was not allowed"):
        resolve_weights("imagenet", "resnet50", download=False)


def test_a_download_lands_in_keras_cache_if_it_is_what_keras_published(
    site: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write_bytes(HDF5)
    with pytest.raises(WeightsNotFound, match="another md5"):
        resolve_weights("imagenet", "inception_v3")
    assert not list(home.glob("*"))
    monkeypatch.setattr(module, "_check_download", lambda path, checksum: None)
    weights = resolve_weights("imagenet", "inception_v3")
    assert weights.path == home / NAME
    assert (home / NAME).read_bytes() == HDF5
    assert [file.name for file in home.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("stored", "remembered", "asked", "setting"),
    [
        ("random:3", {"weights": "/old.h5"}, "", "random:3"),
        ("random:3", {}, "random:3", "random:3"),
        (f"sha256:{hashlib.sha256(HDF5).hexdigest()}", {}, "", "imagenet"),
        (f"sha256:{hashlib.sha256(HDF5).hexdigest()}", {"weights": "imagenet"}, "", "imagenet"),
    ],
)
def test_the_weights_of_features_that_exist_are_found_in_one_way(
    home: Path, stored: str, remembered: dict[str, str], asked: str, setting: str
) -> None:
    home.mkdir(parents=True)
    (home / NAME).write_bytes(HDF5)
    stage = stored_stage(Spec(weights=stored), remembered, owner="a.zarr", weights=asked)
    assert (stage.weights, stage.spec["weights"]) == (setting, stored)
    with pytest.raises(SpecMismatch, match=r"^a\.zarr was made with weights .* has random:4"):
        stored_stage(Spec(weights=stored), remembered, owner="a.zarr", weights="random:4")


def test_the_published_checksum_decides(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(HDF5)
    for checksum in (hashlib.md5(HDF5).hexdigest(), hashlib.sha256(HDF5).hexdigest(), ""):
        module._check_download(file, checksum)
    with pytest.raises(OSError, match="another sha256"):
        module._check_download(file, hashlib.sha256(b"other").hexdigest())


def test_a_file_is_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    hashes = set()
    for name in ("a.h5", "b.weights.h5"):
        (tmp_path / name).write_bytes(HDF5)
        hashes.add(resolve_weights(str(tmp_path / name), "inception_v3").hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("name", ["missing.h5", "folder", "text.h5", "empty.h5"])
def test_what_is_no_weights_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.h5").write_text("weights")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(ConfigError) as caught:
        resolve_weights(str(tmp_path / name), "inception_v3")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_must_be_asked_for_by_name_and_says_its_seed() -> None:
    assert resolve_weights("random", "inception_v3").hash == "random:0"
    assert resolve_weights("random:17", "inception_v3").hash == "random:17"
    assert resolve_weights("random:017", "inception_v3").hash == "random:17"


@pytest.mark.parametrize("text", ["random:x", "random:-1", "random:1.5", f"random:{2**32}"])
def test_a_seed_is_a_whole_number(text: str) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        resolve_weights(text, "inception_v3")


def test_a_backbone_without_weights_takes_none() -> None:
    weights = resolve_weights("imagenet", "frames")
    assert (weights.kind, weights.hash, weights.path) == ("none", "none", None)
