"""Writes what follows from other files: two pages of the documentation, one table of the README.

    python -m benchmarks.pages

`docs/cli.md` from the settings of every command; `docs/performance.md` and the README's table from
`benchmarks/results/*.json`, with the words at the head of each benchmark. MkDocs calls this before
every build.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.DOTALL)
"""The README's table, between two comments."""


def main() -> None:
    sys.path.insert(0, str(ROOT))
    table = "\n".join(glance()) + "\n"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = {
        "docs/cli.md": cli_page(),
        "docs/performance.md": performance_page(),
        "README.md": FIGURES.sub(lambda _: table, readme, count=1),
    }
    for name, text in made.items():
        page = ROOT / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


NAVIGATION = {
    "Begin": ("index", "quickstart", "faq"),
    "Use": ("cli", "heads", "results", "resume", "operations", "scale", "performance"),
    "Understand": ("architecture", "format", "dependencies"),
}


def on_config(config: Any) -> Any:
    """MkDocs' hook: write the pages, and list those that are there, in the order of reading."""
    main()
    docs = ROOT / "docs"
    known = {name for names in NAVIGATION.values() for name in names}
    more = tuple(sorted(page.stem for page in docs.glob("*.md") if page.stem not in known))
    config["nav"] = [
        {title: [f"{name}.md" for name in names if (docs / f"{name}.md").exists()]}
        for title, names in (NAVIGATION | ({"More": more} if more else {})).items()
    ]
    return config


def cli_page() -> str:
    """Every command, its examples and settings, from the code that parses them."""
    from flows.cli import EXAMPLES
    from flows.settings import COMMANDS

    lines = [
        "# The command line",
        "",
        "Every command is `pixels-once COMMAND --flag value`, and `make COMMAND FLAG=value` for those "
        "with a target. Each also takes `--config FILE` (TOML, one table per command), `--json` (the "
        "result as one JSON object) and `--traceback`. Settings come from defaults, then the file, the "
        "environment (`PIXELS_ONCE_FEATURES_STORE=…`), then flags. `NO_COLOR` is respected.",
        "",
        "Exit status: 0 done · 1 a mistake that you can mend · 2 usage · 3 over `--max-failed` · "
        "4 the environment · 5 not promoted · 130 Ctrl-C · 143 SIGTERM.",
        "",
    ]
    for name, settings in COMMANDS.items():
        words = " ".join((settings.__doc__ or "").split())
        lines += [f"## {name}", "", _cell(words), ""]
        if name in EXAMPLES:
            examples = [line.strip() for line in EXAMPLES[name].strip().splitlines()]
            lines += ["```{.sh .no-run}", *examples, "```", ""]
        lines += ["| setting | default | what it does |", "| --- | --- | --- |"]
        for item in fields(settings):
            help_text = str(item.metadata["help"])
            if choices := [choice for choice in item.metadata.get("choices", ()) if choice]:
                help_text += f" ({', '.join(choices)})"
            flag = f"`--{item.name.replace('_', '-')}`"
            if item.metadata.get("file_only"):
                flag = f"`{item.name}` (file only)"
            lines.append(f"| {flag} | {_default(item.default)} | {_cell(help_text)} |")
        lines.append("")
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value is MISSING or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def performance_page() -> str:
    """At a glance, then a section per benchmark that was run: what it compares, and its figures."""
    lines = [
        "# Performance",
        "",
        "Measured, not estimated: every figure below comes from a file in `benchmarks/results`, written "
        "by the benchmark of the same name. `make bench` runs most of them on your machine, "
        "`python -m benchmarks.NAME` any one. What stands beside ours is written in the benchmark, "
        "and runs in the same conditions, in turn with ours. The kept figures are from two cores of a "
        "shared machine without a GPU: read ratios rather than rates.",
        "",
        "## At a glance",
        "",
        *glance(),
        "",
    ]
    for title, names in CHAPTERS.items():
        parts = [line for name in names if _kept(name) for line in _section(name)]
        lines += [f"## {title}", "", *parts] if parts else []
    return "\n".join(lines)


CHAPTERS = {
    "Stage one": ("endtoend", "engine", "seeking", "isolation", "fixed", "memory"),
    "Stage two": ("epoch", "training", "losses", "timeline"),
    "The store": ("store", "rows", "similar", "report"),
    "Damage": ("fuzz",),
}


def glance() -> list[str]:
    """The table of the README and of the performance page, from the figures that were kept."""
    from benchmarks import endtoend, engine, results_page
    from benchmarks.alternating import rates, ratio

    def median(ways: dict[str, Any], way: str) -> float:
        return statistics.median(rates(ways, way))

    # Rows are of whole runs: one with `--only` or of fewer ways has no peer to stand beside.
    rows = []
    if figures := _kept("endtoend"):
        ways = figures["ways"]
        rows.append(
            f"| stage one, clips to store | {median(ways, 'ours'):.0f} frames/s | a loop of `predict` "
            f"per frame: {median(ways, 'tutorial'):.1f} ({ratio(ways, 'ours', 'tutorial'):.1f} ×); "
            f"decode, then `tf.function`: {median(ways, 'plain'):.1f} "
            f"({ratio(ways, 'ours', 'plain'):.1f} ×); decoding alone, then the "
            f"CNN alone: ours takes {endtoend.of_sum(ways):.2f} of that time | `endtoend` |"
        )
    if figures := _kept("engine"):
        ways = figures["ways"]
        best, ours = engine.best_float32(ways), engine.ours_of(ways)
        precision = "bfloat16" if ours == "ours" else "float32"
        bare = f"; OpenVINO without our code: {median(ways, 'bare'):.0f}" if "bare" in ways else ""
        rows.append(
            f"| the CNN alone | {median(ways, ours):.0f} frames/s in {precision} | TensorFlow's best "
            f"float32: {median(ways, best):.0f} ({ratio(ways, ours, best):.1f} ×){bare} | `engine` |"
        )
    if figures := _kept("seeking"):
        rows.append(
            f"| 40 frames of a clip of {figures['frames']:,} | "
            f"{statistics.median(figures['ratios']):.0%} of the CPU time of reading it through | "
            f"{'the same' if figures['same'] else 'other'} frames, pixel for pixel | `seeking` |"
        )
    if nothing := _kept("fixed").get("nothing"):
        seconds = statistics.median(one["wall_s"] for one in nothing["rounds"]["ours"])
        rows.append(
            f"| a run that finds {nothing['clips']:,} clips done | {seconds:.0f} s | importing Prefect, "
            f"Dask and Zarr and running an empty flow: ours takes {nothing['medians']['wall_s']:.2f} "
            "of that (most of either is Prefect's temporary server) | `fixed` |"
        )
    if clips := _kept("fixed").get("clips"):
        rows.append(
            f"| Prefect, Dask and commits | {clips['share_of_cnn']:.1%} of a batch's CNN time | | "
            "`fixed` |"
        )
    figures = _kept("training")
    if set(figures.get("ways", ())) >= {"ours", "default", "keras32"}:
        ways = figures["ways"]
        rows.append(
            f"| training an LSTM of {figures['units']} | {median(ways, 'ours'):.1f} clips/s | Keras' "
            f"default `fit`: {median(ways, 'default'):.1f} ({ratio(ways, 'ours', 'default'):.1f} ×); "
            f"Keras' layer at our batch: {median(ways, 'keras32'):.1f} "
            f"({ratio(ways, 'ours', 'keras32'):.1f} ×) | `training` |"
        )
    if figures := _kept("epoch"):
        ways = figures["ways"]
        rows.append(
            f"| an epoch of the GRU from the store | {median(ways, 'ours'):,.0f} clips/s | a `.npy` per "
            f"clip and a generator: {median(ways, 'npy'):.0f} ({ratio(ways, 'ours', 'npy'):.1f} ×) | "
            "`epoch` |"
        )
    if figures := _kept("rows"):
        steps = {
            step: statistics.median(one["wall_s"] for one in rounds)
            for step, rounds in figures["steps"].items()
        }
        rows.append(
            f"| a store of {figures['rows']:,} rows | opens in {steps['open']:.1f} s, its table in "
            f"{steps['table']:.0f} s | a run is planned in {steps['plan']:.0f} s | `rows` |"
        )
    if figures := _kept("similar"):
        rows.append(
            f"| the nearest of {figures['clips']:,} clips | "
            f"{statistics.median(figures['seconds']):.0f} s, exactly | | `similar` |"
        )
    if figures := _kept("fuzz"):
        states = figures["states"]
        rows.append(
            f"| {figures['clips']} broken clips | {states.get('ready', 0)} ready, "
            f"{states.get('failed', 0)} failed with a reason | "
            f"{'; '.join(figures['faults']) or 'the run ends by itself'} | `fuzz` |"
        )
    if figures := _kept("memory"):
        rows.append(
            f"| {figures['clips']:,} clips in one run | memory since clip 200: a worker's "
            f"{figures['shares']['worker'] - 1:+.1%}, the flow's {figures['shares']['flow'] - 1:+.1%} "
            "| | `memory` |"
        )
    if figures := _kept("heads").get("demo"):
        best, plain = results_page.best_and_plain(figures["lines"])
        rows.append(
            "| built-in clips, in pairs that differ only in the order of time | "
            f"{best['top1']:.2f} top-1 by {results_page.name_of(best)}, chosen on validation | an "
            f"average over frames: {plain['top1']:.2f} | `results_page` |"
        )
    return ["| | ours | beside | `python -m benchmarks.` |", "| --- | --- | --- | --- |", *rows]


def _section(name: str) -> list[str]:
    module = importlib.import_module(f"benchmarks.{name}")
    told = [
        part.replace("\n", " ")
        for part in (module.__doc__ or name).strip().split("\n\n")
        if not part.startswith(" ")
    ]
    figures = _kept(name)
    lines = [f"### {told[0].rstrip('.')}", ""]
    lines += [line for part in told[1:] for line in (_cell(part), "")]
    for part in module.shown(figures).split("\n\n"):
        # What a terminal shows without a capital and a full stop is a sentence on a page.
        lines += [part if part.startswith("|") else f"{part[0].upper()}{part[1:]}.", ""]
    if machine := figures.get("machine"):
        words = ", ".join(f"{k.replace('_', ' ')} {_number(v)}" for k, v in machine.items())
        lines += [f"Measured with: {words}.", ""]
    return lines


def _kept(name: str) -> dict[str, Any]:
    """What a benchmark has left in its file; empty where it was never run."""
    path = RESULTS / f"{name}.json"
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return figures


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
