"""`pixels-once export`: a trained head in a format that others serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.cli.terminal import print_json
from flows.settings.field import setting
from pipeline.errors import ConfigError

_NAMES = {"saved_model": "saved_model", "onnx": "head.onnx", "openvino": "head.xml"}


EXAMPLES = "pixels-once export --run runs/gru-clips --format openvino"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A trained head in a format that others serve, proven to say the same."""

    run: str = setting("", "folder of a trained run, e.g. runs/gru-fight", metavar="DIR")
    format: str = setting(
        "saved_model", "what to write", choices=("saved_model", "onnx", "openvino")
    )
    out: str = setting("", "where (default: RUN/export/FORMAT…)", metavar="PATH")


def run(settings: Settings, *, json: bool) -> int:
    """Export, read the export back, and say how far it is from the head."""
    if not settings.run:
        raise ConfigError("export needs --run: e.g. --run runs/gru-clips --format openvino")
    from pipeline.heads.export import export_run
    from pipeline.heads.saved import load_run

    path = Path(settings.out or Path(settings.run) / "export" / _NAMES[settings.format])
    found = export_run(load_run(settings.run), path, format=settings.format)
    if json:
        print_json(found)
        return 0
    print(f"{found['path']}: {found['compared']}")
    print(f"labels, spec and preprocessing: {found['beside']}")
    print("inputs: features (n, steps, …) float32, mask (n, steps) bool; normalisation is inside")
    return 0
