"""Writes the two pages of the documentation that follow from other files.

    python benchmarks/pages.py

`docs/cli.md` from the settings of every command, `docs/performance.md` from
`benchmarks/results/*.json` with the words that stand at the head of each benchmark. MkDocs calls this
before every build.
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    for name, text in {"cli.md": cli_page(), "performance.md": performance_page()}.items():
        page = ROOT / "docs" / name
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
    sys.path.insert(0, str(ROOT))
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
            lines += ["```sh no-run", *examples, "```", ""]
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
    """One section per measured benchmark: what was compared, and the figures as they were kept."""
    lines = [
        "# Performance",
        "",
        "Measured, not estimated: every figure below comes from a file in `benchmarks/results`, written "
        "by the benchmark of the same name. Run it on your machine with `python benchmarks/NAME.py`. "
        "The kept figures are from two cores of a shared machine without a GPU, where other programs "
        "ran at the same time: read ratios rather than rates, and CPU ratios rather than wall ones.",
        "",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(figures, dict):
            lines += _section(path.stem, figures)
    return "\n".join(lines)


def _section(name: str, figures: dict[str, Any]) -> list[str]:
    source = ROOT / "benchmarks" / f"{name}.py"
    text = ""
    if source.exists():
        text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    told = [part.replace("\n", " ") for part in text.split("\n\n") if not part.startswith(" ")]
    title, *rest = told or [name]
    lines = [f"## {title.rstrip('.')}", "", *[line for part in rest for line in (_cell(part), "")]]
    summary = figures.get("summary")
    if isinstance(summary, dict) and all(isinstance(v, dict) for v in summary.values()):
        unit = str(figures.get("unit", ""))
        lines += [f"| way | median, {unit} | range | ours is faster by | by CPU time |",
                  "| --- | ---: | --- | ---: | ---: |"]  # fmt: skip
        for way, one in summary.items():
            low, high = one.get("range", ("", ""))
            times, cpu = (_times(one.get(key)) for key in ("ours_times", "ours_times_by_cpu"))
            span = f"{_number(low)} to {_number(high)}"
            lines.append(f"| {way} | {_number(one.get('median'))} | {span} | {times} | {cpu} |")
        lines.append("")
    plain = [(key, value) for key, value in figures.items() if _is_plain(value)]
    if plain:
        lines += ["| figure | value |", "| --- | ---: |"]
        lines += [f"| {key.replace('_', ' ')} | {_value(value)} |" for key, value in plain]
        lines.append("")
    machine = figures.get("machine")
    if isinstance(machine, dict):
        words = ", ".join(f"{key.replace('_', ' ')} {_number(v)}" for key, v in machine.items())
        lines += [f"Measured with: {words}.", ""]
    return lines


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 12 and all(isinstance(one, int | float) for one in value)
    if isinstance(value, dict):
        return 0 < len(value) <= 8 and all(isinstance(one, int | float) for one in value.values())
    return isinstance(value, int | float | bool | str)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_number(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_number(one)}" for key, one in value.items())
    return _number(value)


def _times(value: Any) -> str:
    return f"{value:.2f} ×" if isinstance(value, int | float) else ""


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
