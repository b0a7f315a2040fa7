"""Everything that decides a feature's value, its canonical JSON, and its fingerprint.

Two stores with one fingerprint hold interchangeable features. Who computed them (TensorFlow, JAX,
OpenVINO), in which batches and on which machine, is recorded elsewhere and not part of the spec.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

from pipeline.errors import ConfigError

Rule = Literal["uniform", "stride", "first", "fps"]
RULES: tuple[str, ...] = get_args(Rule)
NUMBERS = ("stride", "fps")
"""Rules that read the field of their own name; the others ignore both."""

IMPORTED = "imported"
"""The backbone, and the rule, of features that others computed: nothing here can compute them again."""

Fit = Literal["crop", "squash", "pad", "whole"]
Precision = Literal["float32", "bfloat16", "float16"]
Dtype = Literal["float16", "float32", "uint8"]
View = Literal["plain", "mirror"]
Aspect = Literal["stored", "display"]
Layout = Literal["NHWC", "NCHW", "NTHWC", "NCTHW", "NTCHW"]
Colour = Literal["RGB", "BGR"]
Pool = Literal["none", "mean", "max", "first"]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which frames of a clip are taken.

    `steps` is the length of every sequence. `stride` counts frames (for the rule `stride`), `fps`
    frames per second (for the rule `fps`); both are 0 where the rule does not read them.
    `offset` moves the pick inside its segment (uniform) or the start (the others), as a share of a
    segment or stride, so that a second view of a clip sees other frames; 0.5 is the middle. The rule
    `imported` says that others sampled, and not how.
    """

    rule: Rule | Literal["imported"] = "uniform"
    steps: int = 40
    stride: int = 0
    fps: float = 0.0
    offset: float = 0.5

    def __post_init__(self) -> None:
        if self.rule not in (*RULES, IMPORTED):
            raise ConfigError(f"sampling {self.rule!r} is not known: use one of {', '.join(RULES)}")
        if self.steps < 1:
            raise ConfigError(f"frames is {self.steps}: a sequence needs at least one step")
        if self.rule == "stride" and self.stride < 1:
            raise ConfigError(f"stride is {self.stride}: give a whole number of frames, 1 or more")
        if self.rule == "fps" and not self.fps > 0:
            raise ConfigError(f"fps is {self.fps}: give a rate above 0")
        if not 0 <= self.offset < 1:
            raise ConfigError(f"offset is {self.offset}: give a share from 0 up to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How frames enter a model of the user's, and which numbers are taken of what it gives.

    The model reads (pixel · scale − mean) / std, with a mean and a standard deviation for each of its
    channels in their order (`color`), as an array of `layout`. Of its output of this name (empty: its
    only one) the axes beside batch and channels are averaged, the largest value is taken ("max"), the
    first token, or all stays as it is ("none").
    """

    layout: Layout = "NHWC"
    color: Colour = "RGB"
    scale: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    output: str = ""
    pool: Pool = "none"

    def __post_init__(self) -> None:
        for name, known in (("layout", Layout), ("color", Colour), ("pool", Pool)):
            if (value := getattr(self, name)) not in get_args(known):
                raise ConfigError(f"{name} is {value!r}: use one of {', '.join(get_args(known))}")
        numbers = (self.scale, *self.mean, *self.std)
        if not all(map(math.isfinite, numbers)) or not all((self.scale, *self.std)):
            raise ConfigError(
                f"scale is {self.scale}, mean {list(self.mean)} and std {list(self.std)}: give finite "
                "numbers, and none of scale and std as 0"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what a spec's `to_dict` wrote. Raises `ConfigError` on a key that is not known."""
        _require_known(cls, values, "preprocessing")
        triples = {name: tuple(values[name]) for name in ("mean", "std") if name in values}
        return cls(**{**values, **triples})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a store's features are. Immutable; equal specs have equal fingerprints.

    `weights` is `sha256:<hex>` of the weights file, `random:<seed>`, or `none` for a backbone
    that has none. `size` is the side in pixels of the square that frames are fitted to, and
    `shape` the shape of one step: (2048,) for InceptionV3, (64, 64, 3) for `frames`. `aspect`
    "display" stretches pixels that are not square to the shape in which they are shown, before the
    fit; "stored", as stores made before it existed hold them, takes every pixel for square. A frame
    fitted as "whole" keeps its proportions, and `size` is its longer side. `window` is how many frames
    a step is computed from, `gap` frames or about `gap_s` seconds from one to the next
    (`features.windows`). `preprocessing` is that of a model of the user's; the models of the table
    have their own. Imported features have the backbone `imported` and a `source`: the name of what
    computed them.
    """

    sampling: Sampling = field(default_factory=Sampling)
    fit: Fit = "crop"
    interpolation: str = "area"
    size: int = 299
    backbone: str = "inception_v3"
    weights: str = "none"
    view: View = "plain"
    precision: Precision = "float32"
    dtype: Dtype = "float16"
    shape: tuple[int, ...] = (2048,)
    aspect: Aspect = "stored"
    source: str = ""
    window: int = 1
    gap_s: float = 0.0
    gap: int = 0
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        gaps = (self.gap > 0) + (self.gap_s > 0)
        if self.window < 1 or min(self.gap, self.gap_s) < 0 or gaps != (self.window > 1):
            raise ConfigError(
                f"window is {self.window}, gap_s {self.gap_s} and gap {self.gap}: give 1, 0 and 0, or "
                "several frames and the seconds or the frames from one to the next"
            )
        if self.aspect not in ("stored", "display"):
            raise ConfigError(f"aspect {self.aspect!r} is not known: use stored or display")

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; `from_dict` reads it back.

        Fields that came after the first stores are left out at their defaults, so that those
        stores keep their fingerprints.
        """
        values = _without_defaults(asdict(self))
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote. Raises `ConfigError` on a key that this version does not know."""
        _require_known(cls, values, "spec")
        plain = dict(values)
        plain["sampling"] = Sampling(**plain["sampling"])
        plain["shape"] = tuple(plain["shape"])
        if plain.get("preprocessing") is not None:
            plain["preprocessing"] = Preprocessing.from_dict(plain["preprocessing"])
        return cls(**plain)

    @property
    def imported(self) -> bool:
        """Whether others computed the features."""
        return self.backbone == IMPORTED

    @property
    def row_bytes(self) -> int:
        """Bytes of one clip's features in a store."""
        item = {"float16": 2, "float32": 4, "uint8": 1}[self.dtype]
        return self.sampling.steps * math.prod(self.shape) * item

    @property
    def canonical_json(self) -> str:
        """The one JSON text of this spec: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()

    def differences(self, other: Spec) -> dict[str, tuple[Any, Any]]:
        """The settings in which two specs differ: name → (this one's, the other's).

        >>> Spec(fit="crop").differences(Spec(fit="pad"))
        {'fit': ('crop', 'pad')}
        """
        mine, theirs = (_LATER | flat(spec.to_dict()) for spec in (self, other))
        return {
            k: (mine.get(k), theirs.get(k)) for k in mine | theirs if mine.get(k) != theirs.get(k)
        }


def _require_known(kind: type[Any], values: Mapping[str, Any], what: str) -> None:
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise ConfigError(
            f"the {what} has {', '.join(sorted(unknown))}, which this version does not know: "
            "use the version of pixels-once that wrote it, or a newer one"
        )


_LATER: dict[str, Any] = {
    "aspect": "stored",
    "source": "",
    "window": 1,
    "gap_s": 0.0,
    "gap": 0,
    "preprocessing": None,
}
"""Field → default of those that came after the first stores; of the sampling as `sampling.NAME`."""

_NEVER = object()


def _without_defaults(values: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            kept[name] = _without_defaults(value, f"{inside}{name}.")
        elif _LATER.get(f"{inside}{name}", _NEVER) != value:
            kept[name] = value
    return kept


def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's dictionary as one mapping of dotted names.

    >>> flat({"fit": "crop", "sampling": {"steps": 40}})
    {'fit': 'crop', 'sampling.steps': 40}
    """
    values: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping):
            values |= {f"{key}.{name}": inner for name, inner in flat(value).items()}
        else:
            values[key] = value
    return values


def differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """The settings in which two specs' dictionaries differ, sorted: name → `mine against theirs`."""
    ours, others = flat(mine), flat(theirs)
    return {
        name: f"{ours.get(name)} against {others.get(name)}"
        for name in sorted(ours.keys() | others.keys())
        if ours.get(name) != others.get(name)
    }
