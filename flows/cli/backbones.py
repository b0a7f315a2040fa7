"""`pixels-once backbones`: every first stage; or one that is tried, on a clip if there is one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.terminal import headline, print_json, print_table, suggest
from flows.settings.features import ENGINES, FeaturesSettings
from flows.settings.resolve import setting

if TYPE_CHECKING:
    from flows.extract.own_model import Model
    from pipeline.features.stage import Stage

EXAMPLES = """
pixels-once backbones
pixels-once backbones --backbone model.onnx
pixels-once backbones --backbone model.onnx --video clip.mp4
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Lists every first stage; with one named, says what is known of it and tries it on a clip."""

    backbone: str = setting(
        "",
        "one of the list, a model file (.onnx, .keras), or package.module:function",
        metavar="NAME",
    )
    backbone_config: str = setting(
        "",
        "TOML file of what a model does not say of itself (default: model.toml beside model.onnx)",
        metavar="FILE",
    )
    video: str = setting("", "a clip to try it on", metavar="FILE")
    weights: str = setting("", "the weights of one of the list, as for features", metavar="WEIGHTS")
    engine: str = setting("auto", "what runs it", choices=ENGINES)
    precision: str = setting(
        "auto",
        "its precision, as for features",
        choices=("auto", "float32", "bfloat16", "float16"),
    )


def run(settings: Settings, *, json: bool) -> int:
    if not settings.backbone:
        return _list(json=json)
    facts, choices = _tried(settings)
    if json:
        print_json(facts | {"choices": choices})
        return 0
    if choices:
        print_table(
            f"{settings.backbone}: what it needs to be told",
            ("key", "value", "which was"),
            [(c["key"], _plain(c["value"]), c["source"]) for c in choices],
        )
    print_table(
        settings.backbone,
        ("fact", "value"),
        [(name.replace("_", " "), _plain(value)) for name, value in facts.items() if value],
    )
    if settings.video:
        suggest("features", "--videos", "clips/", "--backbone", settings.backbone)
    return 0


def _list(*, json: bool) -> int:
    from pipeline.features.backbones import backbone_names, describe, factories

    kinds = [describe(name) for name in backbone_names()]
    registered = factories.entry_points()
    if json:
        print_json({kind.name: asdict(kind) for kind in kinds} | {"registered": registered})
        return 0
    print_table(
        f"{len(kinds)} first stages",
        ("backbone", "size", "a step is", "frames", "parameters", "what it is"),
        [
            (k.name, k.size, _plain(k.shape), k.window, k.parameters or "", k.one_line)
            for k in kinds
        ],
    )
    if registered:
        print_table(
            "registered by installed packages", ("backbone", "by"), sorted(registered.items())
        )
    headline(
        "or a model of your own: --backbone model.onnx, model.keras or package.module:function"
    )
    return 0


def _tried(settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is known of a first stage, and where each key of a model came from."""
    from flows.extract.own_model import is_own_model, model_of
    from flows.extract.request import stage_of
    from pipeline.errors import ConfigError

    if settings.video and not Path(settings.video).is_file():
        raise ConfigError(f"there is no clip {settings.video!r}: give a video file")
    asked = FeaturesSettings(
        backbone=settings.backbone,
        backbone_config=settings.backbone_config,
        weights=settings.weights,
        engine=settings.engine,
        precision=settings.precision,
        videos=settings.video,
    )
    own = model_of(asked, None, {}) if is_own_model(settings.backbone) else None
    spec, stage, weights = stage_of(asked, None)
    facts: dict[str, Any] = {
        "reads": f"{spec.window} × " * (spec.window > 1) + f"{spec.size} × {spec.size} pixels",
        "a_step_is": list(spec.shape),
        "parameters": _parameters(settings.backbone, own),
        "weights": str(weights),
        "precision": stage.precision or spec.precision,
        "fingerprint": spec.fingerprint,
    }
    if settings.video:
        facts |= _on_clip(replace(stage, decoders=1), settings.video)
    elif own is not None and own.trial is not None:
        facts["engine"] = own.trial.engine
    trial = own.trial if own is not None else None
    return facts, [asdict(choice) for choice in trial.choices] if trial is not None else []


def _parameters(backbone: str, own: Model | None) -> int:
    from pipeline.features.backbones import describe

    if own is None:
        return describe(backbone).parameters
    return own.trial.parameters if own.trial is not None else 0


def _on_clip(stage: Stage, video: str) -> dict[str, Any]:
    """Features of a clip: how many steps, from where to where, and how fast the engine is."""
    import numpy as np

    from pipeline.errors import ConfigError
    from pipeline.features.backbones.keras_engine import rate
    from pipeline.features.decoding.values import ClipSource
    from pipeline.features.stage import FirstStage

    with FirstStage.load(stage) as first:
        (result,) = first.extractor.extract([ClipSource(video, Path(video).stat().st_size)])
        if result.features is None:
            raise ConfigError(f"{video} cannot be read ({result.reason}): name another clip")
        seen = result.features[result.mask].astype(np.float32)
        steps = (
            0.0 if first.backbone.whole_clips else rate(first.backbone, first.backbone.concurrency)
        )
        window = first.backbone.window
        return {
            "engine": first.backbone.engine,
            "steps_per_call": first.backbone.batch,
            "frames_per_second": round(steps * window, 1),
            "clip": f"{result.mask.sum()} steps of {result.frames_decoded} frames"
            + f" ({result.reason})" * bool(result.reason),
            "values": f"{seen.min():.4g} to {seen.max():.4g}, mean {seen.mean():.4g}",
        }


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return (
            " × ".join(map(str, value))
            if all(isinstance(v, int) for v in value)
            else str(list(value))
        )
    return f"{value:,}" if isinstance(value, int) else str(value)
