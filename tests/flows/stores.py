"""A small store whose two classes differ only in the order of time: values rise, or they fall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import store
from pipeline.spec import Sampling, Spec

STEPS, WIDTH = 6, 4


def rising_or_falling(path: Path, *, rows: int = 48, view: str = "plain", seed: int = 0) -> str:
    """Make the store; clips of one seed are the same clips, whatever the view."""
    spec = Spec(
        sampling=Sampling(steps=STEPS),
        backbone="frames",
        shape=(WIDTH,),
        view=view,  # type: ignore[arg-type]
    )
    store.create(
        str(path),
        layout=store.Layout(steps=STEPS, shape=(WIDTH,), batch=16),
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
        software={},
    )
    rng = np.random.default_rng((seed, view == "mirror"))
    number = np.arange(rows)
    falls = number % 2 == 1
    ramp = np.where(falls[:, None], np.linspace(1, -1, STEPS), np.linspace(-1, 1, STEPS))
    noise = rng.normal(0, 0.3, (rows, STEPS, WIDTH))
    features = (ramp[..., None] + noise).astype(np.float16)
    table = pd.DataFrame(
        {
            "video_id": [f"clip-{n:03d}.mp4" for n in number],
            "label": np.where(falls, "falling", "rising"),
            "group": [f"g{n // 4 % 12:02d}" for n in number],
            "fps": np.full(rows, 24.0, np.float32),
            "frames_decoded": np.full(rows, 48),
        }
    )
    with store.Writer.acquire(str(path), owner="test") as writer:
        writer.append(table)
        for batch in range(-(-rows // 16)):
            rows_of = np.array(writer.rows_of(batch))
            digests = store.write_batch(str(path), batch, features[rows_of], token=writer.token)
            writer.set(rows_of, digest=digests)
            mask = np.ones((len(rows_of), STEPS), bool)
            index = np.broadcast_to(np.arange(STEPS, dtype=np.int32), mask.shape)
            writer.put_steps(rows_of, mask, index, index.astype(np.float32))
            writer.mark(rows_of, store.READY)
        writer.flush()
    return str(path)


def add_clips(path: Path, table: pd.DataFrame, *, seed: int = 0) -> None:
    """Append ready clips to such a store; `table` has video_id, label, group, and what else is known."""
    rng = np.random.default_rng((seed, 7))
    falls = (table["label"] == "falling").to_numpy()
    ramp = np.where(falls[:, None], np.linspace(1, -1, STEPS), np.linspace(-1, 1, STEPS))
    fresh = (ramp[..., None] + rng.normal(0, 0.3, (len(table), STEPS, WIDTH))).astype(np.float16)
    with store.Writer.acquire(str(path), owner="test") as writer:
        size = int(writer.attributes["batch"])
        rows = writer.append(table)
        for batch in sorted(set(rows // size)):
            of_batch = np.array(writer.rows_of(int(batch)))
            features = store.read_batch(str(path), int(batch))
            new = np.isin(of_batch, rows)
            features[new] = fresh[of_batch[new] - rows[0]]
            digests = store.write_batch(str(path), int(batch), features, token=writer.token)
            writer.set(of_batch, digest=digests)
        index = np.broadcast_to(np.arange(STEPS, dtype=np.int32), (len(rows), STEPS))
        mask = np.ones((len(rows), STEPS), bool)
        writer.put_steps(rows, mask, index, index.astype(np.float32))
        writer.mark(rows, store.READY)
        writer.flush()
