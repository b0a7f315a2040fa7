"""Three backbones in one run, beside one decoding alone and their CNNs alone; and beside a run for each.

    python -m benchmarks.several --videos clips/ [--weights inception.h5] [--clips 48] [--rounds 3]

The backbones are InceptionV3, an ONNX model (a seeded convolutional network, written here) and `frames`.
In each round, in turns: the worker's tasks that fill all three stores; the decoders, by the plans of
all three; and each CNN alone, on frames in memory, as many as the clips have. Loading and Prefect's
server are left out of all of them. Then each store is made alone by the same tasks, and compared to the
bit. The last line is one line of JSON: `ratio` is the joint wall time over the sum of the parts.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import store
from flows.extract.batches import extract_batch, first_stages
from flows.extract.cluster import BATCHES_PER_WORKER
from flows.extract.commit import Committer
from flows.extract.creation import Asked, hold
from flows.extract.cutting import BatchCutter
from flows.extract.each_store import each_store
from flows.extract.joint import JointBatches
from flows.extract.listing import list_clips, listings_for
from flows.extract.request import checked, stage_of
from flows.extract.setup import Target, prepare_all
from flows.settings.features import FeaturesSettings
from pipeline.features.backbones.family import Backbone
from pipeline.features.joined_stage import JoinedStage
from pipeline.features.stage import FirstStage

_SHARE = 40  # frames of one clip, given to a CNN again and again


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", required=True)
    parser.add_argument("--weights", default="random", help="of InceptionV3")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--decoders", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "model.onnx")
        clips = Path(folder) / "clips"
        _link_clips(Path(arguments.videos), clips, arguments.clips)
        settings = FeaturesSettings(
            videos=str(clips),
            weights=os.path.abspath(arguments.weights) if "/" in arguments.weights else "random",
            backbone=f"inception_v3,{folder}/model.onnx,frames",
            batch=arguments.batch,
            decoders=arguments.decoders,
        )
        print(json.dumps(measured(settings, Path(folder), arguments.rounds)))
    return 0


def write_model(path: Path) -> None:
    """A convolutional network of 224 × 224 pixels to 256 features, its weights drawn from a seed."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes, constants, channels, last = [], [], 3, "image"
    for number, wide in enumerate((32, 64, 128, 256, 256)):
        for stride in (2, 1):
            name = f"{number}.{stride}"
            scale = np.sqrt(2 / (9 * channels))
            weights = (draw.normal(size=(wide, channels, 3, 3)) * scale).astype(np.float32)
            constants.append(numpy_helper.from_array(weights, f"w{name}"))
            pads, strides = [1] * 4, [stride] * 2
            given = [last, f"w{name}"]
            nodes.append(helper.make_node("Conv", given, [f"c{name}"], pads=pads, strides=strides))
            nodes.append(helper.make_node("Relu", [f"c{name}"], [f"r{name}"]))
            channels, last = wide, f"r{name}"
    nodes.append(helper.make_node("ReduceMean", [last], ["features"], axes=[2, 3], keepdims=0))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "several",
        [info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [info("features", TensorProto.FLOAT, ["batch", channels])],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    path.with_suffix(".toml").write_text('scale = "1/255"\nmean = 0.5\nstd = 0.25\n')


def measured(settings: FeaturesSettings, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each round, medians and the ratio; whether the stores are those of separate runs."""
    seconds: dict[str, list[float]] = {}
    template = f"{folder}/joint/{{backbone}}.zarr"
    several = _loaded(settings, template)
    counts = {"clips": 0, "frames": 0}
    for number in range(rounds + 1):
        shutil.rmtree(folder / "joint", ignore_errors=True)
        ways = [
            ("joint", partial(filled, settings, template)),
            ("decoding", partial(decoded, settings, several)),
        ]
        for name, run in ways if number % 2 == 0 else ways[::-1]:
            counts |= _timed(seconds, name, run)
        for name, backbone in zip(
            each_store(_with(settings, template)), several.backbones, strict=True
        ):
            _timed(seconds, f"cnn {name}", partial(computed, backbone, counts["frames"]))
        if not number:  # the first round warms up
            seconds.clear()
            continue
        print({name: round(times[-1], 2) for name, times in seconds.items()}, file=sys.stderr)
    several.close()
    equal = {}
    for name, its in each_store(_with(settings, template)).items():
        alone = f"{folder}/alone.zarr"
        shutil.rmtree(alone, ignore_errors=True)
        own = FeaturesSettings(**{**_values(its), "store": alone})
        stage = _loaded(own, alone)
        _timed(seconds, f"alone {name}", partial(filled, own, alone))
        stage.close()
        equal[name] = same(alone, its.store)
    medians = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
    parts = [name for name in medians if name == "decoding" or name.startswith("cnn ")]
    ratios = [
        joint / sum(seconds[part][at] for part in parts)
        for at, joint in enumerate(seconds["joint"])
    ]
    apart = sum(value for name, value in medians.items() if name.startswith("alone "))
    return {
        **counts,
        "seconds": medians,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "separate_over_joint": round(apart / medians["joint"], 2),
        "bits_equal": equal,
    }


def filled(settings: FeaturesSettings, url: str) -> dict[str, Any]:
    """Fill the stores as a worker's tasks do; how many clips and frames were made, and in how long."""
    with _targets(_with(settings, url)) as targets:
        stages = tuple(target.asked.stage for target in targets)
        cutters = [BatchCutter(t.writer, t.asked.stage, t.prepared.path_of, "run") for t in targets]
        ids = [target.writer.column("video_id") for target in targets]
        batches = JointBatches(cutters, stages, [t.prepared.rows for t in targets], ids)
        committers = [Committer(target.writer) for target in targets]
        began = time.perf_counter()  # the stores are made, and the clips listed
        with ThreadPoolExecutor(BATCHES_PER_WORKER) as threads:
            for result in threads.map(extract_batch, batches):
                for part in result.parts:
                    committers[part.store].accept(part)
        for committer in committers:
            committer.flush([])
        seconds = time.perf_counter() - began
        totals = committers[0].close()
    return {"clips": totals.ready, "frames": totals.frames, "seconds": seconds}


def decoded(settings: FeaturesSettings, several: JoinedStage | FirstStage) -> dict[str, int]:
    """Read every clip by the plans of all stores; the CNNs see nothing."""
    catalog = list_clips(settings)
    paths = catalog["path"].tolist()
    frames = 0
    with ThreadPoolExecutor(2 * several.pool.processes) as threads:
        waiting = threads.map(
            lambda path: several.pool.submit(path, os.path.getsize(path)).result(), paths
        )
        for read in waiting:
            frames += len(read)
            for each in (read, *read.further):
                each.release()
    return {"clips": len(paths), "frames": frames}


def computed(cnn: Backbone, frames: int) -> dict[str, int]:
    """Give a CNN so many frames from memory, by as many callers as keep it busy."""
    draw = np.random.default_rng(0)
    shape = (max(_SHARE, cnn.batch), *cnn.batch_shape[1:])
    pictures = draw.integers(0, 256, shape, np.uint8)
    full, rest = divmod(frames, cnn.batch)
    calls = itertools.chain(itertools.repeat(cnn.batch, full), [rest] if rest else [])
    with ThreadPoolExecutor(cnn.concurrency) as threads:
        for _ in threads.map(lambda count: cnn(pictures[:count]), calls):
            pass
    return {}


def same(one: str, other: str) -> bool:
    """Whether two stores hold the same, array for array, to the bit."""
    import zarr

    first, second = (zarr.open_group(url, mode="r") for url in (one, other))
    if set(first.array_keys()) != set(second.array_keys()):
        return False
    if store.open(one).fingerprint != store.open(other).fingerprint:
        return False
    for name in first.array_keys():
        mine, theirs = first[name], second[name]
        for start in range(0, mine.shape[0], 8):
            values = [np.asarray(array[start : start + 8]) for array in (mine, theirs)]
            equal_nan = values[0].dtype.kind == "f"
            if not np.array_equal(*values, equal_nan=equal_nan):
                return False
    return True


@contextlib.contextmanager
def _targets(settings: FeaturesSettings) -> Iterator[list[Target]]:
    requests = list(each_store(checked(settings)).values())
    asked = []
    for its in requests:
        existing = store.open(its.store) if store.exists(its.store) else None
        spec, stage, weights = stage_of(its, existing)
        asked.append(
            Asked(settings=its, existing=existing, spec=spec, stage=stage, weights=weights)
        )
    with contextlib.ExitStack() as held:
        catalog = list_clips(requests[0])
        writers = hold(asked, [len(catalog)] * len(asked), held)
        yield prepare_all(asked, writers, listings_for(requests, catalog, writers))


def _loaded(settings: FeaturesSettings, url: str) -> JoinedStage | FirstStage:
    """The stages of these stores, as a worker loads and keeps them."""
    requests = each_store(_with(settings, url)).values()
    return first_stages(tuple(stage_of(its, None)[1] for its in requests))


def _with(settings: FeaturesSettings, url: str) -> FeaturesSettings:
    return FeaturesSettings(**{**_values(settings), "store": url})


def _values(settings: FeaturesSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in FeaturesSettings.__dataclass_fields__}


def _timed(seconds: dict[str, list[float]], name: str, run: Any) -> dict[str, Any]:
    began = time.perf_counter()
    counts = run()
    took = counts.pop("seconds", time.perf_counter() - began)
    seconds.setdefault(name, []).append(took)
    return counts


def _link_clips(videos: Path, folder: Path, most: int) -> None:
    """A folder with some of the clips, from all over, in their folders."""
    paths: Sequence[Path] = sorted(p for p in videos.rglob("*") if p.suffix in (".mp4", ".avi"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    for path in (paths[i] for i in chosen):
        link = folder / path.relative_to(videos)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())


if __name__ == "__main__":
    sys.exit(main())
