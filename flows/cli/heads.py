"""`pixels-once heads`: the zoo."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from flows.cli.terminal import print_json, print_table
from flows.settings.resolve import setting

EXAMPLES = """
pixels-once heads
pixels-once heads --head transformer
"""


_FACTS = ("reads", "one_line", "source", "presets", "recipes", "few", "lr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Lists every head: what it reads, what it is, its options and presets."""

    head: str = setting("", "one head, with all its options", metavar="NAME")


def run(settings: Settings, *, json: bool) -> int:
    from pipeline.heads.config import FEW_TRAINED
    from pipeline.heads.zoo import HEADS, head_kind

    kinds = [head_kind(settings.head)] if settings.head else list(HEADS.values())
    if json:
        print_json(
            {
                kind.name: {"options": asdict(kind.config())}
                | {n: getattr(kind, n) for n in _FACTS}
                for kind in kinds
            }
        )
        return 0
    if settings.head:
        kind = kinds[0]
        print(f"{kind.name}: {kind.one_line}\nreads {' or '.join(kind.reads)} · {kind.source}")
        print_table(
            f"options of {kind.name}",
            ("option", "default", *kind.presets),
            [
                (name, _plain(default), *(_plain(p.get(name, "")) for p in kind.presets.values()))
                for name, default in asdict(kind.config()).items()
            ],
        )
        for preset, recipe in kind.recipes.items():
            training = " ".join(f"{name}={value}" for name, value in recipe.items())
            owner = f"the preset {preset}" if preset else "the default"
            print(f"{owner} brings its training: {training}")
        if kind.few:
            print(
                f"without options or a preset: the preset {kind.few} with fewer than {FEW_TRAINED:,} "
                "training clips, else the defaults (preset standard)"
            )
        return 0
    print_table(
        f"{len(kinds)} heads",
        ("head", "reads", "what it is", "presets"),
        [(k.name, " or ".join(k.reads), k.one_line, " ".join(k.presets)) for k in kinds],
    )
    print("one with its options: pixels-once heads --head NAME")
    return 0


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
