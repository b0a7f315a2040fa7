"""Write one backbone as an OpenVINO model.

`openvino_cache` runs it: `python -m pipeline.features.backbones.openvino_export JSON`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipeline.errors import PixelsError
from pipeline.features.backbones.family import Weights
from pipeline.features.backbones.keras_model import build_model
from pipeline.openvino_runtime import write_openvino


def export(order: str) -> None:
    """Build the model that `order` (JSON) names in float32 and write it to its `xml` path."""
    wanted = json.loads(order)
    weights = Weights(**wanted["weights"])
    model = build_model(
        wanted["backbone"], size=wanted["size"], weights=weights, precision="float32"
    )
    write_openvino(model, Path(wanted["xml"]))


if __name__ == "__main__":
    try:
        export(sys.argv[1])
    except PixelsError as error:
        sys.exit(str(error))
