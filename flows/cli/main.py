"""The command line: one small parser per command, which imports what it needs only when it runs.

Standard output carries the result, standard error everything else. Exit status: 0 done · 1 the
user's mistake · 2 usage · 3 over --max-failed · 4 the environment · 5 not promoted · 130 Ctrl-C ·
143 SIGTERM.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from flows.encoding import require_utf8_folder, use_utf8
from flows.server.loopback import spare_loopback
from flows.settings import COMMANDS
from flows.settings.resolve import Parser, add_flags, nearest, resolve, unknown_flag
from pipeline.errors import PixelsError

EXAMPLES = {
    "features": """
      pixels-once features --videos clips/ --store clips.zarr --weights imagenet
      pixels-once features --videos clips/ --store clips.zarr --dry-run
      pixels-once features --videos clips/ --store clips.zarr --retry timed_out""",
    "train": """
      pixels-once train --store clips.zarr --head gru
      pixels-once train --store clips.zarr --head lstm --units 512 --name wide --overwrite
      pixels-once train --store clips.zarr --head gru --seeds 3""",
    "sweep": """
      pixels-once sweep --store clips.zarr
      pixels-once sweep --store clips.zarr --heads "lstm gru" --grid "units=128,512 seed=0,1" """,
    "compare": "\n      pixels-once compare --runs runs",
    "predict": """
      pixels-once predict --run runs/gru-clips --video new.mp4
      pixels-once predict --run runs/gru-clips --video folder/ --top 3 --json""",
    "export": "\n      pixels-once export --run runs/gru-clips --format openvino",
    "heads": """
      pixels-once heads
      pixels-once heads --head transformer""",
    "show": "\n      pixels-once show --store clips.zarr",
    "report": "\n      pixels-once report --store clips.zarr --runs runs --out report.html",
    "similar": """
      pixels-once similar --store clips.zarr --video new.mp4
      pixels-once similar --store clips.zarr --video Serve/v_Serve_g01_c01.mp4 --top 5
      pixels-once similar --store clips.zarr""",
    "doctor": """
      pixels-once doctor
      pixels-once doctor --weights inception.h5 --store /data/clips.zarr""",
    "scan": """
      pixels-once scan --videos clips/
      pixels-once scan --videos clips/ --csv clips.csv --json""",
    "dataset": """
      pixels-once dataset
      pixels-once dataset --name ucf101-top5 --dir data/top5""",
    "verify": """
      pixels-once verify --store clips.zarr
      pixels-once verify --store clips.zarr --repair
      pixels-once verify --store clips.zarr --sample 20""",
    "forget": """
      pixels-once forget --store clips.zarr --gone
      pixels-once forget --store clips.zarr --clips 'fight/v_Fight_g01*' --dry-run""",
    "freeze": """
      pixels-once freeze --store clips.zarr --name 2026
      pixels-once freeze --store clips.zarr --name cameras-7-8 --clips '*/cam7_*,*/cam8_*'
      pixels-once freeze --store clips.zarr""",
    "refresh": "\n      pixels-once refresh --config refresh.toml",
    "serve": """
      pixels-once serve --videos clips/ --store clips.zarr --cron "0 2 * * *"
      pixels-once serve --flow refresh --settings refresh.toml --interval 3600""",
    "ui": """
      pixels-once ui
      pixels-once ui --host 0.0.0.0 --database postgresql+asyncpg://prefect@db/prefect""",
    "demo": "\n      pixels-once demo",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. No traceback for a user's mistake."""
    if arguments is None:
        use_utf8()
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        print(
            f"pixels-once: unknown command {words[0]}{nearest(words[0], COMMANDS)}\n"
            "See `pixels-once --help`.",
            file=sys.stderr,
        )
        return 2
    parsed, unknown = parser.parse_known_args(words)
    options = vars(parsed)
    command = options.pop("command", None)
    if unknown:
        print(f"pixels-once: {unknown_flag(unknown[0], command)}", file=sys.stderr)
        return 2
    if command is None:
        parser.print_help()
        return 2
    config, json = options.pop("config"), options.pop("json")
    traceback = options.pop("traceback")
    spare_loopback()
    previous = _terminate_as_interrupt()
    shown, warnings.showwarning = warnings.showwarning, _said_plainly(warnings.showwarning)
    try:
        require_utf8_folder()
        settings = resolve(command, options, config=config)
        module = importlib.import_module(f"flows.cli.{command}")
        return int(module.run(settings, json=json))
    except KeyboardInterrupt as interrupt:
        print("stopped", file=sys.stderr)
        return 143 if "SIGTERM" in interrupt.args else 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # one that has no status is ours, and goes on to its traceback
        status = exit_status(error)
        if status is None or traceback:
            raise
        from pipeline.features.catalog.remote import without_secrets

        # Whatever names a URL that was given, names it without a signature or a password.
        print(f"pixels-once {command}: {without_secrets(str(error))}", file=sys.stderr)
        return status
    finally:
        warnings.showwarning = shown
        signal.signal(signal.SIGTERM, previous)


def _said_plainly(show: Any) -> Any:
    """`warnings.showwarning` that gives our own warnings as one line each, without their place."""

    def said(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if category.__module__.startswith(("pipeline.", "store.")):
            print(f"note: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **more)

    return said


def exit_status(error: BaseException) -> int | None:
    """The status of an error that a user can mend, or None for one that is ours (a traceback)."""
    status = getattr(error, "exit_status", None)
    if isinstance(status, int):
        return status
    if isinstance(error, PixelsError):
        return 1
    import store

    environment = (store.StoreUnwritable, store.LeaseLost)
    if isinstance(error, environment):
        return 4
    if isinstance(error, store.StoreError):
        return 1
    return 4 if isinstance(error, OSError) and error.errno is not None else None


def _terminate_as_interrupt() -> Any:
    def handle(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    return signal.signal(signal.SIGTERM, handle)


def _parser() -> Parser:
    common = Parser(add_help=False)
    group = common.add_argument_group("every command")
    group.add_argument(
        "--config",
        default="",
        metavar="FILE",
        help="a TOML file of settings, one table per command",
    )
    group.add_argument("--json", action="store_true", help="print the result as one JSON object")
    group.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser = Parser(
        prog="pixels-once",
        description="Clips become masked feature sequences once; heads train from them all day.",
        epilog="Settings come from defaults, then --config, the environment "
        "(PIXELS_ONCE_FEATURES_STORE=…), then flags.",
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", parser_class=Parser
    )
    for name, settings in COMMANDS.items():
        text = (settings.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            parents=[common],
            epilog=f"examples:{EXAMPLES.get(name, '')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_flags(command, name)
    return parser
