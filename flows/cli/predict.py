"""`pixels-once predict`: a saved head's prediction for a clip, a folder, a manifest or a URL."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.terminal import headline, print_json, print_table, progress_bar
from flows.notices import notice
from flows.settings.features import ENGINES
from flows.settings.resolve import require_file, setting
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.features.joined_stage import JoinedStage
    from pipeline.features.stage import FirstStage
    from pipeline.heads.saved import Run
    from pipeline.predict.timeline import Timeline

EXAMPLES = """
pixels-once predict --run runs/gru-clips --video new.mp4
pixels-once predict --run runs/gru-clips --video folder/ --top 3 --json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Predicts labels of a clip, a folder, a manifest or a URL with a run; or a timeline of a video."""

    run: str = setting("", "folder of a trained run, e.g. runs/gru-fight (required)", metavar="DIR")
    video: str = setting(
        "",
        "a clip, a part of one (clip.mp4#t=1,3), a folder, a manifest, or the URL of a clip or its page "
        "(required)",
        metavar="PATH",
    )
    weights: str = setting(
        "", "only if the weights that the run was trained with have moved", metavar="PATH"
    )
    top: int = setting(5, "how many labels to print", metavar="K", least=1)
    engine: str = setting("auto", "what runs the CNN", choices=ENGINES)
    csv: str = setting("", "also write the predictions to this CSV file", metavar="FILE")
    timeline: bool = setting(
        False,
        "what happens when in one long video: segments, subtitles, an overlay video and a GIF; each "
        "frame goes through the CNN once. A head of clips slides over it in windows, one that labels "
        "steps reads it whole",
    )
    window: float = setting(
        0.0, "for --timeline: seconds in a window (0: as long as the training's clips)", metavar="S"
    )
    hop: int = setting(
        0, "for --timeline: steps from window to window (0: an eighth of a window)", metavar="STEPS"
    )
    smooth: int = setting(
        5, "for --timeline: windows in the rolling average; 1 is none", metavar="WINDOWS", least=1
    )
    cuts: bool = setting(
        True, "for --timeline: end windows at scene cuts, so that none spans two scenes"
    )
    least: float = setting(
        0.0, "for --timeline: the shortest segment in seconds (0: half a window)", metavar="S"
    )
    out: str = setting(
        "", "for --timeline: the folder for its files (default: timeline-VIDEO)", metavar="DIR"
    )


def run(settings: Settings, *, json: bool) -> int:
    from flows.data.downloads import fetch_clip, is_url
    from pipeline.spans import split_fragment

    if not settings.run or not settings.video:
        missing = "--run" if not settings.run else "--video"
        raise ConfigError(f"predict needs {missing}: e.g. --run runs/gru-clips --video new.mp4")
    require_file("csv", settings.csv)
    if not is_url(settings.video):
        return _run(settings, settings.video, json=json)
    url, span = split_fragment(settings.video)
    with tempfile.TemporaryDirectory(prefix="pixels-once-") as folder:
        return _run(settings, span.named(str(fetch_clip(url, Path(folder)))), json=json)


def _run(settings: Settings, video: str, *, json: bool) -> int:
    from flows.train.shared import moved_on
    from pipeline.features.catalog import discover
    from pipeline.features.stage import FirstStage
    from pipeline.heads.saved import load_run

    clips = discover(video)
    head = load_run(Path(settings.run))
    _require_use(settings, head)
    first_stage, notes = _first_stage(settings, head)
    for note in filter(None, [*notes, moved_on(head)]):
        notice(note)
    with first_stage:
        if settings.timeline:
            assert isinstance(first_stage, FirstStage)
            return _run_timeline(settings, head, first_stage, Path(video), json=json)
        records = _predictions(settings, head, first_stage, clips)
    if settings.csv:
        _write_csv(Path(settings.csv), records)
    if json:
        print_json(run=settings.run, predictions=records)
    else:
        _print(records)
    return 1 if not any(record["top"] for record in records) else 0


def _first_stage(settings: Settings, head: Run) -> tuple[FirstStage | JoinedStage, list[str]]:
    """What computed the features that the head reads, loaded, and notes for the user."""
    from pipeline.features.joined_stage import load_stored_streams
    from pipeline.features.stage import load_stored

    owner, options = str(head.folder), {"weights": settings.weights, "engine": settings.engine}
    if not head.streams:
        return load_stored(head.spec, head.first_stage, owner=owner, **options)
    streams = [(stream.spec, stream.first_stage) for stream in head.streams]
    return load_stored_streams(streams, owner=owner, **options)


def _predictions(
    settings: Settings, head: Run, first_stage: FirstStage | JoinedStage, clips: pd.DataFrame
) -> list[dict[str, Any]]:
    """One record per clip: its name, frames seen, reason and top labels."""
    from pipeline.features.catalog import clip_sources
    from pipeline.predict.prediction import predict_clips

    sources = clip_sources(clips)
    top = min(settings.top, len(head.classes))
    records = []
    predictions = predict_clips(head, first_stage, sources)
    for name, prediction in zip(clips["video_id"], predictions, strict=True):
        best = zip(prediction.labels[:top], prediction.probabilities, strict=False)
        record: dict[str, Any] = {"clip": name}
        record |= {item: getattr(prediction, item) for item in ("steps", "reason", "detail")}
        record["top"] = [{"label": label, "probability": round(p, 6)} for label, p in best]
        records.append(record)
        if len(sources) > 1:
            print(f"\r{len(records)}/{len(sources)} clips", end="", file=sys.stderr, flush=True)
    if len(sources) > 1:
        print(file=sys.stderr)
    return records


def _print(records: list[dict[str, Any]]) -> None:
    """One clip: its labels below each other. Several: a line each, the likeliest labels beside."""
    if len(records) == 1 and records[0]["top"]:
        only = records[0]
        print_table(
            " · ".join(filter(None, [only["clip"], f"{only['steps']} frames", only["reason"]])),
            ("label", "probability"),
            [(label["label"], f"{label['probability']:.1%}") for label in only["top"]],
        )
        return
    print_table(
        "predictions",
        ("clip", "frames", "label", "probability", "then", "note"),
        [
            (
                record["clip"],
                record["steps"],
                record["top"][0]["label"] if record["top"] else "–",
                f"{record['top'][0]['probability']:.1%}" if record["top"] else "–",
                ", ".join(f"{one['label']} {one['probability']:.1%}" for one in record["top"][1:]),
                record["reason"],
            )
            for record in records
        ],
    )


def _write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    from pipeline.plain import write_rows

    lines: list[list[Any]] = [["clip", "rank", "label", "probability", "steps", "reason"]]
    for record in records:
        seen = [record["steps"], record["reason"]]
        for rank, best in enumerate(record["top"], start=1):
            lines.append([record["clip"], rank, best["label"], best["probability"], *seen])
        if not record["top"]:
            lines.append([record["clip"], "", "", "", *seen])
    write_rows(path, lines)


def _run_timeline(
    settings: Settings, head: Run, first_stage: FirstStage, video: Path, *, json: bool
) -> int:
    """Write tables, subtitles, results.json, overlay.mp4 and timeline.gif, and print the segments."""
    from pipeline.predict.overlay import write_gif, write_overlay
    from pipeline.predict.subtitles import write_results, write_srt, write_vtt
    from pipeline.predict.timeline import labelled, segments, write_segments, write_timeline

    if not video.is_file():
        raise ConfigError(f"{video} is not a file: --timeline takes one video")
    folder = Path(settings.out or f"timeline-{video.stem}")
    timeline = _timeline(settings, head, first_stage, video)
    if head.per_step:
        parts = labelled(timeline, multi_label=head.multi_label, least_s=settings.least)
    else:
        parts = segments(timeline, least_s=settings.least)
    folder.mkdir(parents=True, exist_ok=True)
    write_segments(folder / "segments.csv", parts)
    write_timeline(folder / "timeline.csv", timeline)
    write_srt(folder / "timeline.srt", parts)
    write_vtt(folder / "timeline.vtt", parts)
    write_results(folder / "results.json", video.stem, parts)
    notice("drawing the overlay …")
    write_overlay(str(video), folder / "overlay.mp4", timeline, parts)
    write_gif(str(video), folder / "timeline.gif", timeline, parts)
    if json:
        print_json(
            run=str(head.folder),
            video=str(video),
            out=str(folder),
            duration_s=timeline.duration_s,
            window_s=timeline.window_s,
            windows=len(timeline.times),
            cuts=list(timeline.cuts),
            frames=timeline.frames,
            segments=[asdict(part) for part in parts],
        )
        return 0
    read = (
        f"{len(timeline.times):,} steps of {timeline.window_s:.2f} s"
        if head.per_step
        else f"{len(timeline.times)} windows of {timeline.window_s:.2f} s · {len(timeline.cuts)} cuts"
    )
    print_table(
        f"{video.name} · {timeline.duration_s:.1f} s · {read} · {timeline.frames:,} frames, each "
        "computed once",
        ("from", "to", "label", "probability"),
        [
            (_clock(part.start_s), _clock(part.end_s), part.label, f"{part.probability:.1%}")
            for part in parts
        ],
        rest=f"{folder}/segments.csv",
    )
    headline(f"next: look at {folder}/overlay.mp4")
    return 0


def _timeline(settings: Settings, head: Run, first_stage: FirstStage, video: Path) -> Timeline:
    """The video's probabilities, by windows or, of a head that labels steps, by steps."""
    from pipeline.predict.sliding import make_timeline
    from pipeline.predict.stepping import make_step_timeline

    with progress_bar("timeline", "frames") as progress:

        def on_frames(frames: int) -> None:
            progress(frames, None)

        if head.per_step:
            return make_step_timeline(head, first_stage.backbone, str(video), on_frames=on_frames)
        return make_timeline(
            head,
            first_stage.backbone,
            str(video),
            window_s=settings.window,
            hop=settings.hop,
            smooth=settings.smooth,
            cuts=settings.cuts,
            on_frames=on_frames,
        )


def _require_use(settings: Settings, head: Run) -> None:
    """Raise `ConfigError` for what a run cannot be asked: a clip's label of one that labels steps, …"""
    if settings.timeline and head.streams:
        raise ConfigError(
            f"--timeline reads one stream, and {settings.run} joins {len(head.streams)}: use a run that "
            "was trained on one store, or cut the video into clips"
        )
    if not head.per_step:
        return
    if not settings.timeline:
        raise ConfigError(
            f"{settings.run} labels every step of a video, not a clip as a whole: add --timeline"
        )
    default = Settings()
    for name in ("window", "hop", "smooth", "cuts"):
        if getattr(settings, name) != getattr(default, name):
            raise ConfigError(
                f"{name} is for heads that slide over a video in windows, and {settings.run} labels "
                "every step: leave it out"
            )


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
