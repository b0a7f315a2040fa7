"""`pixels-once doctor`: is this machine fit for a run?"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

from flows.cli.terminal import console, headline, print_json
from flows.server.home import quiet_prefect
from flows.settings.resolve import setting

_SIGNS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("BAD ", "bold red")}

EXAMPLES = """
pixels-once doctor
pixels-once doctor --weights inception.h5 --store /data/clips.zarr
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checks this host for everything that a run needs, with a remedy for each problem."""

    weights: str = setting(
        "imagenet", "the weights that runs will use: imagenet or a path", metavar="WEIGHTS"
    )
    backbone: str = setting("inception_v3", "the first stage that runs will use", metavar="NAME")
    store: str = setting("", "where a store will go: its disk is checked", metavar="PATH")
    scheduler: str = setting("", "a Dask scheduler that runs will use, tcp://…", metavar="ADDRESS")


def run(settings: Settings, *, json: bool) -> int:
    """Print each finding as it is made; status 4 where a run would fail."""
    from rich.text import Text

    from flows.checks.doctor import examine

    quiet_prefect()
    lines = []
    out = console(quiet=json)
    for line in examine(**asdict(settings)):
        lines.append(line)
        sign, style = _SIGNS[line.state]
        text = Text.assemble((sign, style), f"  {line.area:<9} {line.found}")
        out.print(text, soft_wrap=True)
        if line.remedy:
            out.print(Text(f"      → {line.remedy}"), soft_wrap=True)
        sys.stdout.flush()
    bad = sum(line.state == "bad" for line in lines)
    if json:
        print_json({"bad": bad, "lines": [asdict(line) for line in lines]})
    elif bad:
        headline(f"{bad} to mend: see the lines marked →")
    else:
        headline("this machine is ready")
        print("next: make features VIDEOS=your/clips STORE=clips.zarr")
    return 4 if bad else 0
