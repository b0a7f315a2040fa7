"""Reading a clip beside OpenCV and beside this project's reader of another revision, read by read.

Ours is `read_clip`: FFmpeg through PyAV. Beside it stands OpenCV's `VideoCapture`, as this project
read clips before: `grab` every frame, `retrieve` the 40 wanted ones, crop, scale, turn into RGB. With
`--against` the `read_clip` of that git revision stands there too. All decode on one thread, each in a
process of its own, pinned to one core, one read each in turn; the ratio is that of the CPU times of
reads of one clip that followed each other. Clips are H.264 of 3 seconds (a moving test picture with
noise, 90 frames) at 240p, 480p and 1080p, and those of `--clips`, as they are and scaled to these.

    python -m benchmarks.decoding [--against REVISION] [--clips FOLDER] [--pairs 60] [--block 1]
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from benchmarks.alternating import compare, kept, save, serve

SIZES = {"240p": (426, 240), "480p": (854, 480), "1080p": (1920, 1080)}
RATE, FRAMES = 30, 90
MOST_CLIPS, MOST_SCALED = 40, 4
WAYS = {"ours": "ours", "opencv": "OpenCV", "former": "ours before"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", default="", help="a git revision to compare with")
    parser.add_argument("--clips", default="", help="a folder of clips to read, too")
    parser.add_argument("--pairs", type=int, default=60, help="reads of each set of clips")
    parser.add_argument("--block", type=int, default=1, help="reads before the other's turn")
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _prepared(arguments.way, Path(arguments.folder), arguments.block))
        return
    ways = ("ours", "former" if arguments.against else "opencv")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = make_sets(folder / "sets", arguments.clips)
        if arguments.against:
            check_out(arguments.against, folder / "former")
        words = ["--folder", name, "--block", str(arguments.block)]
        rounds = arguments.pairs * len(sets)
        answers = compare(__file__, {way: WAYS[way] for way in ways}, words, rounds)
        report = {one: _summary(answers, name, place) for place, one in enumerate(sets)}
    beside = arguments.against or f"OpenCV {cv2.__version__}"
    save("decoding", {"beside": {**kept("decoding").get("beside", {}), beside: report}})
    print(shown({"beside": {beside: report}}))


def shown(figures: dict[str, Any]) -> str:
    """A line per set of clips: CPU milliseconds of a read, their ratio, whether pictures agree."""
    return "\n\n".join(_table(beside, sets) for beside, sets in figures["beside"].items())


def _table(beside: str, sets: dict[str, Any]) -> str:
    lines = [
        f"| clips | ours, CPU ms | {beside}, CPU ms | ours is × | 95 % | middle half "
        "| by wall time × | mean difference, levels |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in sets.items():
        (low, high), (quarter, most) = one["interval"], one["quartiles"]
        lines.append(
            f"| {name} | {one['ours_ms']:.1f} | {one['its_ms']:.1f} "
            f"| {one['ratio']:.3f} | {low:.3f}–{high:.3f} | {quarter:.3f}–{most:.3f} "
            f"| {one['wall_ratio']:.3f} | {one['levels']:.3f} |"
        )
    return "\n".join(lines)


def _summary(answers: dict[str, Any], folder: str, place: int) -> dict[str, Any]:
    """What both took for the clips of one set, and how ours compares."""
    ours, its = ([one for one in way["rounds"] if one["set"] == place] for way in answers.values())
    pairs = list(zip(ours, its, strict=True))
    ratios = sorted(b["cpu_ms"] / a["cpu_ms"] for a, b in pairs)
    # The median's interval by order statistics, with the normal form of the binomial.
    half = 0.98 * len(ratios) ** 0.5
    low, high = max(0, round(len(ratios) / 2 - half)), round(len(ratios) / 2 + half)
    return {
        "ours_ms": statistics.median(one["cpu_ms"] for one in ours),
        "its_ms": statistics.median(one["cpu_ms"] for one in its),
        "ratio": statistics.median(ratios),
        "interval": [ratios[low], ratios[min(high, len(ratios) - 1)]],
        "quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "wall_ratio": statistics.median(b["wall_ms"] / a["wall_ms"] for a, b in pairs),
        "levels": _apart(*(f"{folder}/{way}-{place}.npy" for way in answers)),
    }


def _prepared(way: str, folder: Path, block: int) -> Callable[[], dict[str, float]]:
    """A round: a clip of the next set, `block` times; milliseconds a read."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    read = _reader(way, folder)
    sets = [sorted(map(str, one.iterdir())) for one in sorted((folder / "sets").iterdir())]
    for place, paths in enumerate(sets):  # warms up
        np.save(folder / f"{way}-{place}.npy", read(paths[0]))
    order = itertools.chain.from_iterable(
        [(place, paths[turn % len(paths)]) for place, paths in enumerate(sets)]
        for turn in itertools.count()
    )

    def one_round() -> dict[str, float]:
        place, path = next(order)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(block):
            read(path)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"set": place, "cpu_ms": 1000 * cpu / block, "wall_ms": 1000 * wall / block}

    return one_round


def _apart(ours: str, its: str) -> float:
    """The mean difference of both's pictures of a clip, in levels of 255; NaN for other shapes."""
    one, other = np.load(ours), np.load(its)
    if one.shape != other.shape:
        return float("nan")
    return float(np.abs(one.astype(np.int16) - other).mean())


def _reader(way: str, folder: Path) -> Callable[[str], NDArray[np.uint8]]:
    if way == "former":
        sys.path.insert(0, str(folder / "former"))
    import pipeline
    from pipeline.features.decoding import FramePlan, read_clip
    from pipeline.features.sampling import sample_indices

    former = Path(pipeline.__file__).is_relative_to(folder)
    assert former == (way == "former"), f"the wrong reader: {pipeline.__file__}"
    plan = FramePlan()
    if way == "opencv":
        return lambda path: by_opencv(
            path, lambda count: sample_indices(plan.sampling, count).tolist(), plan.size
        )
    return lambda path: read_clip(path, plan).frames


def by_opencv(path: str, choose: Callable[[int], Iterable[int]], size: int) -> NDArray[np.uint8]:
    """The clip's frames by OpenCV alone, by the header's count."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted = set(choose(int(capture.get(cv2.CAP_PROP_FRAME_COUNT))))
    kept = []
    index = 0
    while capture.grab():
        if index in wanted:
            picture = capture.retrieve()[1]
            height, width = picture.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = picture[top : top + side, left : left + side]
            method = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
            kept.append(cv2.resize(square, (size, size), interpolation=method))
        index += 1
    capture.release()
    frames = np.empty((len(kept), size, size, 3), np.uint8)
    for place, picture in enumerate(kept):
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=frames[place])
    return frames


def check_out(revision: str, folder: Path) -> None:
    """Lay the repository's files of a git revision into a new folder."""
    here = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(here), "archive", revision]
    archive = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if archive.returncode:
        raise SystemExit(f"git has no revision {revision!r}: see `git log`")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def make_sets(folder: Path, clips: str) -> list[str]:
    """Write every set of clips into a folder of its own; their names, in the folders' order."""
    names = []

    def room(name: str) -> Path:
        place = folder / f"{len(names):02d} {name}"
        place.mkdir(parents=True)
        names.append(name)
        return place

    for name, (width, height) in SIZES.items():
        encode(room(name) / "clip.mp4", moving_picture(width, height), width, height)
    found = sorted(Path(clips).rglob("*.mp4")) if clips else []
    if found:
        title = Path(clips).resolve().name
        native = room(title)
        for number, path in enumerate(found[:: -(-len(found) // MOST_CLIPS)]):
            (native / f"{number:02d}.mp4").symlink_to(path.resolve())
        for name, (width, height) in SIZES.items():
            scaled = room(f"{title} {name}")
            for number, path in enumerate(found[:: -(-len(found) // MOST_SCALED)]):
                with av.open(str(path)) as container:
                    frames = container.decode(container.streams.video[0])
                    encode(scaled / f"{number:02d}.mp4", frames, width, height)
    return names


def moving_picture(width: int, height: int) -> Iterator[av.VideoFrame]:
    """A moving test picture with noise."""
    graph = Graph()
    source = graph.add("testsrc2", f"size={width}x{height}:rate={RATE}")
    noise = graph.add("noise", "alls=12:allf=t:all_seed=1")
    sink = graph.add("buffersink")
    source.link_to(noise)
    noise.link_to(sink)
    graph.configure()
    for _ in range(FRAMES):
        frame = graph.pull()
        assert isinstance(frame, av.VideoFrame)
        yield frame


def encode(path: Path, frames: Iterable[av.VideoFrame], width: int, height: int) -> None:
    """Write frames as H.264 of this size, as a camera's clip would be compressed."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "26", "preset": "medium"}
        for number, frame in enumerate(frames):
            frame = frame.reformat(width, height, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
