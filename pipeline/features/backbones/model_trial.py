"""A model that a user names, tried once: what it reads and gives, whether it may run in bfloat16.

The trial runs in a process of its own, so that neither a crash nor TensorFlow enters the run's. What came
out is kept in the cache folder, by the hash of the model, what was said of it, engine and versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline import engine as engines
from pipeline.apart import run_apart
from pipeline.features.backbones import model_family, openvino_engine
from pipeline.features.backbones.family import BackboneKind
from pipeline.features.backbones.model_checks import (
    LEAST_AGREEMENT,
)
from pipeline.features.backbones.model_config import ModelConfig
from pipeline.features.backbones.model_settling import Choice, settle
from pipeline.homes import cache_folder
from pipeline.plain import write_json
from pipeline.spec import Precision, Preprocessing

_VERSION = 1
"""Of what is kept: raise it when a trial finds out more, or something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a trial found.

    kind: of the backbone, its step's shape known. hash: of the model, as `Spec.weights` has it.
    precision: what `auto` means for it, here. cosine: the least of bfloat16 to float32 over the steps of
    a batch; None where it was not measured. batch: steps a call. parameters: 0 where not known.
    """

    kind: BackboneKind
    hash: str
    choices: tuple[Choice, ...]
    parameters: int
    engine: str
    batch: int
    precision: Precision
    cosine: float | None = None

    @property
    def said(self) -> str:
        """The precision, and why: a clause for the run's summary."""
        if self.cosine is None:
            return f"{self.precision} ({self.engine} has no other here)"
        agreement = f"cosine to float32 at least {self.cosine:.4f} on the model's first batch"
        if self.precision == "float32":
            return f"float32, because bfloat16 differs too much ({agreement}, {LEAST_AGREEMENT} wanted)"
        return f"{self.precision} ({agreement})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` wrote."""
        kind = dict(values["kind"])
        kind["shape"], kind["channels"] = tuple(kind["shape"]), tuple(kind["channels"])
        if kind["preprocessing"] is not None:
            kind["preprocessing"] = Preprocessing.from_dict(kind["preprocessing"])
        choices = tuple(Choice(**{**c, "value": _tuple(c["value"])}) for c in values["choices"])
        return cls(**{**values, "kind": BackboneKind(**kind), "choices": choices})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def try_model(
    source: str,
    config: ModelConfig,
    *,
    engine: str = "auto",
    clip: str = "",
    cache: Path | None = None,
) -> Trial:
    """Try a model, unless that was done here before.

    source: a model file's path, or the name of code. clip: a video whose frames are the first batch;
    drawn pictures without one. Raises `ConfigError`, which names the model, where it is no first stage.
    """
    order = {"source": source, "config": asdict(config), "engine": engine, "clip": clip}
    if not is_file(source):
        return _tried(order)  # code may do something else at every call
    path = Path(source).expanduser()
    facts = model_family.facts_of_file(path)
    name = path.suffix[1:]
    settled = settle(name, repr(str(path)), facts, config)
    weights = model_family.find_weights(settled.kind, source, False)
    chosen = model_family.choose_engine(name, engine)
    key = {
        "version": _VERSION,
        "model": weights.hash,
        "kind": asdict(settled.kind),
        "choices": [asdict(choice) for choice in settled.choices],
        "engine": chosen,
        "software": engines.software()
        | openvino_engine.openvino_software()
        | {"onnxruntime": engines.version("onnxruntime")},
        "precisions": engines.precisions(),
    }
    folder = (cache or cache_folder()) / "trials"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    file = folder / f"{digest[:16]}.json"
    with openvino_engine.one_at_a_time(folder, file.stem):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return Trial.from_dict(json.loads(file.read_text(encoding="utf-8")))
        trial = _tried({**order, "source": str(weights.path)})
        with contextlib.suppress(OSError):
            write_json(file, trial.to_dict())
    return trial


def is_file(source: str) -> bool:
    """Whether a model is named by its file, rather than by code."""
    return source.endswith((f".{model_family.ONNX}", f".{model_family.KERAS}"))


def _tried(order: dict[str, Any]) -> Trial:
    with tempfile.TemporaryDirectory(prefix="pixels-once-") as folder:
        result = Path(folder) / "trial.json"
        run_apart(
            "pipeline.features.backbones.model_measuring:measure", {**order, "result": str(result)}
        )
        return Trial.from_dict(json.loads(result.read_text(encoding="utf-8")))
