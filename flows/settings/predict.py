"""Settings of a prediction."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSettings:
    """A run and a clip (or a folder, a manifest) → the most likely labels."""

    run: str = setting("", "folder of a trained run, e.g. runs/gru-fight", metavar="DIR")
    video: str = setting("", "a clip, a folder or a CSV manifest", metavar="PATH")
    weights: str = setting(
        "", "only where the weights that the run remembers have moved or changed", metavar="PATH"
    )
    top: int = setting(5, "how many labels to print", metavar="K")
    engine: str = setting("auto", "what runs the CNN", choices=("auto", "keras", "openvino"))
    csv: str = setting("", "also write the predictions to this CSV file", metavar="FILE")
