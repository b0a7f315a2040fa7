"""`pixels-once scan`: what is in a folder of clips, before anything is extracted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli.terminal import headline, print_json, print_table, progress_bar, suggest
from flows.settings.resolve import require_file, setting
from pipeline.errors import ConfigError

RATES = {
    ("openvino", "bfloat16"): 65.0,
    ("openvino", "float32"): 35.0,
    ("keras", "bfloat16"): 45.0,
    ("keras", "float32"): 32.0,
}
"""Frames per second of InceptionV3 by engine and precision, measured on two cores."""

EXAMPLES = """
pixels-once scan --videos clips/
pixels-once scan --videos clips/ --csv clips.csv --json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Examines clips without extracting: what is readable, codecs, durations, duplicates, classes."""

    videos: str = setting("", "a folder, one file, or a CSV manifest (required)", metavar="PATH")
    ucf_splits: str = setting(
        "", "folder of UCF's trainlistNN/testlistNN/classInd files, and which list", metavar="DIR"
    )
    frames: int = setting(40, "steps in every sequence, for the estimate", least=1, most=100_000)
    rate: float = setting(
        0.0,
        "frames per second of the CNN, for the estimate (0: as measured on CPUs, by their cores)",
        metavar="FPS",
    )
    hash: bool = setting(True, "look for duplicates by content, which reads every byte")
    csv: str = setting("", "also write one line per clip here", metavar="FILE")


def run(settings: Settings, *, json: bool) -> int:
    """Print the scan in figures; 1 where no clip is readable."""
    if not settings.videos:
        raise ConfigError("scan needs --videos: a folder, a file or a manifest")
    require_file("csv", settings.csv)
    from flows.data.scan import scan, summarise
    from pipeline import engine
    from pipeline.features.catalog import discover
    from pipeline.features.catalog.remote import without_query
    from pipeline.plain import write_table

    catalog = discover(settings.videos, ucf_splits=settings.ucf_splits or None)
    with progress_bar("looking", "clips") as progress:
        scanned = scan(
            catalog, hashes=settings.hash, threads=2 * engine.cores(), on_progress=progress
        )
    found = summarise(scanned, frames=settings.frames, rate=settings.rate or _rate())
    if settings.csv:
        write_table(scanned.drop(columns="path"), Path(settings.csv))
    if json:
        print_json({"videos": without_query(settings.videos), **found})
    else:
        _print(settings, found)
    return 0 if found["readable"] else 1


def _rate() -> float:
    """Frames per second to expect here; 0 where a GPU would do the work: none was measured."""
    from pipeline import engine
    from pipeline.features.backbones.keras_family import choose_engine

    if engine.device_hint() == "gpu":
        return 0.0
    measured = RATES.get((choose_engine("auto"), engine.auto_precision()), 0.0)
    return measured * engine.cores() / 2


def _print(settings: Settings, found: dict[str, Any]) -> None:
    from flows.data.scan import meaning
    from pipeline.features.catalog.remote import without_query

    if found["classes"]:
        print_table("readable clips by label", ("label", "clips"), found["classes"].items())
    if found["codecs"]:
        print_table("codecs", ("codec", "clips"), found["codecs"].items())
    if found["unreadable"]:
        print_table(
            f"unreadable ({len(found['unreadable'])})",
            ("clip", "reason", "meaning"),
            [(b["video_id"], b["reason"], meaning(b["reason"])) for b in found["unreadable"][:50]],
        )
    for twins in found["duplicates"][:20]:
        print(f"the same bytes: {' = '.join(twins)}")
    duration, frames = found["duration_s"], found["frames"]
    if "median" in duration:
        print(
            f"{duration['total'] / 60:,.1f} min of video; a clip is {duration['least']:g} to "
            f"{duration['most']:g} s long (median {duration['median']:g}), "
            f"{frames.get('least', 0):g} to {frames.get('most', 0):g} frames"
        )
    if found["shorter_than_steps"]:
        print(
            f"{found['shorter_than_steps']} clips have fewer than {settings.frames} frames: "
            "their sequences will be padded and masked"
        )
    if found["balance"] and found["balance"] > 3:
        print(
            f"the largest class has {found['balance']:g} times the clips of the smallest: "
            "train with --class-weights, look at macro F1"
        )
    if found["expected_seconds"] is not None:
        print(
            f"features would take about {max(1, round(found['expected_seconds'] / 60))} min with "
            f"InceptionV3 on this machine, and the store {found['expected_bytes'] / 2**20:,.0f} MiB"
        )
    headline(
        f"{without_query(settings.videos)}: {found['readable']} of {found['clips']} clips are readable, "
        f"{len(found['classes'])} classes, {found['bytes'] / 2**20:,.1f} MiB"
    )
    if found["readable"]:
        suggest("features", "--videos", without_query(settings.videos), "--store", "clips.zarr")
