"""What each engine was measured at on this machine: the rates of its runs, kept in the cache folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.homes import cache_folder
from pipeline.plain import write_json

LEAST_FRAMES = 400
"""Runs of fewer frames are all beginning and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Frames per second of a run on this machine.

    engine: openvino, or keras on a backend (`keras-jax`). software: versions, by package.
    """

    engine: str
    backbone: str
    precision: str
    frames: int
    frames_per_second: float
    software: Mapping[str, str]


def engine_name(software: Mapping[str, str]) -> str:
    """The engine of a run's software, with Keras' backend where Keras computes."""
    engine = software.get("engine", "")
    backends = [name for name in ("tensorflow", "jax", "torch") if name in software]
    return f"{engine}-{backends[0]}" if engine == "keras" and backends else engine


def keep_rate(rate: Rate, folder: Path | None = None) -> None:
    """Keep a run's rate in place of the last one of this engine, backbone and precision.

    Short runs are left out, and so is what cannot be written: nothing depends on it.
    """
    if rate.frames < LEAST_FRAMES or not rate.engine:
        return
    name = f"{rate.engine}-{rate.backbone}-{rate.precision}.json"
    path = (folder or cache_folder()) / "rates" / name
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(rate))


def kept_rates(folder: Path | None = None) -> list[Rate]:
    """The rates that were kept on this machine, by name; a file that cannot be read is left out."""
    rates = []
    for path in sorted(((folder or cache_folder()) / "rates").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            rates.append(Rate(**json.loads(path.read_text(encoding="utf-8"))))
    return rates
