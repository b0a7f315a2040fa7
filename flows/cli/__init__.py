"""The command line: a module per command, imported when its command runs or its help is asked for.

A command's module has `Settings` (a dataclass, whose docstring is the command's help), `EXAMPLES`
and `run(settings, json=…) -> exit status`. At import time it loads nothing heavy.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from flows.settings.resolve import resolve as _resolve

_NAMES = (
    *("features", "train", "sweep", "compare", "predict", "export", "heads", "backbones", "show"),
    *("report", "similar", "doctor", "scan", "dataset", "verify", "forget", "freeze", "refresh"),
    *("serve", "ui", "demo", "relabel", "pack", "unpack", "import", "leaks", "search"),
)


def module_of(command: str) -> ModuleType:
    # `import` is a keyword, which no module may be named.
    return importlib.import_module(f"flows.cli.{'import_' if command == 'import' else command}")


class _Settings(Mapping[str, type[Any]]):
    def __getitem__(self, command: str) -> type[Any]:
        if command not in _NAMES:
            raise KeyError(command)
        settings: type[Any] = module_of(command).Settings
        return settings

    def __contains__(self, command: object) -> bool:
        return command in _NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


COMMANDS = _Settings()
"""Command → its dataclass of settings, in the order of `--help`."""

resolve = partial(_resolve, COMMANDS)
"""A command's settings from its file, the environment and its flags: `flows.settings.resolve`."""
