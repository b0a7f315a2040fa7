"""Named test sets: an attribute of the group, written once per name and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store.errors import StoreMismatch
from store.writer import Writer

TEST_SETS = "test_sets"
"""Attribute: name → what the set is (`docs/format.md`); absent where there is none."""


def add_test_set(writer: Writer, name: str, values: Mapping[str, Any]) -> None:
    """Write a test set into the store. Raises `StoreMismatch` where the name is taken."""
    sets = dict(writer.attributes.get(TEST_SETS, {}))
    if name in sets:
        raise StoreMismatch(
            f"{writer.url} has a test set {name} already, and one is for good: choose another name"
        )
    writer.set_attributes(**{TEST_SETS: sets | {name: dict(values)}})
