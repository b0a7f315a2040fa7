"""Settings of an export."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """A trained head in a format that others serve, proven to say the same."""

    run: str = setting("", "folder of a trained run, e.g. runs/gru-fight", metavar="DIR")
    format: str = setting(
        "saved_model", "what to write", choices=("saved_model", "onnx", "openvino")
    )
    out: str = setting("", "where (default: RUN/export/FORMAT…)", metavar="PATH")
