"""`pixels-once predict --timeline`: what happens when in one long video."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flows.cli.predict import Settings
from flows.cli.terminal import headline, print_json, print_table, progress_bar
from flows.notices import notice
from pipeline.errors import ConfigError
from pipeline.features.stage import FirstStage
from pipeline.heads.saved import Run
from pipeline.plain import write_rows
from pipeline.predict.overlay import write_gif, write_overlay
from pipeline.predict.sliding import make_timeline
from pipeline.predict.timeline import segments, write_segments


def run_timeline(
    head: Run,
    first_stage: FirstStage,
    video: Path,
    settings: Settings,
    *,
    json: bool,
) -> int:
    """Write segments.csv, timeline.csv, overlay.mp4 and timeline.gif, and print the segments."""
    if not video.is_file():
        raise ConfigError(f"{video} is not a file: --timeline takes one video")
    folder = Path(settings.out or f"timeline-{video.stem}")
    with progress_bar("timeline", "frames") as progress:
        timeline = make_timeline(
            head,
            first_stage.backbone,
            str(video),
            window_s=settings.window,
            hop=settings.hop,
            smooth=settings.smooth,
            cuts=settings.cuts,
            on_frames=lambda frames: progress(frames, None),
        )
    parts = segments(timeline, least_s=settings.least)
    folder.mkdir(parents=True, exist_ok=True)
    write_segments(folder / "segments.csv", parts)
    lines = [
        [f"{time_s:.3f}", *(f"{value:.5f}" for value in probabilities)]
        for time_s, probabilities in zip(timeline.times, timeline.probabilities, strict=True)
    ]
    write_rows(folder / "timeline.csv", [["time_s", *timeline.classes], *lines])
    notice("drawing the overlay …")
    write_overlay(str(video), folder / "overlay.mp4", timeline, parts)
    write_gif(str(video), folder / "timeline.gif", timeline, parts)
    if json:
        print_json(
            {
                "run": str(head.folder),
                "video": str(video),
                "out": str(folder),
                "duration_s": timeline.duration_s,
                "window_s": timeline.window_s,
                "windows": len(timeline.times),
                "cuts": list(timeline.cuts),
                "frames": timeline.frames,
                "segments": [asdict(part) for part in parts],
            }
        )
        return 0
    print_table(
        f"{video.name} · {timeline.duration_s:.1f} s · {len(timeline.times)} windows of "
        f"{timeline.window_s:.2f} s · {len(timeline.cuts)} cuts · {timeline.frames:,} frames, each "
        "computed once",
        ("from", "to", "label", "probability"),
        [
            (_clock(part.start_s), _clock(part.end_s), part.label, f"{part.probability:.1%}")
            for part in parts
        ],
    )
    headline(f"next: look at {folder}/overlay.mp4")
    return 0


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
