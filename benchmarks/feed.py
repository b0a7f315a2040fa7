"""The frames that a CNN is fed, by picture size: our decoders, our extractor, and bare readers.

40 frames of every clip, as squares of 299 pixels in RGB, decoded by as many processes as there are
cores with one thread each: our decoders alone, our extractor before a CNN that costs nothing, and bare
OpenCV, bare PyAV and torchcodec, which read the same frames and drop them. The ways take turns, a size
per turn. Clips are H.264 of 3 seconds, a moving test picture with noise, in which the encoder uses no
B-frames; and, where the shared clips are, of 10 seconds of these, joined and scaled, with B-frames.

torchcodec needs an environment of its own, as PyTorch does not go with ours: name its Python, or have
it made (this downloads PyTorch). Without either it is listed as not measured.

    python -m benchmarks.feed [--rounds 5] [--torchcodec-python FILE | --make-torchcodec FOLDER]

The last line is one JSON object: for each size the frames/s of every way, the best peer, and what ours is
times that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import readers
from benchmarks.alternating import compare, cpu_ratio, rates, ratio, save, serve
from benchmarks.decoding import RATE, encode, moving_picture
from pipeline import engine

SIZES = {"240p": (426, 240), "480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
REAL = {"240p-long": (426, 240), "720p-long": (1280, 720)}
CLIPS = {"240p": 48, "480p": 16, "720p": 8, "1080p": 4, "240p-long": 48, "720p-long": 8}
"""Clips per turn and core: about as many seconds for every size."""

WAYS = {
    "decoders": "ours: decoders alone",
    "extractor": "ours: the extractor, before a CNN that costs nothing",
    "opencv": "bare OpenCV",
    "pyav": "bare PyAV",
    "torchcodec": "torchcodec",
}
OURS = ("decoders", "extractor")
VARIABLE = "BENCH_TORCHCODEC_PYTHON"
SHARED = Path(
    os.environ.get("PIXELS_ONCE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
)
REAL_CLIPS = SHARED / "clips" / "tennis"
REAL_FRAMES = 10 * RATE

ReadAll = Callable[[list[str]], int]
"""Reads the clips at these paths; returns the number of frames."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    known = {**SIZES, **(REAL if REAL_CLIPS.is_dir() else {})}
    parser.add_argument("--sizes", default=",".join(known))
    parser.add_argument("--scale", type=float, default=1.0, help="of the clips per turn")
    parser.add_argument("--torchcodec-python", default=os.environ.get(VARIABLE, ""), metavar="FILE")
    parser.add_argument("--make-torchcodec", default="", metavar="FOLDER")
    parser.add_argument("--out", default="feed", help="the file of results; empty for none")
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _rounds(arguments))
        return
    python, missing = torchcodec_python(arguments.torchcodec_python, arguments.make_torchcodec)
    sizes = arguments.sizes.split(",")
    with tempfile.TemporaryDirectory(prefix="bench-feed-") as folder:
        for size in sizes:
            clip = Path(folder) / f"{size}.mp4"
            shape = known[size]
            encode(clip, real_picture() if size in REAL else moving_picture(*shape), *shape)
            for number in range(_clips(size, arguments.scale)):
                os.link(clip, _path(folder, size, number))
        words = ["--folder", folder, "--sizes", arguments.sizes, "--scale", str(arguments.scale)]
        words += ["--torchcodec-python", python]
        ways = {way: text for way, text in WAYS.items() if way != "torchcodec" or python}
        answers = compare(__file__, ways, words, arguments.rounds * len(sizes))
    figures = {
        "processes": engine.cores(),
        "missing": missing,
        "sizes": {size: _of_size(answers, size) for size in sizes},
    }
    if arguments.out:
        save(arguments.out, figures)
    print(shown(figures))
    print(json.dumps({size: summary(ways) for size, ways in figures["sizes"].items()}))


def real_picture() -> Iterator[Any]:
    """The frames of the shared clips, one after the other, 10 seconds of them."""
    import av

    files = sorted(REAL_CLIPS.rglob("*.mp4"))

    def frames() -> Iterator[Any]:
        for file in files:
            with av.open(str(file)) as container:
                yield from container.decode(video=0)

    return itertools.islice(frames(), REAL_FRAMES)


def _clips(size: str, scale: float) -> int:
    """Clips of a turn, for all cores."""
    return max(2, round(CLIPS[size] * scale)) * engine.cores()


def _path(folder: str, size: str, number: int) -> str:
    """A file of its own for every clip: the rows of one file share a pass over it."""
    return f"{folder}/{size}-{number}.mp4"


def torchcodec_python(named: str, folder: str) -> tuple[str, str]:
    """The Python that has torchcodec, and why there is none; one of them is empty."""
    if folder and not named:
        venv.create(folder, with_pip=True)
        named = str(Path(folder) / "bin" / "python")
        install = [named, "-m", "pip", "install", "--quiet", "torch", "torchcodec", "numpy"]
        if subprocess.run(install, check=False).returncode:
            return "", "pip could not install it"
    if not named:
        return "", "no environment with it was named (--torchcodec-python)"
    if shutil.which(named) is None:
        return "", f"{named} is no program"
    command = [named, "-c", "from torchcodec.decoders import VideoDecoder"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        return "", f"it cannot be imported there: {tried.stderr.strip().splitlines()[-1][:120]}"
    return named, ""


def shown(figures: dict[str, Any]) -> str:
    """A table per figure of merit: frames/s of every way at every size, and ours beside the best peer."""
    lines = [
        f"| frames/s, {figures['processes']} processes | {' | '.join(figures['sizes'])} |",
        f"| --- |{' ---: |' * len(figures['sizes'])}",
    ]
    for way, text in WAYS.items():
        cells = [
            f"{statistics.median(rates(ways, way)):,.0f}" if way in ways else "not measured"
            for ways in figures["sizes"].values()
        ]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    for way in OURS:
        for name, of in (("", "ratio"), (" by CPU time", "cpu_ratio")):
            cells = [
                f"{found[of]:.2f} ({found['peer']})"
                for ways in figures["sizes"].values()
                for found in [best_peer(ways, way)]
            ]
            lines.append(f"| {way}, × the best peer{name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    return (
        f"{table}\n\ntorchcodec: not measured, {figures['missing']}"
        if figures["missing"]
        else table
    )


def best_peer(ways: dict[str, Any], ours: str) -> dict[str, Any]:
    """The fastest bare reader, and ours over it, turn by turn: by the clock and by CPU time."""
    peers = [way for way in ways if way not in OURS]
    best = max(peers, key=lambda way: statistics.median(rates(ways, way)))
    return {
        "peer": best,
        "ratio": ratio(ways, ours, best),
        "cpu_ratio": cpu_ratio(ways, ours, best),
    }


def summary(ways: dict[str, Any]) -> dict[str, Any]:
    """One size's frames/s by way, the best peer and ours over it."""
    medians = {way: round(statistics.median(rates(ways, way))) for way in ways}
    found = {way: best_peer(ways, way) for way in OURS}
    ratios = {f"{way}_ratio": round(found[way]["ratio"], 3) for way in OURS}
    return {**medians, "best_peer": found["decoders"]["peer"], **ratios}


def _of_size(answers: dict[str, Any], size: str) -> dict[str, Any]:
    return {
        way: {
            "start_s": answer["start_s"],
            "rounds": [one for one in answer["rounds"] if one["size"] == size],
        }
        for way, answer in answers.items()
    }


def _rounds(arguments: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """A turn: the clips of the next size."""
    read_all = _reader(arguments.way, arguments.torchcodec_python)
    sizes = arguments.sizes.split(",")
    paths = {
        size: [_path(arguments.folder, size, i) for i in range(_clips(size, arguments.scale))]
        for size in sizes
    }
    turn = 0
    for clips in paths.values():
        read_all(clips[: 2 * engine.cores()])

    def one_round() -> dict[str, Any]:
        nonlocal turn
        size = sizes[turn % len(sizes)]
        turn += 1
        began = time.perf_counter()
        frames = read_all(paths[size])
        seconds = time.perf_counter() - began
        if frames != len(paths[size]) * readers.STEPS:
            wrong = f"{frames} frames of {len(paths[size])} clips at {size}"
            raise SystemExit(f"{arguments.way} read {wrong}")
        return {"size": size, "rate": frames / seconds}

    return one_round


def _reader(way: str, torchcodec: str) -> ReadAll:
    if way == "decoders":
        return _by_decoders()
    if way == "extractor":
        return _by_extractor()
    python = torchcodec if way == "torchcodec" else sys.executable
    return _by_children([python, "-P", str(Path(readers.__file__)), way])


def _by_decoders() -> ReadAll:
    from pipeline.features.decoders import DecoderPool
    from pipeline.features.decoding import FramePlan
    from pipeline.spec import Spec

    pool = DecoderPool(FramePlan.of(Spec()))

    def read_all(paths: list[str]) -> int:
        # Released as they come: waiting for them in order, one slow clip would stop all others.
        counts: queue.SimpleQueue[int] = queue.SimpleQueue()

        def over(future: Any) -> None:
            clip = future.result()
            counts.put(len(clip.frames))
            clip.release()

        for path in paths:
            pool.submit(path, os.path.getsize(path)).add_done_callback(over)
        return sum(counts.get() for _ in paths)

    return read_all


def _by_extractor() -> ReadAll:
    from benchmarks.null_cnn import NullCnn
    from pipeline.features.decoders import DecoderPool
    from pipeline.features.decoding import FramePlan
    from pipeline.features.extraction import ClipSource, Extractor
    from pipeline.spec import Spec

    extractor = Extractor(Spec(), NullCnn(batch=8), DecoderPool(FramePlan.of(Spec())))

    def read_all(paths: list[str]) -> int:
        sources = [ClipSource(path=path, size_bytes=os.path.getsize(path)) for path in paths]
        return sum(int(result.mask.sum()) for result in extractor.extract(sources))

    return read_all


def _by_children(command: list[str]) -> ReadAll:
    """Child processes that read a path per line, one per core."""
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(engine.cores())
    ]
    for child in children:
        _line(child)

    def read_all(paths: list[str]) -> int:
        left: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for path in [*paths, *[None] * len(children)]:
            left.put(path)
        counts: queue.SimpleQueue[int] = queue.SimpleQueue()

        def feed(child: subprocess.Popen[str]) -> None:
            total = 0
            try:
                while (path := left.get()) is not None:
                    assert child.stdin is not None
                    child.stdin.write(f"{path}\n")
                    child.stdin.flush()
                    total += int(_line(child))
            finally:
                counts.put(total)

        for child in children:
            threading.Thread(target=feed, args=(child,)).start()
        return sum(counts.get() for _ in children)

    return read_all


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"a bare reader ended with status {child.wait()}")
    return line


if __name__ == "__main__":
    main()
