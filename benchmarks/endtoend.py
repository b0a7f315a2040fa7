"""Stage one end to end: clips in, masked sequences in a store's chunks out, in frames/s.

Seeded clips of the shared sets (else generated ones) and seeded random weights. Every way has a
process of its own with all cores; start-up is apart; they alternate. `decode` and `cnn` are the
two halves of ours alone, each on all cores: a run that loses nothing takes the sum of their times.
The tutorial's loop is so slow that each of its rounds reads a quarter of the clips, in turn.

    python -m benchmarks.endtoend [--rounds 5] [--clips 24]
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

import store
from benchmarks.alternating import compare, rates, ratio, save, serve, table
from pipeline import engine
from pipeline.features import backbones
from pipeline.features.backbones import Weights, resolve_weights
from pipeline.features.backbones.keras_model import build_model
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.features.demo import write_demo_clips
from pipeline.features.extraction import ClipSource, Extractor
from pipeline.features.sampling import sample_indices
from pipeline.spec import Precision, Spec

SHARED = Path(__file__).resolve().parents[2] / "shared" / "clips"
WAYS = {
    "tutorial": "the tutorials' loop: read all, Keras `predict` frame by frame",
    "plain": "our decoder, then `tf.function` float32, clip by clip, no overlap",
    "decode": "our decoders alone",
    "cnn": "our CNN alone",
    "ours": "ours: overlapped, written to a store",
}
CHUNK = 6
"""Clips per chunk of ours: two chunks are in work at once, as a worker's two threads have them."""

Round = Callable[[], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("paths", nargs="*")
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _PREPARE[arguments.way](arguments.paths))
        return
    with tempfile.TemporaryDirectory() as scratch:
        paths = chosen(arguments.clips, Path(scratch))
        report = compare(__file__, WAYS, paths, arguments.rounds)
    figures = {"clips": len(paths), "ways": report}
    save("endtoend", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """The table, and the three ratios that a user asks about."""
    report = figures["ways"]
    return "\n\n".join(
        [
            f"{figures['clips']} clips, {len(report['ours']['rounds'])} rounds",
            table(report, WAYS, "frames/s", "ours"),
            f"ours is {ratio(report, 'ours', 'tutorial'):.2f} times the tutorials' loop, "
            f"{ratio(report, 'ours', 'plain'):.2f} times the plain way, and takes "
            f"{of_sum(report):.3f} times (decoding alone + CNN alone)",
        ]
    )


def of_sum(report: dict[str, Any]) -> float:
    """Our seconds over those of decoding alone and the CNN alone, one after the other."""
    return statistics.median(
        (1 / ours) / (1 / decode + 1 / cnn)
        for ours, decode, cnn in zip(
            *(rates(report, way) for way in ("ours", "decode", "cnn")), strict=True
        )
    )


def chosen(count: int, scratch: Path) -> list[str]:
    """Clips to read: seeded, half of each shared set; generated ones where those are not here."""
    if not SHARED.is_dir():
        write_demo_clips(scratch / "clips")
        clips = sorted((scratch / "clips").glob("*/*"))
        return [str(path) for path in random.Random(0).sample(clips, count)]
    sets = [sorted((SHARED / name).glob("*/*")) for name in ("fight", "tennis")]
    picked = [random.Random(0).sample(clips, count // 2) for clips in sets]
    return [str(path) for pair in zip(*picked, strict=True) for path in pair]


def _spec(precision: Precision) -> tuple[Spec, Weights]:
    weights = resolve_weights("random", "inception_v3")
    return Spec(weights=weights.hash, precision=precision), weights


def _rate(frames: int, began: float) -> dict[str, float]:
    return {"rate": frames / (time.perf_counter() - began), "frames": frames}


def _tutorial(paths: list[str]) -> Round:
    engine.prepare()
    import keras

    model = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    scale = keras.applications.inception_v3.preprocess_input
    model.predict(np.zeros((1, 299, 299, 3), np.float32), verbose=0)
    turn = iter(range(1_000_000))

    def read(path: str) -> list[np.ndarray]:
        capture = cv2.VideoCapture(path)
        frames = []
        while (frame := capture.read())[0]:
            picture = frame[1]
            side = min(picture.shape[:2])
            top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
            picture = cv2.resize(picture[top : top + side, left : left + side], (299, 299))
            frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        return frames

    def one_round() -> dict[str, float]:
        began, count = time.perf_counter(), 0
        for path in paths[next(turn) % 4 :: 4]:
            frames = read(path)
            wanted = sample_indices(Spec().sampling, len(frames), 25.0)
            features = [
                model.predict(scale(frames[i][None].astype(np.float32)), verbose=0) for i in wanted
            ]
            count += len(features)
        return _rate(count, began)

    return one_round


def _plain(paths: list[str]) -> Round:
    engine.prepare()
    spec, weights = _spec("float32")
    model = build_model("inception_v3", size=spec.size, weights=weights, precision="float32")
    shape = (spec.sampling.steps, spec.size, spec.size, 3)
    function = engine.compiled(model, shape, dtype="uint8")
    function(np.zeros(shape, np.uint8))
    plan = FramePlan.of(spec)

    def one_round() -> dict[str, float]:
        began, count = time.perf_counter(), 0
        for path in paths:
            frames = read_clip(path, plan).frames
            whole = np.zeros(shape, np.uint8)
            whole[: len(frames)] = frames
            function(whole)
            count += len(frames)
        return _rate(count, began)

    return one_round


def _decode(paths: list[str]) -> Round:
    pool = DecoderPool(FramePlan.of(Spec()))
    # The children start with their first clips.
    _decode_all(pool, paths[:4])
    return lambda: _decode_round(pool, paths)


def _decode_all(pool: DecoderPool, paths: list[str]) -> int:
    count = 0
    for future in [pool.submit(path, os.path.getsize(path)) for path in paths]:
        clip = future.result()
        count += len(clip.frames)
        clip.release()
    return count


def _decode_round(pool: DecoderPool, paths: list[str]) -> dict[str, float]:
    began = time.perf_counter()
    return _rate(_decode_all(pool, paths), began)


def _cnn(paths: list[str]) -> Round:
    backbone = backbones.load(*_spec(engine.auto_precision()))
    frames = np.random.default_rng(0).integers(
        0, 256, (backbone.batch, backbone.size, backbone.size, 3), np.uint8
    )
    calls = -(-len(paths) * 40 // len(frames))

    def one_round() -> dict[str, float]:
        began = time.perf_counter()
        with ThreadPoolExecutor(backbone.concurrency) as threads:
            list(threads.map(lambda _: backbone(frames).shape, range(calls)))
        return _rate(calls * len(frames), began)

    return one_round


def _ours(paths: list[str]) -> Round:
    spec, weights = _spec(engine.auto_precision())
    backbone = backbones.load(spec, weights)
    extractor = Extractor(spec, backbone, DecoderPool(FramePlan.of(spec)))
    sources = [ClipSource(path=path, size_bytes=os.path.getsize(path)) for path in paths]
    extractor.extract(sources[:4])
    url = tempfile.mkdtemp(prefix="bench-") + "/store.zarr"
    layout = store.Layout(steps=40, shape=spec.shape, dtype=spec.dtype, batch=CHUNK)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    with store.Writer.acquire(url, owner="benchmark") as writer:
        writer.append(pd.DataFrame({"video_id": paths}))
        writer.flush()

    def chunk(number: int) -> int:
        results = extractor.extract(sources[number * CHUNK : (number + 1) * CHUNK])
        features = np.stack([result.features for result in results])
        store.write_batch(url, number, features, token=None)
        return sum(int(result.mask.sum()) for result in results)

    def one_round() -> dict[str, float]:
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as callers:
            frames = sum(callers.map(chunk, range(-(-len(sources) // CHUNK))))
        return _rate(frames, began)

    return one_round


_PREPARE: dict[str, Callable[[list[str]], Round]] = {
    "tutorial": _tutorial,
    "plain": _plain,
    "decode": _decode,
    "cnn": _cnn,
    "ours": _ours,
}

if __name__ == "__main__":
    main()
