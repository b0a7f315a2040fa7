"""Examines the whole corpus and writes its table: `docs/frames.md`.

python -m tests.frames.table
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.frames.comparing import LEVELS, SECONDS
from tests.frames.corpus import ALL, HERE, Examined, opened
from tests.frames.paths import RULES
from tests.frames.recipes import RECIPES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frames.md"
_BEGIN = "| clip | what is special | codec, container | frames | declared | result |"


def main() -> int:
    if not HERE:
        print("ffmpeg and ffprobe are not installed: apt-get install ffmpeg", file=sys.stderr)
        return 1
    examined = []
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as corpus:
        for recipe in RECIPES:
            examined.append(corpus.examine(recipe))
            for text, cells in examined[-1].differences().items():
                known = text.split(":")[0] in recipe.apart
                print(f"{recipe.name}: {'known: ' * known}{text} ({', '.join(cells)})")
    PAGE.write_text(page(examined), encoding="utf-8")
    wrong = [one for one in examined if one.kinds() - set(one.recipe.apart)]
    print(f"{len(examined)} clips, {len(wrong)} of them not as ffmpeg decodes them; wrote {PAGE}")
    return 1 if wrong else 0


def page(examined: list[Examined]) -> str:
    """The page: what is compared, how far apart it was at most, and a line for each clip."""
    clips = [one for one in examined if one.reference is not None]
    cells = [cell for one in clips for cell in one.cells.values() if not cell.differences]
    levels = max((cell.levels for cell in cells), default=0.0)
    seconds = max((cell.seconds for cell in cells), default=0.0)
    return "\n".join(
        [
            *_HEAD.strip().splitlines(),
            "",
            f"In the run that wrote this page {len(clips)} clips and {len(examined) - len(clips)} "
            f"files that are none went through {len(ALL)} cells each. The largest mean difference of "
            f"colour was {levels:.1f} levels, the largest difference in time {seconds * 1000:.0f} ms.",
            "",
            _BEGIN,
            "| --- | --- | --- | ---: | ---: | --- |",
            *map(row, examined),
            "",
        ]
    )


def row(examined: Examined) -> str:
    """A clip's line of the table."""
    recipe, told = examined.recipe, examined.reference
    kinds = examined.kinds()
    if told is None:
        result = (
            f"failed: {recipe.fails.replace('|', ' or ')}"
            if not kinds
            else "wrong: " + ", ".join(sorted(kinds))
        )
        return f"| `{recipe.name}` | {recipe.trait} | none | | | {result} |"
    wrong = sorted(kinds - set(recipe.apart))
    known = [f"{kind}: {recipe.apart[kind]}" for kind in recipe.apart if kind in kinds]
    result = f"wrong: {', '.join(wrong)}" if wrong else "; ".join(known) or "as ffmpeg decodes it"
    container = told.container.split(",")[0]
    declared = told.declared or "none"
    told_by = f"{told.codec}, {container}"
    return f"| `{recipe.name}` | {recipe.trait} | {told_by} | {len(told)} | {declared} | {result} |"


def page_rows(text: str) -> list[str]:
    """The table's lines of the page."""
    _, _, table = text.partition(_BEGIN)
    return [line for line in table.splitlines()[2:] if line.startswith("|")]


_NAMED = " and ".join(", ".join(f"`{rule}`" for rule in RULES).rsplit(", ", 1))
_HEAD = f"""
# The right frames

Which frames a clip gives is checked against `ffmpeg` itself, outside our code. `tests/frames/` makes a
corpus of small clips with Debian's `ffmpeg`, by codec, container and trait; every frame carries its
number as a bar code, and marks that show which way is up. `ffmpeg` and `ffprobe` then say what is in
each file: its pictures upright, in RGB, none dropped or doubled, and their times. Against that are held

- every way on which frames leave a clip: the reader, the reader that seeks (as if every clip were a long
  one), the reader in a process of its own, and a timeline with a window to each frame;
- every rule: {_NAMED}, with counts declared that are right, absent, too low
  and too high; and with them the fits `pad`, `crop` and `squash`.

Compared are which frames come (by their index and by the number painted into them), how many, whether
they are upright, their size, their colours and their times. Colours may differ by {LEVELS:g} levels of
255 on average after the same fit, times by {SECONDS * 1000:g} ms from `ffprobe`'s, both counted from
the first frame. The frames of rule `fps` are those shown at the middles of its intervals, each once.

`make frames` examines the whole corpus and writes this page; `make test` examines a part of the clips by
some of the cells, `make test-all` all. Each clip is a table in `tests/frames/corpus.toml`.
"""


if __name__ == "__main__":
    sys.exit(main())
