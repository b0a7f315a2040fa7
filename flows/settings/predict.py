"""Settings of a prediction."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSettings:
    """A run and a clip (a folder, a manifest, a URL) → the most likely labels, or a timeline."""

    run: str = setting("", "folder of a trained run, e.g. runs/gru-fight", metavar="DIR")
    video: str = setting(
        "", "a clip, a folder, a CSV manifest, or the URL of a clip or its page", metavar="PATH"
    )
    weights: str = setting(
        "", "only where the weights that the run remembers have moved or changed", metavar="PATH"
    )
    top: int = setting(5, "how many labels to print", metavar="K", least=1)
    engine: str = setting("auto", "what runs the CNN", choices=("auto", "keras", "openvino"))
    csv: str = setting("", "also write the predictions to this CSV file", metavar="FILE")
    timeline: bool = setting(
        False,
        "slide a window over one long video: segments, an overlay video and a GIF; each frame "
        "goes through the CNN once",
    )
    window: float = setting(
        0.0, "for --timeline: seconds in a window (0: as long as the training's clips)", metavar="S"
    )
    hop: int = setting(
        0, "for --timeline: steps from window to window (0: an eighth of a window)", metavar="STEPS"
    )
    smooth: int = setting(
        5,
        "for --timeline: windows that the rolling average takes; 1 is none",
        metavar="WINDOWS",
        least=1,
    )
    cuts: bool = setting(
        True, "for --timeline: end windows where the picture cuts, so that none sees two scenes"
    )
    least: float = setting(
        0.0, "for --timeline: the shortest segment in seconds (0: half a window)", metavar="S"
    )
    out: str = setting(
        "", "for --timeline: the folder for its files (default: timeline-VIDEO)", metavar="DIR"
    )
