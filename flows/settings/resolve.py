"""Settings from a TOML file, the environment and flags, over the defaults of `flows.settings`."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn

from flows.encoding import is_utf8
from flows.settings import COMMANDS
from pipeline.errors import ConfigError

ENVIRONMENT_PREFIX = "PIXELS_ONCE_"
# Read elsewhere: they are no settings of a command.
_OTHER_VARIABLES = {
    "PIXELS_ONCE_CACHE",
    "PIXELS_ONCE_FAULTS",
    "PIXELS_ONCE_SCRATCH",
    "PIXELS_ONCE_SHARED",
    "PIXELS_ONCE_THREADS",
}


class Parser(argparse.ArgumentParser):
    """argparse that never guesses a flag from its prefix."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one sentence instead of the whole usage."""
        self.exit(2, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")


def unknown_flag(word: str, command: str | None) -> str:
    """What to say of a word on the command line that is no flag of the command."""
    flag = word.split("=")[0]
    known = [f"--{_dashed(item.name)}" for item in fields(COMMANDS[command])] if command else []
    if not word.startswith("-"):
        return f"{command} takes no argument {word!r}: every setting is a flag, e.g. {known[0]}"
    return (
        f"unknown flag {flag}{nearest(flag, [*known, '--config', '--json'])}\n"
        f"See `pixels-once {command or ''} --help`."
    )


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """A suggestion to end an error with: `: did you mean …?`, or nothing where nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean {found[0]}?" if found else ""


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Give the parser one flag for each setting of the command."""
    for item in fields(COMMANDS[command]):
        if item.metadata.get("file_only"):
            continue
        default = item.default
        text = item.metadata["help"].replace("%", "%%")
        if default not in ("", 0, 0.0, False) and "default" not in text:
            text += f" (default: {'yes' if default is True else default})"
        options: dict[str, Any] = {
            "dest": item.name,
            "help": text,
            "default": argparse.SUPPRESS,
            "type": _parser_of(item.type),
        }
        if item.metadata["choices"]:
            options["choices"] = item.metadata["choices"]
        else:
            options["metavar"] = item.metadata["metavar"] or "VALUE"
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
    command: str,
    flags: Mapping[str, Any],
    *,
    config: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Any:
    """The command's settings: defaults, then the config file, the environment, the flags.

    Raises `ConfigError` on an unknown key or a value of the wrong kind; it suggests the nearest key.
    """
    cls = COMMANDS[command]
    values: dict[str, Any] = {}
    if config:
        values |= _from_file(command, config)
    values |= _from_environment(command, environment)
    values |= flags
    settings = cls(**values)
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


def _from_file(command: str, path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            tree = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"the config file {path} does not exist: check --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {path} is not valid TOML: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        detail = getattr(error, "strerror", None) or error
        raise ConfigError(f"the config file {path!r} cannot be read: {detail}") from None
    for section in tree:
        if section not in COMMANDS:
            raise ConfigError(
                f"{path} has an unknown section [{section}]{nearest(section, COMMANDS)}"
            )
        if not isinstance(tree[section], dict):
            raise ConfigError(f"{path} sets {section}: write [{section}], and its keys below it")
    values = {key.replace("-", "_"): value for key, value in tree.get(command, {}).items()}
    kinds = {item.name: item.type for item in fields(COMMANDS[command])}
    for key, value in values.items():
        if key not in kinds:
            raise ConfigError(f"{path} has an unknown key {command}.{key}{nearest(key, kinds)}")
        values[key] = checked(f"{command}.{key} in {path}", kinds[key], value)
    return values


def _from_environment(command: str, environment: Mapping[str, str]) -> dict[str, Any]:
    prefix = f"{ENVIRONMENT_PREFIX}{command.upper()}_"
    kinds = {item.name: item.type for item in fields(COMMANDS[command])}
    names = {prefix + name.upper(): name for name in kinds}
    values = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        if variable in names:
            try:
                values[names[variable]] = _parser_of(kinds[names[variable]])(text)
            except (ValueError, argparse.ArgumentTypeError) as error:
                raise ConfigError(f"{variable} is {text!r}: {error}") from None
        elif not any(variable.startswith(f"{ENVIRONMENT_PREFIX}{c.upper()}_") for c in COMMANDS):
            known = [
                f"{ENVIRONMENT_PREFIX}{c.upper()}_{f.name.upper()}"
                for c, cls in COMMANDS.items()
                for f in fields(cls)
            ]
            raise ConfigError(
                f"unknown variable {variable} in the environment" + nearest(variable, known)
            )
        elif variable.startswith(prefix):
            raise ConfigError(
                f"unknown variable {variable} in the environment" + nearest(variable, names)
            )
    return values


def checked(where: str, kind: Any, value: Any) -> Any:
    """A value from a file, if it is of the setting's kind; raises `ConfigError` else."""
    wanted: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
    }
    allowed = wanted.get(str(kind), (dict,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{where} is {value!r}: give a value of type {allowed[-1].__name__}")
    return float(value) if isinstance(value, int) and kind == "float" else value


def _parser_of(kind: Any) -> Any:
    return {"int": int, "float": float, "bool": boolean}.get(str(kind), str)


def boolean(text: str) -> bool:
    """yes or no, as a flag or a variable of the environment says it."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")


def _dashed(name: str) -> str:
    return name.replace("_", "-")
