"""What does not answer is the environment's fault (status 4); what is no address is a mistake (1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.data import downloads
from flows.data.downloads import fetch_clip
from flows.extract import cluster
from flows.server.lifetime import find_server
from pipeline.errors import exit_status
from pipeline.features.backbones import keras_models, resolve_weights
from pipeline.features.catalog import discover

NOWHERE = "http://127.0.0.1:9"
"""Nobody listens there (the port of a service that is given up), and a connection is refused at once."""

ASKED: dict[str, tuple[Callable[[Path], object], int]] = {
    "the Prefect server": (lambda folder: find_server(), 4),
    "a Dask scheduler": (lambda folder: cluster.require_scheduler("tcp://127.0.0.1:9"), 4),
    "no address of a scheduler": (lambda folder: cluster.require_scheduler("nonsense://x"), 1),
    "a manifest": (lambda folder: discover(f"{NOWHERE}/clips.csv"), 4),
    "a bucket": (lambda folder: discover("s3://bucket/clips"), 4),
    "an unknown protocol": (lambda folder: discover("nonsense://bucket/clips"), 1),
    "a data set": (
        lambda folder: downloads.download(f"{NOWHERE}/a.zip", folder / "a.zip", pause_s=0),
        4,
    ),
    "a page with a video": (lambda folder: fetch_clip(f"{NOWHERE}/page", folder), 4),
    "ImageNet's weights": (lambda folder: resolve_weights("imagenet", "inception_v3"), 4),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_does_not_answer_is_the_environments_fault(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked == "a page with a video":
        pytest.importorskip("yt_dlp")
    monkeypatch.setenv("PREFECT_API_URL", f"{NOWHERE}/api")
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras_models, "WEIGHTS_SITE", f"{NOWHERE}/")
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.3)
    ask, status = ASKED[asked]
    with pytest.raises(Exception) as raised:  # noqa: PT011  (which kind it is, is what is asked)
        ask(tmp_path)
    assert exit_status(raised.value) == status
    assert "\n" not in str(raised.value)
    assert ": " in str(raised.value)
