"""`pixels-once doctor`: is this machine fit for a run?"""

from __future__ import annotations

import sys
from dataclasses import asdict

from rich.text import Text

from flows.checks.doctor import examine
from flows.cli.terminal import console, print_json
from flows.server.lifetime import quiet_prefect
from flows.settings import DoctorSettings

_SIGNS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("BAD ", "bold red")}


def run(settings: DoctorSettings, *, json: bool) -> int:
    """Print each finding as it is made; status 4 where a run would fail."""
    quiet_prefect()
    lines = []
    out = console()
    for line in examine(settings):
        lines.append(line)
        if json:
            continue
        sign, style = _SIGNS[line.state]
        text = Text.assemble((sign, style), f"  {line.area:<9} {line.found}")
        out.print(text, soft_wrap=True)
        if line.remedy:
            out.print(Text(f"      → {line.remedy}"), soft_wrap=True)
        sys.stdout.flush()
    bad = sum(line.state == "bad" for line in lines)
    if json:
        print_json({"bad": bad, "lines": [asdict(line) for line in lines]})
        return 4 if bad else 0
    if bad:
        out.print(f"{bad} to mend: see the lines marked →", style="bold")
    else:
        out.print("this machine is ready", style="bold")
        print("next: make features VIDEOS=your/clips STORE=clips.zarr")
    return 4 if bad else 0
