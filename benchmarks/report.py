"""How long the report of a large store takes and how large it is: synthetic rows, real format.

    python -m benchmarks.report [--rows 10000] [--folder PATH]

Makes a store of that many rows with previews (1.7 GB at 10,000), writes its report in a process of
its own, and keeps the figures in results/report.json. Nothing here reads a clip.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from benchmarks.alternating import save
from pipeline.features.previews import preview_pictures
from pipeline.spec import Sampling, Spec

CLASSES = 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--folder", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        url = str(folder / "synthetic.zarr")
        if not store.exists(url):
            make(url, options.rows)
        figures = measure(url, folder)
    save("report", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """What the page costs to write, and its size."""
    return (
        f"the report of {figures['rows']:,} rows is written in {figures['seconds']:.0f} s "
        f"({figures['cpu_seconds']:.0f} CPU s) and has {figures['mib']:.0f} MiB"
    )


def make(url: str, rows: int) -> None:
    """A store of `rows` ready rows in 50 classes: each class a cloud of features, each row a picture."""
    spec = Spec(
        sampling=Sampling(), fit="crop", interpolation="area", size=299, backbone="inception_v3",
        weights="random:0", view="plain", precision="float32", dtype="float16", shape=(2048,),
    )  # fmt: skip
    store.create(
        url, layout=store.Layout(), spec=spec.to_dict(), fingerprint=spec.fingerprint, software={}
    )
    random = np.random.default_rng(0)
    centres = random.random((CLASSES, 2048), np.float32)
    noise = random.random((4, 40, 2048), np.float32)
    label = random.integers(0, CLASSES, rows)
    table = pd.DataFrame(
        {
            "video_id": [f"C/v_Class{n:02d}_g{i % 25:02d}_c{i}.avi" for i, n in enumerate(label)],
            "label": [f"Class{n:02d}" for n in label],
            "group": [f"g{i % 25:02d}" for i in range(rows)],
            "split": np.where(np.arange(rows) % 5, "train", "test"),
            "size_bytes": random.integers(2e5, 2e6, rows),
        }
    )  # fmt: skip
    with store.Writer.acquire(url, owner="benchmark") as writer:
        writer.keep_previews()
        writer.append(table)
        for batch in range(-(-rows // 64)):
            here = np.array(writer.rows_of(batch))
            own = random.random((len(here), 1, 2048), np.float32)
            features = centres[label[here]][:, None] + own + 0.3 * noise[here % 4]
            pictures = {int(row): preview_pictures(_frames(random)) for row in here}
            store.write_previews(url, pictures, token=writer.token)
            digests = store.write_batch(url, batch, features.astype(np.float16), token=writer.token)
            frames = random.integers(40, 400, len(here))
            writer.set(here, digest=digests, frames_decoded=frames, fps=25, width=320, height=240)
            steps = np.arange(40)
            writer.put_steps(here, np.ones(40, bool), steps, steps / 25)
        writer.mark(np.arange(rows), store.READY)
        failed = np.arange(0, rows, 97)
        writer.mark(failed, store.FAILED, "unreadable")
        writer.set_attributes(classes=sorted(set(table["label"])))
        writer.flush()


def _frames(random: np.random.Generator) -> np.ndarray:
    """Three frames with the detail of a photograph: coarse noise, which JPEG keeps at some 5 kB."""
    coarse = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def measure(url: str, folder: Path) -> dict[str, float]:
    out = folder / "report.html"
    started = time.monotonic()
    command = [sys.executable, "-m", "flows", "report", "--store", url, "--out", str(out), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wall = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = json.loads(output)["rows"]
    return {
        "rows": rows,
        "seconds": round(wall, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "mib": round(out.stat().st_size / 2**20, 1),
    }


if __name__ == "__main__":
    main()
