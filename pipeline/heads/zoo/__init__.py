"""All heads by name, and one way to build any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ConfigError, SpecMismatch, did_you_mean
from pipeline.heads.lean import keras
from pipeline.heads.seeds import SeededLayers
from pipeline.heads.statistics import Statistics, channels_of
from pipeline.heads.zoo import attention, convolution, fusion, pyramid, recurrent, stepwise
from pipeline.heads.zoo.kinds import FITS, HeadKind, config_dict, layers

_FAMILIES = (recurrent, fusion, pyramid, attention, convolution, stepwise)
HEADS: dict[str, HeadKind] = {kind.name: kind for family in _FAMILIES for kind in family.HEADS}
"""Every head of the zoo, in the order of the documentation."""

__all__ = [
    "HEADS",
    "HeadKind",
    "build_ensemble",
    "build_head",
    "config_dict",
    "head_kind",
    "require_labels",
    "require_readable",
]


def head_kind(name: str) -> HeadKind:
    """The head of this name. Raises `ConfigError` that suggests the nearest one."""
    if name in HEADS:
        return HEADS[name]
    raise ConfigError(f"head {name!r} is not known: {did_you_mean(name, HEADS)}")


def require_labels(kind: HeadKind, *, per_step: bool) -> None:
    """Raises `ConfigError` for a head of steps without annotations, and one of clips with them."""
    if kind.per_step == per_step:
        return
    able = ", ".join(name for name, other in HEADS.items() if other.per_step == per_step)
    if kind.per_step:
        raise ConfigError(
            f"the head {kind.name} labels every step of a video, and no annotations are given: add "
            f"--annotations FILE to train, or use a head that labels clips ({able})"
        )
    raise ConfigError(
        f"annotations label the steps of videos, and the head {kind.name} labels clips: use {able}, or "
        "leave --annotations out"
    )


def require_readable(kind: HeadKind, shape: Sequence[int]) -> None:
    """Raises `SpecMismatch` if this head cannot read steps of this shape."""
    has = "frames" if len(shape) == 3 else "features"
    if has not in kind.reads:
        able = ", ".join(
            name
            for name, other in HEADS.items()
            if has in other.reads and other.per_step == kind.per_step
        )
        remedy = "of features" if has == "frames" else "with backbone=frames"
        raise SpecMismatch(
            f"the head {kind.name} reads {' or '.join(kind.reads)}, and this store holds {has} of "
            f"shape {tuple(shape)} per step: use {able}, or make a store {remedy}"
        )


def build_head(
    name: str,
    steps: int | None,
    shape: Sequence[int],
    classes: int,
    config: Any = None,
    statistics: Statistics | None = None,
    *,
    precision: str = "float32",
    seed: int = 0,
    streams: Sequence[int] = (),
) -> Any:
    """A fresh Keras model of this head: {"features", "mask"} → (batch, classes) probabilities.

    Of a head that labels every step (batch, steps, classes), and `steps` may be None: any number.
    `config` is the head's config or a mapping of options. Normalisation by `statistics` (default:
    none) and the mask are inside the model. `precision` is a Keras dtype policy for the layers
    (`mixed_bfloat16` halves the wide ones' cost where the CPU has the instructions); inputs,
    normalisation and probabilities are float32 always. Start weights and dropout follow
    from `seed` alone: equal arguments give equal models, whatever else draws random numbers.
    `streams` are the widths of streams that are joined early: a head that trains by gradients reads a
    projection of each (`mixing.projected`).
    """
    model, _ = build_ensemble(
        name,
        steps,
        shape,
        classes,
        config,
        statistics,
        precision=precision,
        seeds=(seed,),
        streams=streams,
    )
    return model


def build_ensemble(
    name: str,
    steps: int | None,
    shape: Sequence[int],
    classes: int,
    config: Any = None,
    statistics: Statistics | None = None,
    *,
    precision: str = "float32",
    seeds: Sequence[int] = (0,),
    streams: Sequence[int] = (),
) -> tuple[Any, list[Any]]:
    """(a model of several of this head whose probabilities are averaged, each of them as a model).

    They share inputs and normalisation; each has the weights that `build_head` starts from its seed
    with. With one seed both are the same model.
    """
    kind = head_kind(name)
    require_readable(kind, shape)
    if config is None or isinstance(config, Mapping):
        config = kind.configure(config or {})
    if statistics is None or getattr(config, "raw_features", False):
        statistics = Statistics.neutral(channels_of(shape))
    with _policy(precision):
        features = keras.Input((steps, *shape), name="features", dtype="float32")
        mask = keras.Input((steps,), name="mask", dtype="bool")
        inputs = {"features": features, "mask": mask}
        normalise = layers.Standardise(statistics.mean.tolist(), statistics.scale.tolist())
        flat = features
        if len(shape) == 2:
            # Landmarks × coordinates: a vector per step to every head.
            flat = layers.Reshape((steps or -1, channels_of(shape)))(features)
        x = normalise(flat, mask)
        outputs = []
        for number, seed in enumerate(seeds):
            prefix = f"member_{number}_" if len(seeds) > 1 else ""
            seeded, read = SeededLayers(seed, name, prefix), x
            if streams and getattr(config, "fit", FITS[0]) == FITS[0]:
                read = layers.projected(x, mask, streams, seeded)
            outputs.append(config.build(read, mask, classes, seeded))
        members = [keras.Model(inputs, output, name=name) for output in outputs]
        if len(members) == 1:
            return members[0], members
        average = keras.layers.Average(dtype="float32", name="average")(outputs)
    return keras.Model(inputs, average, name=name), members


@contextmanager
def _policy(precision: str) -> Iterator[None]:
    # Keras keeps the policy per thread, so trainings side by side do not disturb each other.
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
