"""What is added as a module of its own is registered: no head, backbone or command lies there unused."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from flows import cli
from pipeline.features import backbones
from pipeline.features.backbones import Family
from pipeline.heads import zoo
from pipeline.heads.zoo.kinds import HeadKind


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    """Every module of a package."""
    assert package.__file__
    for path in sorted(Path(package.__file__).parent.glob("[!_]*.py")):
        yield importlib.import_module(f"{package.__name__}.{path.stem}")


def declared_in(package: ModuleType, kind: type[Any]) -> list[Any]:
    """Every value of this type that a module of the package holds, alone or in a tuple."""
    found = {}
    for module in modules_of(package):
        for value in vars(module).values():
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, kind):
                    found[id(each)] = each
    return list(found.values())


def test_every_head_of_a_module_is_in_the_zoo_under_a_name_of_its_own() -> None:
    heads = declared_in(zoo, HeadKind)
    assert len(heads) > 10
    # By identity: of two heads of one name the second would take the first one's place.
    assert [head.name for head in heads if zoo.HEADS.get(head.name) is not head] == []


def test_every_family_of_a_module_is_listed_and_its_kinds_have_names_of_their_own() -> None:
    families = declared_in(backbones, Family)
    assert len(families) > 2
    kinds = [(name, kind) for family in families for name, kind in family.kinds.items()]
    assert [name for name, kind in kinds if name != kind.name] == []
    # By identity: of two kinds of one name the family that is listed first would be loaded.
    listed = set(backbones.backbone_names())
    lost = [n for n, kind in kinds if n not in listed or backbones.describe(n) is not kind]
    assert lost == []


def test_every_module_of_the_command_line_with_settings_is_a_command() -> None:
    commands = [cli.module_of(name) for name in cli.COMMANDS]
    assert len(commands) == len(set(commands))
    with_settings = [module for module in modules_of(cli) if hasattr(module, "EXAMPLES")]
    assert set(with_settings) == set(commands)
    for module in commands:
        assert module.Settings.__doc__
        assert callable(module.run)
