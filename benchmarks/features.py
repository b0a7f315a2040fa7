"""A store of real features to measure with: the shared fight clips, else the built-in ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

import store
from pipeline import engine
from pipeline.features import backbones
from pipeline.features.backbones import resolve_weights
from pipeline.features.catalog import discover
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import FramePlan
from pipeline.features.demo import write_demo_clips
from pipeline.features.extraction import ClipSource, Extractor
from pipeline.spec import Spec
from store import READY

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "inception_v3_notop.weights.h5"


def real_features(folder: Path, *, limit: int = 0) -> str:
    """The URL of a store with features of real clips, made in `folder`, or the one of
    `BENCH_STORE`; with generated clips and random weights where the real ones are not here.
    """
    if given := os.environ.get("BENCH_STORE"):
        return given
    videos = SHARED / "clips" / "fight"
    if not videos.is_dir():
        videos = folder / "clips"
        write_demo_clips(videos)
    clips = discover(str(videos))
    if limit:
        clips = clips.iloc[:: max(1, len(clips) // limit)].reset_index(drop=True)
    weights = resolve_weights(str(WEIGHTS) if WEIGHTS.is_file() else "random", "inception_v3")
    spec = Spec(weights=weights.hash, precision=engine.auto_precision())
    url = str(folder / "features.zarr")
    layout = store.Layout(steps=spec.sampling.steps, shape=spec.shape, dtype=spec.dtype)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    sources = [
        ClipSource(path=path, size_bytes=size)
        for path, size in zip(clips["path"], clips["size_bytes"], strict=True)
    ]
    backbone = backbones.load(spec, weights)
    with (
        DecoderPool(FramePlan.of(spec)) as pool,
        Extractor(spec, backbone, pool) as extractor,
        store.Writer.acquire(url, owner="benchmark") as writer,
    ):
        rows = writer.append(clips.drop(columns="path"))
        results = extractor.extract(sources)
        none = np.zeros((layout.steps, *layout.shape), layout.dtype)
        features = np.stack([none if r.features is None else r.features for r in results])
        for number in range(-(-len(rows) // layout.batch)):
            part = slice(number * layout.batch, (number + 1) * layout.batch)
            digests = store.write_batch(url, number, features[part], token=writer.token)
            writer.set(rows[part], digest=digests)
        ready = np.array([result.status == "ready" for result in results])
        writer.put_steps(
            rows,
            np.stack([result.mask for result in results]),
            np.stack([result.frame_index for result in results]),
            np.stack([result.timestamp for result in results]),
        )
        writer.mark(rows[ready], READY)
        writer.mark(rows[~ready], store.FAILED)
        writer.set_attributes(classes=sorted(set(clips["label"])))
        writer.flush()
    return url
