"""A finished run, loaded: the head, what it was trained on, and its predictions of new sequences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.errors import ConfigError, SpecMismatch, first_line
from pipeline.heads.inference import predict_batch
from pipeline.heads.lean import keras
from pipeline.heads.run_folder import DONE, read_config, read_metrics
from pipeline.heads.skeleton import CHANNELS, LANDMARKS, skeletons
from pipeline.heads.source import Array, Float32, Mask, SequenceSource
from pipeline.heads.splits import PARTS
from pipeline.heads.streams import Stream
from pipeline.heads.zoo import HEADS
from pipeline.heads.zoo.kinds import own_layers
from pipeline.spec import differing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A trained head: `predict` takes sequences as a store of `spec` holds them.

    shape: of one of their steps. skeleton: whether the model reads these as skeletons. streams: of a head
    on joined streams, whose sequences are those of `JoinedSource`, skeletons included.
    """

    folder: Path
    model: Any
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    classes: list[str]
    spec: Mapping[str, Any]
    fingerprint: str
    first_stage: Mapping[str, Any]
    steps: int
    shape: tuple[int, ...]
    skeleton: bool = False
    streams: tuple[Stream, ...] = ()
    batch: int = 32

    @property
    def per_step(self) -> bool:
        """Whether the head labels every step of a video: `steps.inference.predict_steps` asks it."""
        return _labels_steps(self.config)

    @property
    def multi_label(self) -> bool:
        """Whether several labels may apply to a step."""
        return bool(self.config["head"]["config"].get("multi_label", False))

    @property
    def model_shape(self) -> tuple[int, ...]:
        """The shape of a step as the model reads it."""
        return (CHANNELS,) if self.skeleton else self.shape

    def __repr__(self) -> str:
        return (
            f"Run({self.folder.name}, head={self.config['head']['name']}, "
            f"classes={len(self.classes)}, steps={self.steps}, shape={self.shape}, "
            f"spec={self.fingerprint[:12]})"
        )

    def predict(self, features: Array, mask: Mask) -> Float32:
        """(n, classes) probabilities of `features` (n, steps, *shape) under `mask` (n, steps).

        Values in padding do not matter. Raises `ConfigError` on another shape, a mask with
        gaps or padding on the left, and a sequence without a single real step.
        """
        features, mask = np.asarray(features), np.asarray(mask, dtype=bool)
        self._check(features, mask)
        if self.skeleton:
            features = skeletons(features, mask)
        parts = [np.zeros((0, len(self.classes)), np.float32)]
        for start in range(0, len(features), self.batch):
            part = slice(start, start + self.batch)
            parts.append(predict_batch(self.model, features[part], mask[part], self.batch))
        return np.concatenate(parts)

    def require_same_spec(self, source: SequenceSource) -> None:
        """Raises `SpecMismatch` if a source's features are not those that this head reads."""
        if source.fingerprint == self.fingerprint:
            return
        different = [f"{k} {v}" for k, v in differing(self.spec, source.spec).items()]
        raise SpecMismatch(
            f"the run {self.folder.name} was trained on spec {self.fingerprint[:12]}, the store "
            f"has {source.fingerprint[:12]} ({', '.join(different[:4])}): train "
            "on this store, or use the run's own"
        )

    def moved_on(self, source: SequenceSource) -> list[str]:
        """The ids of clips of this run whose features the store no longer holds as they were."""
        parts = [self.config["split"][part] for part in PARTS]
        ids = [str(video) for part in parts for video in part["video_ids"]]
        digests = [int(digest) for part in parts for digest in part["digests"]]
        table = source.table()
        rows_of = dict(zip(table["video_id"].astype(str), table.index.astype(int), strict=True))
        there = [video for video in ids if video in rows_of]
        found = np.asarray(source.digests([rows_of[video] for video in there])).tolist()
        now = dict(zip(there, found, strict=True))
        return [
            video for video, digest in zip(ids, digests, strict=True) if now.get(video) != digest
        ]

    def _check(self, features: Array, mask: Mask) -> None:
        if self.per_step:
            raise ConfigError(
                f"the run {self.folder.name} labels every step of a video, not a clip as a whole: use "
                "predict --timeline"
            )
        wanted = (self.steps, *self.shape)
        if features.shape[1:] != wanted or mask.shape != features.shape[:2]:
            raise ConfigError(
                f"features {features.shape} with mask {mask.shape} do not fit this head: give "
                f"(n, {', '.join(map(str, wanted))}) with mask (n, {self.steps})"
            )
        if len(mask) and not mask[:, 0].all():
            raise ConfigError(
                f"sequence {int(np.argmin(mask[:, 0]))} has no real step at its start: leave out "
                "clips without frames and pad on the right"
            )
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ConfigError("a mask has a gap: move the real steps left and pad on the right")


def load_run(folder: Path | str) -> Run:
    """Read a finished run. The model is loaded in Keras' safe mode: nothing is unpickled.

    Raises `ConfigError` if the folder is no finished run or of a newer format, and if its files
    do not belong together: the model is damaged, its outputs are not the classes, or classes
    or weights are not those of the digest in `metrics.json` (runs made before have none).
    """
    folder = Path(folder)
    config = read_config(folder)
    if not (folder / "model.keras").exists():
        raise ConfigError(f"{folder} has no model.keras: its training has not ended, resume it")
    engine.prepare()
    own_layers()  # only now: reading a run's config needs no Keras
    try:
        model = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in zipfile, HDF5, JSON or Keras alike
        raise ConfigError(
            f"{folder}/model.keras cannot be loaded ({first_line(error)}): "
            "restore the file or train again"
        ) from None
    metrics = read_metrics(folder) if (folder / DONE).exists() else {}
    streams = tuple(Stream.from_dict(values) for values in config.get("streams", ()))
    # Of joined streams each says for itself whether it is read as skeletons.
    skeleton = not streams and config.get("train", {}).get("skeleton") == "yes"
    _require_consistent(folder, model, config, metrics)
    return Run(
        folder=folder,
        model=model,
        config=config,
        metrics=metrics,
        classes=list(config["classes"]),
        spec=config["spec"],
        fingerprint=config["fingerprint"],
        first_stage=config.get("first_stage", {}),
        steps=int(config["steps"]),
        shape=LANDMARKS if skeleton else tuple(config["shape"]),
        skeleton=skeleton,
        streams=streams,
    )


def _labels_steps(config: Mapping[str, Any]) -> bool:
    kind = HEADS.get(str(config["head"].get("name", "")))
    return kind is not None and kind.per_step


def head_digest(model: Any, classes: Sequence[str]) -> str:
    """SHA-256 (hex) over the class names in their order, then each weight's shape, dtype and bytes.

    Equal for a model that was saved and loaded; names of layers and the states of dropouts do not
    count. `metrics.json` keeps it, so that a loaded head can be compared with the one that was trained.
    """
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for weight in model.get_weights():
        array = np.ascontiguousarray(weight)
        digest.update(json.dumps([list(array.shape), str(array.dtype)]).encode())
        digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.hexdigest()


def _require_consistent(
    folder: Path, model: Any, config: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Raises `ConfigError` if the model is not the one that the folder's files describe."""
    classes, outputs = config["classes"], int(model.output_shape[-1])
    if len(classes) != outputs or len(set(classes)) != outputs:
        raise ConfigError(
            f"{folder} names {len(set(classes))} classes and its model has {outputs} outputs: "
            "restore config.json and model.keras of one training, or train again"
        )
    # A head of steps reads any number of them.
    steps = None if _labels_steps(config) else int(config["steps"])
    wanted = (steps, *config["shape"])
    reads = next((tuple(x.shape[1:]) for x in model.inputs if x.name == "features"), ())
    if reads != wanted:
        raise ConfigError(
            f"{folder} records that its head reads sequences of shape {wanted}, and its model reads "
            f"{reads}: restore config.json and model.keras of one training, or train again"
        )
    claimed = metrics.get("digest")
    if claimed and claimed != head_digest(model, classes):
        raise ConfigError(
            f"the classes or weights in {folder} are not those that were trained (digest "
            f"{claimed[:12]} in {DONE}): restore config.json and model.keras, or train again"
        )
