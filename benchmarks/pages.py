"""Writes what follows from other files: three pages of the documentation, two tables of the README.

    python -m benchmarks.pages

`docs/cli.md` from the settings of every command; `docs/performance.md` and the README's tables from
`benchmarks/results/*.json`, with the words at the head of each benchmark; `docs/beside-others.md` from
`results/ray_data.json`. MkDocs has the pages written before every build, and leaves the README alone.
"""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.DOTALL)
"""The README's table, between two comments."""
HEADS = re.compile(r"(?<=<!-- which head -->\n).*?(?=<!-- end -->)", re.DOTALL)
"""Its table of which head to begin with."""


def main() -> None:
    write_pages()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (ROOT / "README.md").write_text(with_figures(readme), encoding="utf-8")


def with_figures(readme: str) -> str:
    """The README with its tables written again."""
    from benchmarks.alternating import kept
    from benchmarks.glance import glance
    from benchmarks.results_table import which_head

    table = "\n".join(glance()) + "\n"
    heads = "\n".join(which_head(kept("streams"))) + "\n"
    readme = FIGURES.sub(lambda _: table, readme, count=1)
    return HEADS.sub(lambda _: heads, readme, count=1)


def write_pages() -> None:
    """The pages of the documentation, where they have changed."""
    from benchmarks import beside_others

    texts = {
        "cli.md": cli_page(),
        "performance.md": performance_page(),
        "beside-others.md": beside_others.with_figures(
            (ROOT / "docs" / "beside-others.md").read_text(encoding="utf-8")
        ),
    }
    for name, text in texts.items():
        page = ROOT / "docs" / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


NAVIGATION = {
    "Begin": ("index", "quickstart", "glossary", "faq"),
    "Use": (
        "cli",
        "environment",
        "heads",
        "backbones",
        "interop",
        "long-videos",
        "results",
        "resume",
        "operations",
        "gpu",
        "scale",
        "performance",
        "beside-others",
    ),
    "Understand": (
        "architecture",
        "contributing",
        "decoding",
        "frames",
        "format",
        "dependencies",
    ),
}


def on_config(config: Any) -> Any:
    """MkDocs' hook: write the pages, and list those that are there, in the order of reading."""
    sys.path.insert(0, str(ROOT))  # MkDocs loads this file by its path
    write_pages()
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
    from flows.cli import COMMANDS, module_of

    lines = [
        "# The command line",
        "",
        "Every command is `pixels-once COMMAND --flag value`, and `make COMMAND FLAG=value` for those "
        "with a target. Each also takes `--config FILE` (TOML, one table per command), `--json` (the "
        "result as one JSON object) and `--traceback`. Settings come from defaults, then the file, the "
        "[environment](environment.md) (`PIXELS_ONCE_FEATURES_STORE=…`), then flags.",
        "",
        "Exit status: 0 done · 1 user error · 2 usage · 3 over `--max-failed` · "
        "4 the environment · 5 not promoted · 130 Ctrl-C · 143 SIGTERM.",
        "",
    ]
    for name, settings in COMMANDS.items():
        words = " ".join((settings.__doc__ or "").split())
        lines += [f"## {name}", "", _cell(words), ""]
        examples = module_of(name).EXAMPLES.strip().splitlines()
        lines += ["```{.sh .no-run}", *examples, "```", ""]
        lines += ["| setting | default | what it does |", "| --- | --- | --- |"]
        for item in fields(settings):
            help_text = str(item.metadata["help"])
            if choices := [choice for choice in item.metadata.get("choices", ()) if choice]:
                help_text += f" ({', '.join(choices)})"
            flag = f"`--{item.name.removesuffix('_').replace('_', '-')}`"
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
    from benchmarks.alternating import kept
    from benchmarks.glance import glance

    lines = [
        "# Performance",
        "",
        "Measured, not estimated: every figure below comes from a file in `benchmarks/results`, written "
        "by the benchmark of the same name. `make bench` runs most of them on your machine, "
        "`python -m benchmarks.NAME` any one. What ours is compared with is in the benchmark, and "
        "both run in turn, under the same conditions. The kept figures are from two cores of a shared "
        "host without a GPU, except those under [On a GPU](#on-a-gpu): read ratios rather than rates. A "
        "ratio is the median over rounds of the ratio within a round: it need not be that of the two "
        "medians beside it.",
        "",
        "## At a glance",
        "",
        *glance(),
        "",
    ]
    for title, names in CHAPTERS.items():
        parts = [line for name in names if kept(name) for line in _section(name)]
        lines += [f"## {title}", "", *parts] if parts else []
    return "\n".join(lines)


CHAPTERS = {
    "Stage one": (
        "endtoend",
        "engine",
        "motion",
        "feed",
        "decoding",
        "seeking",
        "parts",
        "isolation",
        "worker",
        "scheduling",
        "startup",
        "fixed",
        "memory",
        "many",
        "hours",
    ),
    "Stage two": (
        *("epoch", "training", "joined", "retrain", "first_epoch", "losses", "timeline", "steps"),
    ),
    "On a GPU": ("gpu",),
    "The store": ("store", "rows", "exchange", "loaders", "similar", "report"),
    "Damage": ("fuzz",),
}


def _section(name: str) -> list[str]:
    from benchmarks.alternating import kept

    module = importlib.import_module(f"benchmarks.{name}")
    paragraphs = [
        part.replace("\n", " ")
        for part in (module.__doc__ or name).strip().split("\n\n")
        if not part.startswith(" ")
    ]
    figures = kept(name)
    lines = [f"### {paragraphs[0].rstrip('.')}", ""]
    lines += [line for part in paragraphs[1:] for line in (_cell(part), "")]
    for part in module.shown(figures).split("\n\n"):
        # What a terminal shows without a capital and a full stop is a sentence on a page.
        lines += [part if part.startswith("|") else f"{part[0].upper()}{part[1:].rstrip('.')}.", ""]
    if machine := figures.get("machine"):
        words = ", ".join(f"{k.replace('_', ' ')} {_number(v)}" for k, v in machine.items())
        lines += [f"Measured with: {words}.", ""]
    return lines


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
