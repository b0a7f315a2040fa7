"""The command line: one small parser per command, whose module is imported only for it.

Standard output carries the result, standard error everything else. Exit status: 0 done · 1 the
user's mistake · 2 usage · 3 over --max-failed · 4 the environment · 5 not promoted · 130 Ctrl-C ·
143 SIGTERM.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

from flows.cli import COMMANDS, module_of, resolve
from flows.encoding import require_utf8_folder, use_utf8
from flows.notices import notice
from flows.server.home import spare_loopback
from flows.settings.resolve import Parser, add_flags, unknown_flag
from flows.stopping import interrupt, stopped_status
from pipeline.errors import exit_status, nearest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. No traceback for a user's mistake."""
    if arguments is None:
        use_utf8()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0].startswith("-"):
        return _without_command(words)
    command, *rest = words
    if command not in COMMANDS:
        return _usage(f"unknown command {command}{nearest(command, COMMANDS)}")
    parsed, unknown = _parser_of(command).parse_known_args(rest)
    if unknown:
        notice(f"pixels-once: {unknown_flag(unknown[0], command, COMMANDS[command])}")
        return 2
    options = vars(parsed)
    config, json, traceback = (options.pop(name) for name in ("config", "json", "traceback"))
    spare_loopback()
    previous = signal.signal(signal.SIGTERM, interrupt)
    shown, warnings.showwarning = warnings.showwarning, _one_line(warnings.showwarning)
    try:
        require_utf8_folder()
        settings = resolve(command, options, config=config)
        return int(module_of(command).run(settings, json=json))
    except KeyboardInterrupt as cause:
        notice("stopped")
        return stopped_status(str(cause))
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # one without a status is a bug: its traceback is shown
        status = exit_status(error)
        if status is None or traceback:
            raise
        from pipeline.features.catalog.remote import without_secrets

        # A URL is shown without its signature or password.
        notice(f"pixels-once {command}: {without_secrets(str(error))}")
        return status
    finally:
        warnings.showwarning = shown
        signal.signal(signal.SIGTERM, previous)


def _one_line(show: Any) -> Any:
    """`warnings.showwarning` that prints our own warnings as one line each, without their location."""

    def print_warning(message: Any, category: type[Warning], *location: Any, **more: Any) -> None:
        if category.__module__.startswith(("pipeline.", "store.")):
            notice(f"note: {message}")
        else:
            show(message, category, *location, **more)

    return print_warning


def _without_command(words: Sequence[str]) -> int:
    """`--help` lists the commands; without any words the list is printed, too, and it is status 2."""
    parser = Parser(
        prog="pixels-once",
        description="Extracts features from video clips once, then trains action recognition "
        "heads on them.",
        epilog="Settings come from defaults, then --config, the environment "
        "(PIXELS_ONCE_FEATURES_STORE=…), then flags.",
    )
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, settings in COMMANDS.items():
        commands.add_parser(name, help=_help_of(settings).splitlines()[0])
    _, unknown = parser.parse_known_args(words)
    if unknown:
        return _usage(f"unknown flag {unknown[0]}{nearest(unknown[0], ['--help'])}")
    parser.print_help()
    return 2


def _usage(message: str) -> int:
    notice(f"pixels-once: {message}\nSee `pixels-once --help`.")
    return 2


def _parser_of(command: str) -> Parser:
    parser = Parser(
        prog=f"pixels-once {command}",
        description=_help_of(COMMANDS[command]),
        epilog=f"examples:\n{textwrap.indent(module_of(command).EXAMPLES.strip(), ' ' * 6)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("every command")
    about_config = "a TOML file of settings, one table per command"
    group.add_argument("--config", default="", metavar="FILE", help=about_config)
    group.add_argument("--json", action="store_true", help="print the result as one JSON object")
    group.add_argument("--traceback", action="store_true", help="show where an error came from")
    add_flags(parser, COMMANDS[command])
    return parser


def _help_of(settings: type[Any]) -> str:
    return inspect.cleandoc(settings.__doc__ or "")
