"""First stages that are code: `package.module:function`, or a name that an installed package registers.

Under the entry point group `pixels_once.backbones` a package registers a function that returns a Keras
model or a `Backbone`, or a whole `Family`. Only what the user names is imported.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
import traceback
from typing import Any

from pipeline.errors import ConfigError, did_you_mean
from pipeline.features.backbones.family import Family

GROUP = "pixels_once.backbones"

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_reference(name: str) -> bool:
    """Whether a name is written as `package.module:function`."""
    return _REFERENCE.fullmatch(name) is not None


@functools.cache
def entry_points() -> dict[str, str]:
    """Name → `package.module:attribute` of what installed packages register. Imports none of them."""
    found = importlib.metadata.entry_points(group=GROUP)
    return {point.name: point.value.partition("[")[0].strip() for point in found}


def registered_family(name: str) -> Family | None:
    """The family that a package registers under this name; None where it is a function, or not there."""
    if name not in entry_points():
        return None
    found = _attribute(entry_points()[name], name)
    if isinstance(found, Family) and name not in found.kinds:
        raise ConfigError(
            f"the package that registers backbone {name} has a family of {', '.join(found.kinds)}: "
            "register it under the names of its kinds"
        )
    return found if isinstance(found, Family) else None


def make(name: str) -> Any:
    """What the function returns: a Keras model or a `Backbone`.

    name: `package.module:function`, or a registered name. The current folder is looked in, too.
    Raises `ConfigError` where it cannot be imported, raises, or returns something else; of an error in
    the user's code it has the last line and where that was.
    """
    factory = _attribute(entry_points().get(name, name), name)
    if not callable(factory):
        raise ConfigError(
            f"{name} is no function: name one that returns a Keras model or a Backbone"
        )
    try:
        made = factory()
    except ConfigError:
        raise
    except Exception as error:
        raise _in_their_code(name, "raised", error) from None
    from pipeline.features.backbones.family import Backbone

    if isinstance(made, Backbone) or hasattr(made, "get_weights"):
        return made
    raise ConfigError(
        f"{name} returns {type(made).__name__}: return a Keras model, or a "
        "pipeline.features.backbones.family.Backbone"
    )


def source_digest(made: Any) -> bytes:
    """What identifies a user's `Backbone`: its `digest` where it has one, else its module's source."""
    digest = str(getattr(made, "digest", ""))
    if digest:
        return digest.encode()
    try:
        return inspect.getsource(inspect.getmodule(type(made)) or type(made)).encode()
    except (OSError, TypeError):
        raise ConfigError(
            f"{type(made).__name__} does not say what it computes, and has no source to be hashed: "
            "give it an attribute digest, a text that changes with its features"
        ) from None


def _attribute(reference: str, name: str) -> Any:
    module_name, _, path = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] != error.name.split(".")[0]:
            raise _in_their_code(name, "raised", error) from None
        raise ConfigError(
            f"backbone {name} cannot be imported ({error}): install its package, or run in the folder "
            "that holds it"
        ) from None
    except Exception as error:
        raise _in_their_code(name, "raised", error) from None
    for part in filter(None, path.split(".")):
        if not hasattr(found, part):
            raise ConfigError(
                f"{module_name} has no {part}: " + did_you_mean(part, _public(found), most=8)
            )
        found = getattr(found, part)
    return found


def _public(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]


def _in_their_code(name: str, did: str, error: BaseException) -> ConfigError:
    """The last line of a traceback that is the user's, and where it was."""
    last = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    here = os.path.dirname(__file__)
    theirs = [f for f in frames if not f.filename.startswith((here, "<frozen"))]
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return ConfigError(f"{name} {did} {last}{place}: mend it, and run again")
