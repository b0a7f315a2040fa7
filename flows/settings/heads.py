"""Settings of the list of heads."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsSettings:
    """Every head of the zoo: what it reads, what it is, its options and presets."""

    head: str = setting("", "one head, with all its options", metavar="NAME")
