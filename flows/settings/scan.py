"""Settings of a look at clips."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """Looks at clips without extracting: what is readable, codecs, durations, duplicates, classes."""

    videos: str = setting("", "a folder, one file, or a CSV manifest", metavar="PATH")
    ucf_splits: str = setting(
        "", "folder of UCF's trainlistNN/testlistNN/classInd files, and which list", metavar="DIR"
    )
    frames: int = setting(
        40, "steps in every sequence, for the estimate", metavar="N", least=1, most=100_000
    )
    rate: float = setting(
        0.0,
        "frames per second of the CNN, for the estimate (0: as measured on CPUs, by their cores)",
        metavar="FPS",
    )
    hash: bool = setting(True, "look for duplicates by content, which reads every byte")
    csv: str = setting("", "also write one line per clip here", metavar="FILE")
