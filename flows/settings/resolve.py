"""How settings are declared and resolved. No module of this room imports anything heavy.

A TOML file (`--config`), the environment (`PIXELS_ONCE_FEATURES_VIDEOS=…`) and flags (`--videos …`)
override the defaults, in that order.

`tree` maps the name of every command, in whatever order, to its dataclass of settings.
"""

from __future__ import annotations

import argparse
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any, NoReturn

from flows.encoding import is_utf8
from pipeline.errors import ConfigError, nearest

LARGEST_SEED = 2**32 - 1
MOST_PROCESSES = 4096
_METAVARS: dict[type, str] = {int: "N", float: "X"}


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    least: float = 0,
    most: float | None = None,
) -> Any:
    """A dataclass field with the words that `--help` prints for it.

    least, most: the bounds of a number, inclusive. Numbers are never negative unless `least` is.
    """
    named = metavar or _METAVARS.get(type(default), "VALUE")
    metadata = {"help": help, "choices": choices, "metavar": named, "least": least, "most": most}
    return field(default=default, metadata=metadata)


ENVIRONMENT_PREFIX = "PIXELS_ONCE_"
Tree = Mapping[str, type[Any]]
# Read elsewhere: they are no settings of a command.
_OTHER_VARIABLES = {
    "PIXELS_ONCE_CACHE",
    "PIXELS_ONCE_FAULTS",
    "PIXELS_ONCE_SCRATCH",
    "PIXELS_ONCE_SHARED",
    "PIXELS_ONCE_THREADS",
}


def table_setting(help: str) -> Any:
    """A dataclass field of a table in the config file, which has no flag."""
    return field(default_factory=dict, metadata={"help": help, "file_only": True})


class Parser(argparse.ArgumentParser):
    """argparse that never guesses a flag from its prefix."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one sentence instead of the whole usage."""
        self.exit(2, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")


def unknown_flag(word: str, command: str, settings: type[Any]) -> str:
    """The error message for a word on the command line that is no flag of the command."""
    flag = word.split("=")[0]
    known = [f"--{_dashed(item.name)}" for item in fields(settings)]
    if not word.startswith("-"):
        return f"{command} takes no argument {word!r}: every setting is a flag, e.g. {known[0]}"
    return (
        f"unknown flag {flag}{nearest(flag, [*known, '--config', '--json'])}\n"
        f"See `pixels-once {command} --help`."
    )


def add_flags(parser: argparse.ArgumentParser, settings: type[Any]) -> None:
    """Give the parser one flag for each of the settings."""
    for item in fields(settings):
        if item.metadata.get("file_only"):
            continue
        default = item.default
        text = item.metadata["help"].replace("%", "%%")
        if default not in ("", 0, 0.0, False) and "default" not in text:
            off = f"yes; off: --no-{_dashed(item.name)}"
            text += f" (default: {off if default is True else default})"
        options: dict[str, Any] = {
            "dest": item.name,
            "help": text,
            "default": argparse.SUPPRESS,
            "type": parser_of(item),
        }
        if item.metadata["choices"]:
            options["choices"] = item.metadata["choices"]
            options["metavar"] = f"{{{','.join(filter(None, item.metadata['choices']))}}}"
        else:
            options["metavar"] = item.metadata["metavar"]
        if item.type == "bool":
            # --flag, --flag=no and --no-flag all work, so that `make … FLAG=1` can pass any setting
            options |= {"nargs": "?", "const": True, "metavar": "yes|no"}
            parser.add_argument(
                f"--no-{_dashed(item.name)}",
                dest=item.name,
                action="store_false",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
        parser.add_argument(f"--{_dashed(item.name)}", **options)


def resolve(
    tree: Tree,
    command: str,
    flags: Mapping[str, Any],
    *,
    config: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Any:
    """The command's settings: defaults, then the config file, the environment, the flags.

    Raises `ConfigError` on an unknown key or a value of the wrong type; it suggests the nearest key.
    """
    values = _from_file(tree, command, config) if config else {}
    values |= _from_environment(tree, command, environment)
    settings = tree[command](**(values | dict(flags)))
    check_settings(settings)
    return settings


def check_settings(settings: Any) -> None:
    """Raise `ConfigError` for a setting outside of its choices or bounds; the first is named."""
    for item in fields(settings):
        require_sane(item, getattr(settings, item.name))


def require_sane(item: Field[Any], value: Any) -> None:
    """Raise `ConfigError` for a value outside of its setting's choices or bounds."""
    choices = item.metadata.get("choices", ())
    if choices and value not in choices:
        raise ConfigError(
            f"{item.name} is {value!r}: choose {', '.join(choices)}" + nearest(str(value), choices)
        )
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{item.name} holds a NUL character: take it out")
    if isinstance(value, str) and not is_utf8(value):
        raise ConfigError(f"{item.name} is {value!r}, which is not UTF-8: rename what it names")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    least, most = item.metadata.get("least", 0), item.metadata.get("most")
    if not math.isfinite(value):
        raise ConfigError(f"{item.name} is {value}: give a finite number")
    if value < least or (most is not None and value > most):
        bounds = f"{least} or more" if most is None else f"a number from {least} to {most}"
        raise ConfigError(f"{item.name} is {value}: give {bounds}")


def require_file(name: str, path: str) -> None:
    """Raise `ConfigError` if the file that this setting names could not be written."""
    file = Path(path).absolute()
    if path and (file.is_dir() or not file.parent.is_dir()):
        raise ConfigError(f"{name} is {path}: name a file in a folder that is there")


def from_table(
    settings: type[Any], table: Mapping[str, Any], where: str, prefix: str = ""
) -> dict[str, Any]:
    """The values of a TOML table by name, each of its setting's type.

    where: what holds the table, for messages, in which its keys begin with `prefix`. Raises
    `ConfigError` on an unknown key or a value of the wrong type.
    """
    known = {_bare(item.name): item for item in fields(settings)}
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(f"{where} has an unknown key {prefix}{name}{nearest(name, known)}")
        item = known[name]
        values[item.name] = _typed(f"{prefix}{name} in {where}", str(item.type), value)
    return values


def parser_of(item: Field[Any]) -> Callable[[str], Any]:
    """What turns the text of a flag, a variable or a grid into the setting's type.

    It raises `ValueError`, or `argparse.ArgumentTypeError` for a switch.
    """
    parsers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _boolean}
    return parsers.get(str(item.type), str)


def _from_file(tree: Tree, command: str, path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            sections = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"the config file {path} does not exist: check --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {path} is not valid TOML: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        detail = getattr(error, "strerror", None) or error
        raise ConfigError(f"the config file {path!r} cannot be read: {detail}") from None
    for name, section in sections.items():
        if name not in tree:
            raise ConfigError(f"{path} has an unknown section [{name}]{nearest(name, tree)}")
        if not isinstance(section, dict):
            raise ConfigError(f"{path} sets {name}: write [{name}], and its keys below it")
    return from_table(tree[command], sections.get(command, {}), path, f"{command}.")


def _from_environment(tree: Tree, command: str, environment: Mapping[str, str]) -> dict[str, Any]:
    variables = {_variable(command, item): item for item in fields(tree[command])}
    values = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        if item := variables.get(variable):
            try:
                values[item.name] = parser_of(item)(text)
            except (ValueError, argparse.ArgumentTypeError) as error:
                raise ConfigError(f"{variable} is {text!r}: {error}") from None
            continue
        owner = [name for name in tree if variable.startswith(_variable(name))]
        if not owner or command in owner:
            known = [_variable(name, item) for name in owner or tree for item in fields(tree[name])]
            raise ConfigError(
                f"unknown variable {variable} in the environment" + nearest(variable, known)
            )
    return values


def _variable(command: str, item: Field[Any] | None = None) -> str:
    return f"{ENVIRONMENT_PREFIX}{command}_{_bare(item.name) if item else ''}".upper()


def _typed(where: str, kind: str, value: Any) -> Any:
    types: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
    }
    allowed = types.get(kind, (dict,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{where} is {value!r}: give a value of type {allowed[-1].__name__}")
    return float(value) if isinstance(value, int) and kind == "float" else value


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")


def _dashed(name: str) -> str:
    return _bare(name).replace("_", "-")


def _bare(name: str) -> str:
    """A setting's name as users write it: `from`, which Python has for itself, is a field `from_`."""
    return name.removesuffix("_")
