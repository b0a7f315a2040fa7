"""A run of several backbones, as the settings for each store that it fills."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows.extract.own_model import is_own_model
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from pipeline.features.backbones import DEFAULT_BACKBONE, describe, family_of, is_code
from pipeline.features.backbones.model_trial import is_file

PLACE = "{backbone}"
"""Stands in a store's name for the backbone's."""

_FOR_ALL = re.compile(r"imagenet|random(:\d+)?")


def backbones_of(settings: FeaturesSettings) -> tuple[str, ...]:
    """The backbones that are asked for; ("",) where the store decides."""
    names = tuple(name for name in map(str.strip, settings.backbone.split(",")) if name)
    return names or ("",)


def each_store(settings: FeaturesSettings) -> dict[str, FeaturesSettings]:
    """The settings for each store of a run, by what stands in its name for `{backbone}`.

    Raises `ConfigError` for a backbone that is not known, where two would fill one store, and for what
    applies to one backbone alone and does not say to which.
    """
    names = backbones_of(settings)
    for name in filter(None, names):
        family_of(name if not is_file(name) else Path(name).suffix[1:])
    if len(names) == 1:
        word = word_of(names[0] or DEFAULT_BACKBONE)
        store = settings.store.replace(PLACE, word)
        return {word: replace(settings, backbone=names[0], store=store)}
    if PLACE not in settings.store:
        raise ConfigError(
            f"{len(names)} backbones fill a store each, and store is {settings.store!r}: write {PLACE} "
            f'in it, e.g. STORE="features/{PLACE}.zarr"'
        )
    words = [word_of(name) for name in names]
    for name, word in zip(names, words, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"backbone {name or DEFAULT_BACKBONE} is named twice: name it once")
        if words.count(word) > 1:
            same = " and ".join(n for n, w in zip(names, words, strict=True) if w == word)
            raise ConfigError(
                f"{same} would both fill {settings.store.replace(PLACE, word)}: give the model file "
                "another name, or each a run of its own"
            )
    weights, configs = _weights_of(names, settings), _configs_of(names, settings)
    return {
        word: replace(
            settings,
            backbone=name,
            store=settings.store.replace(PLACE, word),
            weights=weights[name],
            backbone_config=configs[name],
        )
        for name, word in zip(names, words, strict=True)
    }


def word_of(backbone: str) -> str:
    """What stands in a store's name for a backbone: its name, its file's or its function's.

    >>> word_of("models/vit.onnx"), word_of("my_models:small")
    ('vit', 'small')
    """
    if is_file(backbone):
        return Path(backbone).stem
    return backbone.rpartition(":")[2] if is_code(backbone) else backbone


def _weights_of(names: Sequence[str], settings: FeaturesSettings) -> dict[str, str]:
    """`weights` goes to each backbone that has some; a file can be those of one alone."""
    having = [name for name in names if not is_own_model(name) and describe(name).needs_weights]
    if settings.weights and not having:
        raise ConfigError(
            f"weights is {settings.weights!r}, and none of {', '.join(names)} takes weights: leave it out"
        )
    if settings.weights and len(having) > 1 and not _FOR_ALL.fullmatch(settings.weights):
        raise ConfigError(
            f"weights is {settings.weights!r}, and {' and '.join(having)} each have their own: make the "
            "store of one with it in a run of its own, which remembers it, and leave it out here"
        )
    return {name: settings.weights if name in having else "" for name in names}


def _configs_of(names: Sequence[str], settings: FeaturesSettings) -> dict[str, str]:
    """`backbone_config` goes to the one model of the user's."""
    having = [name for name in names if is_own_model(name)]
    if settings.backbone_config and len(having) != 1:
        raise ConfigError(
            f"backbone_config is {settings.backbone_config!r}, and {len(having)} of {', '.join(names)} "
            "are models of your own: write what is to be said of each into a TOML file beside it"
        )
    return {name: settings.backbone_config if name in having else "" for name in names}
