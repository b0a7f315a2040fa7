"""What a trial does in its own process: load a model, look at what it gives, compare its precisions."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import engine as engines
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features.backbones import factories, model_family
from pipeline.features.backbones.family import Backbone, BackboneKind, LoadOptions, Weights
from pipeline.features.backbones.model_checks import (
    LEAST_AGREEMENT,
    cosines,
    pictures,
    require_sound,
)
from pipeline.features.backbones.model_config import ModelConfig
from pipeline.features.backbones.model_facts import ModelFacts, Tensor
from pipeline.features.backbones.model_settling import Settled, require_pool, settle
from pipeline.features.backbones.model_trial import Trial, is_file
from pipeline.plain import write_json
from pipeline.spec import Precision, Sampling, Spec

_LEAST_STEPS = 4


def measure(order: dict[str, Any]) -> None:
    """Try the model that `order` names and write what came out to its `result`."""
    values = dict(order["config"])
    triples = {name: tuple(values[name]) for name in ("mean", "std") if values[name]}
    config = ModelConfig(**{**values, **triples})
    trial = _run(order["source"], config, order["engine"], order["clip"])
    write_json(Path(order["result"]), trial.to_dict())


def _run(source: str, config: ModelConfig, engine: str, clip: str) -> Trial:
    if is_file(source):
        path = Path(source)
        name, facts = path.suffix[1:], model_family.facts_of_file(path)
        settled = settle(name, repr(source), facts, config)
        weights = model_family.find_weights(settled.kind, source, False)
    else:
        made = _made(source)
        if isinstance(made, Backbone):
            return _of_backbone(source, made)
        from pipeline.features.backbones.model_keras import facts_of, model_digest

        name, facts = source, facts_of(made)
        settled = settle(name, source, facts, config)
        weights = Weights(kind="code", hash=model_digest(made))
    facts = _with_shapes(name, source, facts, settled.kind, weights, engine)
    settled = _settled_again(name, source, facts, config)
    return _measured(source, settled, facts, weights, engine, clip)


def _made(source: str) -> Any:
    try:
        engines.prepare()
    except ConfigError:  # a Backbone may need no Keras
        return factories.make(source)
    from pipeline.features.backbones.model_keras import keras_model

    return keras_model(source)


def _of_backbone(source: str, made: Backbone) -> Trial:
    kind = replace(BackboneKind.of(made.spec), name=source, has_precisions=False)
    require_sound(made, source)
    return Trial(
        kind=kind,
        hash=model_family.backbone_digest(made),
        choices=(),
        parameters=0,
        engine=made.engine,
        batch=made.batch,
        precision="float32",
    )


def _with_shapes(
    name: str, source: str, facts: ModelFacts, kind: BackboneKind, weights: Weights, engine: str
) -> ModelFacts:
    """The facts with the shape of every output for a batch of this kind, as the engine finds it."""
    chosen = model_family.choose_engine(name, engine)
    if name != model_family.ONNX:
        from pipeline.features.backbones.model_keras import facts_of, keras_model

        return facts_of(keras_model(source))
    assert weights.path is not None
    if chosen == "openvino":
        from pipeline.features.backbones.model_openvino import output_shapes
    else:
        from pipeline.features.backbones.model_onnxruntime import output_shapes
    shapes = output_shapes(weights.path, kind)
    outputs = tuple(
        Tensor(name=out.name, shape=shapes.get(out.name, out.shape), dtype=out.dtype)
        for out in facts.outputs
    )
    if len(outputs) == len(shapes) == 1:
        outputs = (replace(outputs[0], shape=next(iter(shapes.values()))),)
    return replace(facts, outputs=outputs)


def _settled_again(name: str, source: str, facts: ModelFacts, config: ModelConfig) -> Settled:
    model = repr(source) if is_file(source) else source
    settled = settle(name, model, facts, config)
    assert settled.kind.preprocessing is not None
    chosen = settled.kind.preprocessing.output
    output = next((out for out in facts.outputs if out.name == chosen), facts.outputs[0])
    if output.shape is not None:
        require_pool(model, output.shape, config.pool)
    return settled


def _measured(
    source: str, settled: Settled, facts: ModelFacts, weights: Weights, engine: str, clip: str
) -> Trial:
    """Load the model in float32, and in bfloat16 where this machine and the engine have it."""
    kind = settled.kind
    options = LoadOptions(engine=engine)
    exact = model_family.load(spec_of(kind, weights.hash, "float32"), weights, options)
    frames = _first_batch(exact, kind, clip)
    expected = _in_batches(exact, frames)
    if not np.isfinite(expected).all():
        raise ConfigError(
            f"the model {source!r} gives features that are not finite (NaN or infinite) for the frames "
            f"of {clip!r}: check its weights, and scale, mean and std"
        )
    precision: Precision = "float32"
    cosine: float | None = None
    if exact.engine == "openvino" and engines.auto_precision() == "bfloat16":
        fast = model_family.load_unchecked(
            spec_of(kind, weights.hash, "bfloat16"), weights, options
        )
        got = _in_batches(fast, frames)
        cosine = float(cosines(got, expected).min()) if np.isfinite(got).all() else 0.0
        precision = "bfloat16" if cosine >= LEAST_AGREEMENT else "float32"
    return Trial(
        kind=replace(kind, shape=tuple(expected.shape[1:])),
        hash=weights.hash,
        choices=settled.choices,
        parameters=facts.parameters,
        engine=exact.engine,
        batch=exact.batch,
        precision=precision,
        cosine=cosine,
    )


def _in_batches(backbone: Backbone, frames: NDArray[np.uint8]) -> NDArray[Any]:
    size = backbone.batch
    parts = [backbone(frames[at : at + size]) for at in range(0, len(frames), size)]
    return np.concatenate(parts)


def spec_of(kind: BackboneKind, weights: str, precision: Precision) -> Spec:
    """A spec of this kind of backbone, sampled as usual."""
    names = (
        "fit",
        "interpolation",
        "size",
        "dtype",
        "shape",
        "window",
        "gap",
        "gap_s",
        "preprocessing",
    )
    values = {name: getattr(kind, name) for name in names}
    return Spec(
        sampling=Sampling(),
        backbone=kind.name,
        weights=weights,
        precision=precision,
        aspect="display",
        **values,
    )


def _first_batch(backbone: Backbone, kind: BackboneKind, clip: str) -> NDArray[np.uint8]:
    """Steps of the clip, or drawn ones where there is none that can be read: a batch, at least four."""
    steps = max(_LEAST_STEPS, backbone.batch)
    if clip:
        from pipeline.features.decoding.reading import read_clip
        from pipeline.features.decoding.values import FramePlan

        spec = spec_of(kind, "", "float32")
        plan = replace(FramePlan.of(spec), sampling=Sampling(steps=steps))
        with contextlib.suppress(UnreadableClip, MemoryError):
            read = read_clip(clip, plan)
            return read.frames if read.windows is None else read.frames[read.windows]
    return pictures((steps, *backbone.batch_shape[1:]))
