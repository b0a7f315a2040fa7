"""Ten architectures as ONNX files with seeded weights, for `benchmarks.models`.

    python benchmarks/export_models.py FOLDER [NAME …]

Runs in a throwaway environment with torch, torchvision and onnxscript, and imports nothing of ours. Every
file gets the TOML file that a user would write beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

IMAGENET = """\
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""
KINETICS = """\
scale = "1/255"
mean = [0.43216, 0.394666, 0.37645]
std = [0.22803, 0.22145, 0.216989]
interpolation = "linear"
gap = 2
"""
VIDEO = """\
scale = "1/255"
mean = 0.45
std = 0.225
interpolation = "linear"
gap = 2
"""

# Name → family, the shape of one step's input, the TOML file, the attribute that is the top.
MODELS: dict[str, tuple[str, tuple[int, ...], str, str]] = {
    "resnet50": ("CNN", (3, 224, 224), IMAGENET, "fc"),
    "convnext_tiny": ("CNN", (3, 224, 224), IMAGENET, "classifier.2"),
    "efficientnet_v2_s": ("CNN", (3, 224, 224), IMAGENET, "classifier"),
    "vit_b_16": ("vision transformer", (3, 224, 224), IMAGENET, "heads"),
    "swin_t": ("vision transformer", (3, 224, 224), IMAGENET, "head"),
    "r3d_18": ("3D CNN", (3, 8, 112, 112), KINETICS, "fc"),
    "r2plus1d_18": ("3D CNN", (3, 8, 112, 112), KINETICS, "fc"),
    "s3d": ("3D CNN", (3, 16, 224, 224), KINETICS, "classifier"),
    "mvit_v2_s": ("video transformer", (3, 16, 224, 224), VIDEO, "head"),
    "swin3d_t": ("video transformer", (3, 8, 224, 224), VIDEO, "head"),
}

TRACED = ("swin3d_t",)
"""Written by PyTorch's former exporter: the present one keeps writes into empty slices of the mask of
shifted windows, of a rank that OpenVINO refuses."""


def main(folder: Path, names: list[str]) -> None:
    """Write the models of these names, or all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or MODELS:
        _, shape, text, top = MODELS[name]
        path = folder / f"{name}.onnx"
        if not path.exists():
            write(name, shape, top, path)
        path.with_suffix(".toml").write_text(text, encoding="utf-8")
        print(path, flush=True)


def write(name: str, shape: tuple[int, ...], top: str, path: Path) -> None:
    """Export one model without its top; its batch is two steps."""
    import torch
    import torchvision

    torch.manual_seed(0)
    models: Any = torchvision.models
    build = getattr(models, name, None) or getattr(models.video, name)
    model = build(weights=None)
    owner, _, last = top.rpartition(".")
    setattr(model.get_submodule(owner), last, torch.nn.Identity())
    steps = torch.rand(2, *shape)
    names: dict[str, Any] = {"input_names": ["frames"], "output_names": ["features"]}
    making = path.with_name(f"making-{path.name}")
    if name in TRACED:
        torch.onnx.export(model.eval(), (steps,), str(making), dynamo=False, **names)
    else:
        torch.onnx.export(
            model.eval(), (steps,), str(making), dynamo=True, external_data=False, **names
        )
    making.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
