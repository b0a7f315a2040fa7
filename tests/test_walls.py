"""The rooms' walls: who may import what, held against the code (the table in docs/architecture)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# room → top-level packages (ours by dotted path) that it may not import, lazily or not
WALLS = {
    "pipeline/spec.py": {
        "pipeline.features",
        "pipeline.heads",
        "pipeline.engine",
        "store",
        "flows",
        "numpy",
        "keras",
        "cv2",
        "zarr",
        "prefect",
        "dask",
        "distributed",
    },
    "pipeline/engine.py": {
        "pipeline.features",
        "pipeline.heads",
        "store",
        "flows",
        "zarr",
        "prefect",
        "dask",
        "distributed",
    },
    "pipeline/features": {
        "zarr",
        "prefect",
        "dask",
        "distributed",
        "store",
        "flows",
        "pipeline.heads",
    },
    "pipeline/heads": {
        "cv2",
        "av",
        "zarr",
        "prefect",
        "dask",
        "distributed",
        "store",
        "flows",
        "pipeline.features",
    },
    "pipeline/predict/prediction.py": {"zarr", "prefect", "dask", "distributed", "store", "flows"},
    "pipeline/report": {"cv2", "zarr", "prefect", "dask", "distributed", "keras", "store", "flows"},
    "pipeline": {"store", "flows", "zarr", "prefect", "dask", "distributed"},
    "store": {"pipeline", "flows", "cv2", "tensorflow", "keras", "prefect", "dask", "distributed"},
}
FRAMEWORKS = {"tensorflow", "jax", "torch"}


def imports_of(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files_of(room: str) -> list[Path]:
    place = ROOT / room
    return [place] if place.suffix == ".py" else sorted(place.rglob("*.py"))


@pytest.mark.parametrize("room", WALLS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = files_of(room)
    assert files
    for path in files:
        for name in imports_of(path):
            for wall in WALLS[room]:
                assert not f"{name}.".startswith(f"{wall}."), f"{path} imports {name}"


def test_only_the_engine_names_a_framework() -> None:
    for room in ("pipeline", "store", "flows"):
        for path in files_of(room):
            if path in (ROOT / "pipeline/engine.py", ROOT / "pipeline/engine_jax.py"):
                continue
            named = {name.split(".")[0] for name in imports_of(path)} & FRAMEWORKS
            assert not named, f"{path} imports {named}"


def test_training_loads_neither_opencv_nor_the_backbone_nor_a_store_engine() -> None:
    code = (
        "import sys, pipeline.heads.training, pipeline.heads.saved, pipeline.heads.zoo\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('cv2', 'av', 'zarr', 'prefect', 'dask')"
        " or m.startswith('pipeline.features')]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_list_of_heads_and_a_leaderboard_load_no_keras() -> None:
    code = (
        "import sys, pipeline.heads.zoo, pipeline.heads.compare, pipeline.heads.repeats\n"
        "assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)\n"
        "pipeline.heads.zoo.head_kind('gru').configure({'units': '8'})\n"
        "assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_command_line_imports_nothing_heavy_for_help() -> None:
    code = (
        "import sys, flows.cli.main\n"
        "try: flows.cli.main.main(['features', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'keras', 'tensorflow', 'cv2', 'zarr', 'prefect', 'dask', 'pandas', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_every_warning_is_of_a_category_of_ours():
    """The command line gives those as one line; Python's own would show a file and a line of code."""
    plain = []
    for path in (
        path for room in ("pipeline", "store", "flows") for path in (ROOT / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                named = [word.arg for word in node.keywords]
                if len(node.args) < 2 and "category" not in named:
                    plain.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert plain == []
