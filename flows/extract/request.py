"""What a run of `features` was asked for: settings that hold, and the spec that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import store
from flows.extract.each_store import each_store
from flows.extract.own_model import Model, is_own_model, model_of
from flows.extract.plan import check_retry
from flows.settings.features import FeaturesSettings, parse_sampling
from flows.settings.refresh import RefreshSettings
from flows.settings.resolve import check_settings
from pipeline import engine
from pipeline.errors import ConfigError, SpecMismatch, WeightsNotFound
from pipeline.features.backbones import DEFAULT_BACKBONE, describe, resolve_weights
from pipeline.features.backbones.family import BackboneKind, Weights
from pipeline.features.catalog.remote import refuse_credentials, without_query, without_secrets
from pipeline.features.catalog.shares import Share
from pipeline.features.stage import Stage, remembered_weights
from pipeline.spec import NUMBERS, Fit, Sampling, Spec

_SHARE = "{shard}"
DEMO_CLIPS = "demo-clips"
"""The folder of the built-in clips, where no clips are named."""

_whole: dict[str, str] = {}  # a URL without its query → the URL


def checked(settings: FeaturesSettings) -> FeaturesSettings:
    """A run's settings with its store's name, in which `{backbone}` stays for several backbones.

    Raises `ConfigError` for what cannot be, or be reached.
    """
    check_settings(settings)
    settings = with_store(settings)
    require_addresses(settings)
    check_retry(parts(settings.retry))
    requests = each_store(settings)
    return settings if len(requests) > 1 else next(iter(requests.values()))


def clips_of(settings: FeaturesSettings) -> str:
    """Where the clips are: a folder, file or manifest; the built-in clips where none are named."""
    return settings.videos or DEMO_CLIPS


def with_store(settings: FeaturesSettings) -> FeaturesSettings:
    """The settings with the default store's name filled in, and the share of the clips in a name.

    Raises `ConfigError` for a share that is none, and for a name that wants one where none is given.
    """
    share = Share.parse(settings.shard) if settings.shard else None
    if _SHARE in settings.store and not store.exists(settings.store):
        if share is None:
            raise ConfigError(
                f"store is {settings.store!r}, and no shard is given: add one, e.g. --shard 1/16"
            )
        return replace(settings, store=settings.store.replace(_SHARE, share.name))
    if settings.store:
        return settings
    return replace(settings, store="features.zarr" if settings.videos else "demo.zarr")


def require_addresses(settings: FeaturesSettings | RefreshSettings) -> None:
    """Raise `ConfigError` for a store or clips that a run's workers could never reach.

    `memory://` lives in one process and the workers are others; a URL with a password or a query (a
    signature, often) in it would end up in logs and in Prefect's database, with a run's parameters.
    """
    if "*" in settings.store and not store.exists(settings.store):
        raise ConfigError(
            f"store is {settings.store!r}, a pattern for several, and a run writes to one: name it"
        )
    for url in (settings.store, settings.videos):
        refuse_credentials(url)
        if without_query(url) != url:
            raise ConfigError(
                f"the URL {without_secrets(url)} carries what may be a signature, and would be kept "
                "with the run: list the clip in a CSV manifest, whose rows are not"
            )
        if url.startswith("memory://"):
            raise ConfigError(
                "memory:// exists in one process only and the workers are others: use a folder or an "
                "object store"
            )


def without_signature(url: str) -> str:
    """The URL without its query, which this process alone remembers (`with_signature`)."""
    bare = without_query(url)
    if bare != url:
        _whole[bare] = url
    return bare


def with_signature(url: str) -> str:
    """The URL as the user gave it to this process."""
    return _whole.get(url, url)


def parts(text: str) -> tuple[str, ...]:
    """The parts of a list with commas, blanks around them taken off."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def stage_of(
    settings: FeaturesSettings, existing: Any | None, *, download: bool = True
) -> tuple[Spec, Stage, Weights]:
    """The spec of a run, and how its batches are extracted.

    existing: the open store, or None if a new one will be made. Backbone, weights, precision and
    aspect that the user did not choose are the store's own. download: whether missing weights may be
    fetched.
    Raises `SpecMismatch`, with both specs and the remedy, if the store holds another spec.
    """
    stored = Spec.from_dict(existing.spec) if existing is not None else None
    if stored is not None and stored.imported:
        raise SpecMismatch(
            f"{settings.store} has imported features (source {stored.source}), which `features` cannot "
            "compute: name another STORE for features of videos, or `import` more into this one"
        )
    remembered = existing.attributes.get("first_stage", {}) if existing is not None else {}
    backbone = settings.backbone or (stored.backbone if stored else DEFAULT_BACKBONE)
    if is_own_model(backbone):
        model = model_of(settings, stored, remembered)
    else:
        model = _of_table(backbone, settings, stored, remembered, download)
    kind = model.kind
    aspect = stored.aspect if stored else "display"
    spec = Spec(
        sampling=sampling_of(settings),
        fit=_fit(settings, kind),
        interpolation=kind.interpolation,
        size=kind.size,
        backbone=kind.name,
        weights=model.weights.hash,
        view=settings.view,  # type: ignore[arg-type]
        precision=_precision(settings, stored, model) if kind.has_precisions else "float32",
        dtype=_dtype(settings, kind, stored),
        shape=kind.shape,
        window=kind.window,
        gap_s=kind.gap_s,
        gap=kind.gap,
        preprocessing=kind.preprocessing,
        aspect=aspect if settings.aspect == "auto" else settings.aspect,  # type: ignore[arg-type]
    )
    if stored is not None:
        require_same(stored, spec, settings.store)
    stage = Stage(
        spec=spec.to_dict(),
        weights=model.setting,
        engine=settings.engine,
        cnn_batch=settings.cnn_batch,
        decoders=settings.decoders,
        timeout_s=settings.timeout,
        previews=settings.previews,
        precision=model.said,
    )
    return spec, stage, model.weights


def require_batch(existing: Any, settings: FeaturesSettings) -> None:
    """Raise `ConfigError` if a store has batches of another size than was asked for."""
    if existing.batch != settings.batch != FeaturesSettings().batch:
        raise ConfigError(
            f"{settings.store} was made with batch {existing.batch}, not {settings.batch}: "
            "leave --batch out, or use another STORE"
        )


def share_of(settings: FeaturesSettings, existing: Any | None) -> Share | None:
    """The share of the clips that a run is about: the one asked for, else the store's own; None: all.

    existing: the store, or its writer, if it is there. Raises `ConfigError` for another share than the
    store's, or a share of the clips for a store of all of them.
    """
    asked = Share.parse(settings.shard) if settings.shard else None
    kept = str(existing.attributes.get("shard", "")) if existing is not None else ""
    if asked is None:
        return Share.parse(kept) if kept else None
    if existing is not None and str(asked) != kept and (kept or len(existing)):
        holds = f"the shard {kept}" if kept else "clips of all shards"
        raise ConfigError(
            f"shard is {asked} and {settings.store} holds {holds}: give each shard a store of its own, "
            "e.g. --store 'shards/{shard}.zarr'"
        )
    return asked


def sampling_of(settings: FeaturesSettings) -> Sampling:
    """The sampling rule of the settings; `fps=N` and `stride=N` carry their number with them."""
    given = parse_sampling(settings.sampling)
    stride = settings.stride if given["rule"] in NUMBERS else 0
    return Sampling(
        **{"steps": settings.frames, "stride": stride, "offset": settings.offset} | given
    )


def require_same(stored: Spec, asked: Spec, url: str) -> None:
    """Raise `SpecMismatch` if a store's spec is not the one asked for; it names every difference."""
    if stored.fingerprint == asked.fingerprint:
        return
    differences = ", ".join(
        f"{name} is {_short(mine)} there and {_short(theirs)} here"
        for name, (mine, theirs) in stored.differences(asked).items()
    )
    raise SpecMismatch(
        f"{url} holds features of another spec ({stored.fingerprint[:12]}, asked: "
        f"{asked.fingerprint[:12]}): {differences}; use the store's settings, or another STORE for these"
    )


def _of_table(
    backbone: str,
    settings: FeaturesSettings,
    stored: Spec | None,
    remembered: Mapping[str, Any],
    download: bool,
) -> Model:
    """A built-in first stage, or one that a package registers."""
    kind = describe(backbone)
    if settings.backbone_config:
        raise ConfigError(
            f"{backbone} is known by name, and backbone_config says how a model of your own is fed: "
            "leave --backbone-config out"
        )
    wanted = settings.weights
    if not wanted and stored is not None and stored.backbone == backbone:
        wanted = remembered_weights(stored, remembered)
    setting, weights = _weights(
        wanted if kind.needs_weights else None,
        backbone,
        demo=not settings.videos,
        download=download,
    )
    return Model(kind=kind, weights=weights, setting=setting)


def _weights(
    wanted: str | None, backbone: str, *, demo: bool, download: bool
) -> tuple[str, Weights]:
    """The setting that leads to the weights, and the weights. wanted: None if there are none."""
    if wanted is None:
        return "", resolve_weights("", backbone)
    setting = wanted or "imagenet"
    try:
        weights = resolve_weights(setting, backbone, download=download)
    except WeightsNotFound:
        if wanted or not demo:
            raise
        return "random:0", resolve_weights("random:0", backbone)
    # A path is made absolute for the workers, whose current folder may be another.
    return (str(weights.path) if weights.kind == "file" else setting), weights


def _fit(settings: FeaturesSettings, kind: BackboneKind) -> Fit:
    if settings.fit == "auto":
        return kind.fit
    if kind.fit == "whole":
        raise ConfigError(
            f"{kind.name} reads whole frames in their proportions, not fitted by {settings.fit}: "
            "leave --fit out"
        )
    return settings.fit  # type: ignore[return-value]  # checked against its choices when resolved


def _dtype(settings: FeaturesSettings, kind: BackboneKind, stored: Spec | None) -> Any:
    if kind.dtype == "uint8" or settings.dtype != "auto":
        return "uint8" if kind.dtype == "uint8" else settings.dtype
    return stored.dtype if stored is not None and stored.dtype != "uint8" else kind.dtype


def _precision(settings: FeaturesSettings, stored: Spec | None, model: Model) -> Any:
    if settings.precision != "auto":
        return settings.precision
    if stored is not None:
        if stored.precision not in engine.precisions():
            raise ConfigError(
                f"{settings.store} holds {stored.precision} features, which this machine cannot "
                "compute: run where it can, or use --precision float32 with another STORE"
            )
        return stored.precision
    return model.precision or engine.auto_precision()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 26 else f"{text[:23]}…"
