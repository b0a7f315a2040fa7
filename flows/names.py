"""What a store is called in the Prefect UI: a label that people know it by, and an identity."""

from __future__ import annotations

import hashlib
import os
import re

_DIGITS = 8


def address(place: str) -> str:
    """The whole address of a store or folder: its URL, or its absolute path.

    >>> address("s3://bucket/clips.zarr/")
    's3://bucket/clips.zarr'
    >>> address("file:///data/clips.zarr")
    '/data/clips.zarr'
    """
    path = place.removeprefix("file://")
    return path.rstrip("/") if "://" in path else os.path.abspath(os.path.expanduser(path))


def label(place: str) -> str:
    """The last part of an address in lower-case letters, digits and dashes, as Prefect wants keys.

    >>> label("s3://bucket/My Store.zarr")
    'my-store'
    >>> label("/data/shards/*.zarr")
    'shards'
    """
    parts = place.rstrip("/").rsplit("/", 2)[-2:][::-1]
    return next(filter(None, (_slug(part.removesuffix(".zarr")) for part in parts)), "store")


def named(place: str) -> str:
    """Label and identity: stores of one base name in two places have two names.

    >>> named("s3://bucket/clips.zarr") == named("s3://other/clips.zarr")
    False
    """
    digest = hashlib.sha256(address(place).encode()).hexdigest()
    return f"{label(place)}-{digest[:_DIGITS]}"


def key(kind: str, place: str) -> str:
    """The key of an artifact of this kind about this store or folder.

    >>> key("failures", "s3://bucket/My Store.zarr")
    'failures-my-store-324efffd'
    """
    return f"{_slug(kind)}-{named(place)}"


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")
