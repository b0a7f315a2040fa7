"""Segments for other programs: subtitles (SubRip, WebVTT) and results in ActivityNet's JSON."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from pipeline.plain import whole, write_json
from pipeline.predict.timeline import Segment


def write_srt(path: Path, parts: Sequence[Segment]) -> None:
    """Write the segments as SubRip, which players show beside a video of the same name."""
    cues = [
        f"{number}\n{_clock(part.start_s, ',')} --> {_clock(part.end_s, ',')}\n{_line(part.label)}\n"
        for number, part in enumerate(parts, start=1)
    ]
    _write(path, "\n".join(cues))


def write_vtt(path: Path, parts: Sequence[Segment]) -> None:
    """Write the segments as WebVTT, which browsers show (`<track src=…>`)."""
    cues = [
        f"{_clock(part.start_s, '.')} --> {_clock(part.end_s, '.')}\n"
        f"{html.escape(_line(part.label), quote=False)}\n"
        for part in parts
    ]
    _write(path, "\n".join(["WEBVTT\n", *cues]))


def write_results(path: Path, video: str, parts: Sequence[Segment]) -> None:
    """Write the segments as ActivityNet's results: video → label, score, segment (seconds)."""
    found = [
        {
            "label": part.label,
            "score": round(part.probability, 4),
            "segment": [round(part.start_s, 3), round(part.end_s, 3)],
        }
        for part in parts
    ]
    write_json(path, {"version": "VERSION 1.3", "results": {video: found}, "external_data": {}})


def _clock(seconds: float, point: str) -> str:
    """`01:02:03,456`, by a whole number of milliseconds."""
    total, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(total, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{thousandths:03d}"


def _line(text: str) -> str:
    """A label as one line of text that no player takes for a time."""
    return " ".join(text.split()).replace("-->", "→")


def _write(path: Path, text: str) -> None:
    with whole(path) as making:
        making.write_text(text, encoding="utf-8", newline="\n")
