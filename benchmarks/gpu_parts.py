"""The parts of `benchmarks.gpu`: each measures one thing and prints its rows as lines of JSON."""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.null_cnn import NullCnn
from pipeline import engine


def say(part: str, what: str, **figures: Any) -> None:
    """One row, as a line of JSON."""
    print(json.dumps({"part": part, "what": what, **figures}), flush=True)


def cnn(arguments: argparse.Namespace) -> None:
    """The backbone with copies by callers, and on the device alone; as built and with folding."""
    from pipeline.features import backbones
    from pipeline.features.backbones import resolve_weights
    from pipeline.features.backbones.keras_engine import rate
    from pipeline.spec import Precision, Spec

    name = _backbone(arguments)
    weights = resolve_weights("random", name)
    precisions: tuple[Precision, ...] = engine.precisions() if not arguments.dry else ("float32",)
    for precision in precisions[:1] if arguments.quick else precisions:
        if precision == "float16":
            continue
        kind = backbones.describe(name)
        spec = Spec(
            backbone=name,
            size=kind.size,
            shape=kind.shape,
            weights=weights.hash,
            precision=precision,
        )
        began = time.perf_counter()
        options = backbones.LoadOptions(engine="keras", batch=4 if arguments.dry else 0)
        backbone = backbones.load(spec, weights, options)
        load_s = round(time.perf_counter() - began, 1)
        callers = {
            f"callers_{n}": round(rate(backbone, n, arguments.seconds)) for n in (1, 2, 3, 4)
        }
        device = engine.device_name()
        rates = {"device": device, "load_s": load_s, "chosen": backbone.concurrency, **callers}
        say("cnn", f"ours, {precision}", batch=backbone.batch, **rates)
        for fold in (True, False):
            how = "folded" if fold else "as built"
            resident = _resident(spec, weights, backbone.batch, fold, arguments.seconds)
            say("cnn", f"resident, {precision}, {how}", fps=resident)


def _resident(spec: Any, weights: Any, batch: int, fold: bool, seconds: float) -> int:
    """Frames/s of the model on the device alone, its input there already."""
    from pipeline.features.backbones.keras_model import build_model

    model = build_model(
        spec.backbone, size=spec.size, weights=weights, precision=spec.precision, fold=fold
    )
    shape = (batch, spec.size, spec.size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if engine.backend_name() != "jax":
        call = engine.compiled(model, shape, dtype="uint8")
        return round(_per_second(lambda: call(frames), seconds) * batch)
    import jax

    values = (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )

    def forward(values: Any, inputs: Any) -> Any:
        return model.stateless_call(*values, inputs, training=False)[0]

    # Named as in `engine_jax`: what was compiled there is found in JAX's cache.
    function = jax.jit(forward)
    there = jax.device_put(frames)

    def several() -> None:
        outputs = [function(values, there) for _ in range(4)]
        outputs[-1].block_until_ready()

    return round(_per_second(several, seconds) * 4 * batch)


def _per_second(call: Any, seconds: float) -> float:
    call()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - began)


def peers(arguments: argparse.Namespace) -> None:
    """torchvision's InceptionV3, half precision, channels last: eager and compiled."""
    import torch
    import torchvision

    gpu = torch.cuda.is_available()
    device, kind = ("cuda", torch.float16) if gpu else ("cpu", torch.float32)
    batch = 4 if arguments.dry else 256
    torch.backends.cudnn.benchmark = True
    model = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False)
    model.fc = torch.nn.Identity()
    model = model.eval().to(device).to(kind).to(memory_format=torch.channels_last)
    host = torch.randint(0, 256, (batch, 299, 299, 3), dtype=torch.uint8)
    host = host.pin_memory() if gpu else host
    ways = {"eager": model} | ({} if arguments.dry else {"compiled": torch.compile(model)})
    for way, function in ways.items():

        def step(function: Any = function) -> None:
            frames = host.to(device, non_blocking=True).permute(0, 3, 1, 2).to(kind) / 127.5 - 1
            function(frames.contiguous(memory_format=torch.channels_last)).float().cpu()

        with torch.inference_mode():
            began = time.perf_counter()
            step()
            step()
            load_s = round(time.perf_counter() - began, 1)
            fps = round(_per_second(step, arguments.seconds) * batch)
        say("peers", f"torchvision, {way}, {kind}", batch=batch, load_s=load_s, with_copies=fps)


def decode(arguments: argparse.Namespace) -> None:
    """Bare OpenCV, our decoders alone, and the extractor before a CNN that costs nothing."""
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
    from multiprocessing import get_context

    from pipeline.features.decoders import DecoderPool
    from pipeline.features.decoding import FramePlan
    from pipeline.features.extraction import ClipSource, Extractor
    from pipeline.spec import Spec

    paths = _paths(arguments)
    sources = [ClipSource(path=path, size_bytes=os.path.getsize(path)) for path in paths]
    with ProcessPoolExecutor(engine.cores(), get_context("spawn")) as processes:
        list(processes.map(_bare_opencv, paths[: 2 * engine.cores()]))
        few = paths[: max(len(paths) // 4, 1)]
        began = time.perf_counter()
        frames = sum(processes.map(_bare_opencv, few, chunksize=4))
        fps = round(frames / (time.perf_counter() - began))
    say("decode", "bare OpenCV, a process per core", clips=len(few), fps=fps)
    # With all that a run has its decoders do: hashes, small pictures.
    with DecoderPool(FramePlan.of(Spec()), previews=True) as pool:
        warm = sources[: 2 * engine.cores()]

        def read(some: list[ClipSource]) -> int:
            # Released as they come: waiting for them in order, one slow clip would stop all others.
            counts: queue.SimpleQueue[int] = queue.SimpleQueue()

            def over(future: Any) -> None:
                clip = future.result()
                counts.put(len(clip.frames))
                clip.release()

            for source in some:
                pool.submit(source.path, source.size_bytes).add_done_callback(over)
            return sum(counts.get() for _ in some)

        read(warm)
        began = time.perf_counter()
        frames = read(sources)
        fps = round(frames / (time.perf_counter() - began))
        say("decode", "decoders alone", processes=pool.processes, clips=len(paths), fps=fps)
        with Extractor(Spec(), NullCnn(), pool) as extractor, ThreadPoolExecutor(2) as callers:
            began, cpu = time.perf_counter(), time.process_time()
            batches = [sources[start : start + 64] for start in range(0, len(sources), 64)]
            results = [r for some in callers.map(extractor.extract, batches) for r in some]
            seconds = time.perf_counter() - began
            frames = sum(int(result.mask.sum()) for result in results)
            busy = round((time.process_time() - cpu) / seconds, 2)
            fps = round(frames / seconds)
            say(
                "decode", "extractor, a CNN that costs nothing", fps=fps, cores_of_this_process=busy
            )


def _bare_opencv(path: str) -> int:
    """Grab all frames of a clip, retrieve 40, crop and scale them; how many there were."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(((np.arange(40) + 0.5) * count / 40).astype(int).tolist())
    found = number = 0
    while capture.grab():
        if number in wanted:
            frame = capture.retrieve()[1]
            side = min(frame.shape[:2])
            top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
            frame = frame[top : top + side, left : left + side]
            frame = cv2.resize(frame, (299, 299), interpolation=cv2.INTER_AREA)
            cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            found += 1
        number += 1
    return found


def run(arguments: argparse.Namespace) -> None:
    """The command itself: on 64 clips with cold caches, then on all with warm ones."""
    from benchmarks.startup import seconds_since, site_of

    with tempfile.TemporaryDirectory(prefix="bench-gpu-run-") as scratch:
        site = site_of(Path(scratch))
        paths = _paths(arguments)
        for how, count in {"cold": min(64, len(paths)), "warm": len(paths)}.items():
            folder = Path(scratch) / how
            folder.mkdir()
            for number, path in enumerate(paths[:count]):
                (folder / f"{number:05}{Path(path).suffix}").hardlink_to(_near(path, folder))
            command = [sys.executable, "-m", "flows", "features", "--videos", str(folder), "--json"]
            command += ["--store", f"{scratch}/{how}.zarr", "--weights", "random"]
            command += ["--backbone", _backbone(arguments), "--engine", "keras"]
            marks = folder.parent / f"{how}-marks"
            marks.mkdir()
            search = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
            around = os.environ | {"PIXELS_ONCE_CACHE": f"{scratch}/cache"}
            around |= {"PYTHONPATH": search, "STARTUP_MARKS": str(marks)}
            began = time.time()
            done = subprocess.run(command, env=around, capture_output=True, text=True, check=False)
            wall = time.time() - began
            if done.returncode:
                raise SystemExit(f"features: {done.returncode}: {done.stderr[-2000:]}")
            summary = json.loads(done.stdout)
            reached = seconds_since(began, marks)
            say("run", f"features, {how}", **of_run(summary, wall), reached_s=reached)


def of_run(summary: dict[str, Any], wall: float) -> dict[str, Any]:
    """Seconds and frames/s of a run, those of its steady middle, and what its stages took."""
    course = [(seconds, frames) for seconds, frames in summary["throughput"] if frames]
    inside = course[len(course) // 10 : -1] or course
    steady = 0.0
    if len(inside) > 1 and inside[-1][0] > inside[0][0]:
        steady = (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])
    return {
        "clips": summary["ready"],
        "failed": summary["failed"],
        "wall_s": round(wall, 1),
        "steady_fps": round(steady),
        "stages": {name: round(value, 1) for name, value in summary["stage_seconds"].items()},
    }


def heads(arguments: argparse.Namespace) -> None:
    """The first epoch of every head, and its later ones."""
    from benchmarks.first_epoch import apart

    for head in arguments.heads.split(","):
        clips, limit = (32, 60.0) if arguments.dry else (300 if head == "convlstm" else 2048, 60.0)
        row = apart(engine.backend_name(), head, clips=clips, epochs=3, limit=limit)
        say(
            "heads", head, **{k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}
        )


def _backbone(arguments: argparse.Namespace) -> str:
    return "mobilenet_v2" if arguments.dry else "inception_v3"


def _paths(arguments: argparse.Namespace) -> list[str]:
    """`--clips` paths, those of the folder over and over."""
    found = sorted(p for p in Path(arguments.videos).rglob("*") if p.suffix in (".mp4", ".avi"))
    if not found:
        raise SystemExit(
            f"no .mp4 or .avi clip in {arguments.videos!r}: name a folder with --videos"
        )
    return [str(found[number % len(found)].resolve()) for number in range(arguments.clips)]


def _near(path: str, folder: Path) -> str:
    """A copy of the clip on the folder's file system, made once: a link must not cross one."""
    copy = folder.parent / "originals" / f"{Path(path).parent.name}-{Path(path).name}"
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(Path(path).read_bytes())
    return str(copy)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "cnn": cnn,
    "peers": peers,
    "decode": decode,
    "run": run,
    "heads": heads,
}
