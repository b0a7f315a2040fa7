"""The registry of backbones: `describe` one without loading it, `load` one ready to run.

To add a family, write a module that defines its `Family` and list it in `FAMILIES`; or register it from a
package of your own (`factories`). Models of the user's have families too, without kinds (`model_family`).
"""

from __future__ import annotations

from pipeline.errors import ConfigError, SpecMismatch, did_you_mean
from pipeline.features.backbones import (
    factories,
    frames,
    keras_family,
    model_family,
    motion_family,
    pose_family,
)
from pipeline.features.backbones.family import (
    DEFAULT_OPTIONS,
    NO_WEIGHTS,
    Backbone,
    BackboneKind,
    Family,
    LoadOptions,
    Weights,
)
from pipeline.spec import Spec

DEFAULT_BACKBONE = "inception_v3"

FAMILIES: tuple[Family, ...] = (
    keras_family.FAMILY,
    frames.FAMILY,
    motion_family.FAMILY,
    pose_family.FAMILY,
)


def describe(name: str) -> BackboneKind:
    """The kind of this name. Raises `ConfigError`, with the nearest name, where there is none."""
    kinds = family_of(name).kinds
    if name not in kinds:
        raise ConfigError(
            f"backbone {name!r} is a model of your own: it is known by its file or code"
        )
    return kinds[name]


def family_of(name: str) -> Family:
    """The family that a backbone belongs to. Raises `ConfigError`, with the nearest name."""
    for family in FAMILIES:
        if name in family.kinds:
            return family
    if name in model_family.FILES:
        return model_family.FILES[name]
    if registered := factories.registered_family(name):
        return registered
    if is_code(name):
        return model_family.CODE
    known = [*backbone_names(), *factories.entry_points()]
    if remedy := model_family.other_file(name):
        raise ConfigError(
            f"backbone is {name!r}, and a model file ends in .onnx or .keras: {remedy}"
        )
    raise ConfigError(
        f"backbone {name!r} is not known: {did_you_mean(name, known)}; or name a model file (.onnx, "
        ".keras) or package.module:function"
    )


def is_model(name: str) -> bool:
    """Whether a setting names a model of the user's: a file, or code that returns one."""
    file = name.endswith(tuple(f".{ending}" for ending in model_family.FILES))
    return name not in backbone_names() and (file or is_code(name))


def is_code(name: str) -> bool:
    """Whether a backbone is what code returns: `package.module:function`, or a registered function."""
    if factories.is_reference(name):
        return True
    return name in factories.entry_points() and factories.registered_family(name) is None


def backbone_names() -> list[str]:
    """Every built-in name: the default first, the others sorted."""
    names = {name for family in FAMILIES for name in family.kinds}
    return [DEFAULT_BACKBONE, *sorted(names - {DEFAULT_BACKBONE})]


def channels_of(name: str) -> tuple[str, ...]:
    """The names of a step's numbers, where they have names."""
    kind = family_of(name).kinds.get(name)
    return kind.channels if kind else ()


def resolve_weights(weights: str, backbone: str, *, download: bool = True) -> Weights:
    """Find the weights that a setting names, and hash them. Imports no Keras.

    weights: "imagenet" (the file that Keras caches under `KERAS_HOME` or `~/.keras`, fetched there if
        it is missing), the path of a no-top `.h5` or `.weights.h5` file, "random" or "random:SEED".
        A backbone without weights takes any of these and uses none; `pose` takes the folder that
        holds its two files and nothing else; `onnx` and `keras` the model file itself.
    download: whether a missing file may be fetched.

    Raises `WeightsNotFound`, which names both ways out, and `ConfigError` for a file that cannot
    be a Keras weights file or a seed that is no whole number.
    """
    family = family_of(backbone)
    kind = family.kinds.get(backbone) or _unknown(backbone)
    return family.find_weights(kind, weights, download)


def _unknown(name: str) -> BackboneKind:
    """The kind of a model of which no more than the name is known yet."""
    return BackboneKind(name=name, size=0, shape=(), dtype="float16")


def load(spec: Spec, weights: Weights | None, options: LoadOptions = DEFAULT_OPTIONS) -> Backbone:
    """Load the backbone of a spec, ready to run.

    weights: what `resolve_weights` returned (None for a backbone that has none). Raises `SpecMismatch`
    where the weights are not those of the spec, and `ConfigError` where this machine lacks the spec's
    precision or the engine.
    """
    weights = weights or NO_WEIGHTS
    if weights.hash != spec.weights:
        given = "no weights" if weights is NO_WEIGHTS else f"weights {weights.hash}"
        raise SpecMismatch(
            f"the spec names weights {spec.weights}, and {given} were given: "
            "set WEIGHTS to the file that the spec was made with"
        )
    return family_of(spec.backbone).load(spec, weights, options)
