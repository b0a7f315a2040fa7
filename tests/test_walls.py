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
        "pipeline.predict",
        "pipeline.report",
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
        "pipeline.predict",
        "pipeline.report",
    },
    "pipeline/predict": {
        "zarr",
        "prefect",
        "dask",
        "distributed",
        "store",
        "flows",
        "pipeline.report",
    },
    "pipeline/report": {
        "cv2",
        "zarr",
        "prefect",
        "dask",
        "distributed",
        "keras",
        "store",
        "flows",
        "pipeline.predict",
    },
    "pipeline": {"store", "flows", "zarr", "prefect", "dask", "distributed"},
    "store": {"pipeline", "flows", "cv2", "tensorflow", "keras", "prefect", "dask", "distributed"},
    "flows/extract": {"flows.train", "flows.schedule", "flows.cli", "keras"},
    "flows/cli": {"keras", "tensorflow", "torch", "jax"},
}
# The one file of a room that is for what its room may not import.
DOORS = {
    "store/tf_dataset.py": {"tensorflow"},
    "store/torch_blocks.py": {"torch"},
    "store/torch_dataset.py": {"torch"},
}
FRAMEWORKS = {"tensorflow", "jax", "torch"}
PACKAGES = ("pipeline", "store", "flows")

Graph = dict[str, set[str]]


def imports_of(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(room: str, root: Path = ROOT) -> list[Path]:
    path = root / room
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def import_graph(root: Path) -> Graph:
    """Module → the modules of `PACKAGES` that it imports, imports inside functions counted.

    `from a import b` is an import of the module `a.b` where there is one, else of `a`.
    """
    modules = {}
    for path in (path for package in PACKAGES for path in files_of(package, root)):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = imports_of(path)
    graph: Graph = {}
    for module, names in modules.items():
        imported = {name for name in names if name in modules}
        from_packages = {name.rpartition(".")[0] for name in imported if name.count(".")}
        plain = names - imported
        used = {name.rpartition(".")[0] for name in plain} & modules.keys()
        graph[module] = (imported - from_packages | used) - {module}
    return graph


def circles_of(graph: Graph) -> list[list[str]]:
    """The groups of nodes that reach each other, each sorted."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    reach = {node: reached(node) for node in graph}
    on_one = [node for node in sorted(graph) if node in reach[node]]
    groups = {
        tuple(other for other in on_one if other in reach[node] and node in reach[other])
        for node in on_one
    }
    return [list(group) for group in sorted(groups)]


def rooms_of(graph: Graph) -> Graph:
    """The same with the modules of a room of `flows` as one node."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    rooms: Graph = {}
    for module, names in graph.items():
        if module.startswith("flows."):
            others = {room(name) for name in names if name.startswith("flows.")}
            rooms.setdefault(room(module), set()).update(others - {room(module)})
    return rooms


@pytest.mark.parametrize("room", WALLS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = files_of(room)
    assert files
    for path in files:
        for name in imports_of(path):
            for wall in WALLS[room] - DOORS.get(path.relative_to(ROOT).as_posix(), set()):
                assert not f"{name}.".startswith(f"{wall}."), f"{path} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles_of(import_graph(ROOT)) == []


def test_the_rooms_of_flows_have_arrows_one_way_and_the_command_line_on_top() -> None:
    rooms = rooms_of(import_graph(ROOT))
    assert circles_of(rooms) == []
    assert {room for room, names in rooms.items() if "flows.cli" in names} == {"flows.__main__"}


def test_a_circle_is_found_also_through_an_import_inside_a_function(tmp_path: Path) -> None:
    sources = {
        "pipeline/heads/one.py": "from pipeline.heads import two\n",
        "pipeline/heads/two.py": "def late():\n    from pipeline.heads.one import name\n",
        "pipeline/heads/three.py": "import pipeline.heads.one\n",
        "flows/cli/up.py": "import flows.train.down\n",
        "flows/train/down.py": "def late():\n    import flows.cli.side\n",
        "flows/cli/side.py": "",
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    graph = import_graph(tmp_path)
    assert circles_of(graph) == [["pipeline.heads.one", "pipeline.heads.two"]]
    assert circles_of(rooms_of(graph)) == [["flows.cli", "flows.train"]]


def test_only_the_engine_names_a_framework() -> None:
    for room in ("pipeline", "store", "flows"):
        for path in files_of(room):
            if path.parent == ROOT / "pipeline" and path.stem.startswith("engine"):
                continue
            named = {name.split(".")[0] for name in imports_of(path)} & FRAMEWORKS
            named -= DOORS.get(path.relative_to(ROOT).as_posix(), set())
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
        "for words in (['--help'], *([name, '--help'] for name in flows.cli.COMMANDS)):\n"
        "    try: flows.cli.main.main(words)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "heavy = {'keras', 'tensorflow', 'cv2', 'zarr', 'prefect', 'dask', 'pandas', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_the_modules_of_the_command_line_load_no_keras() -> None:
    names = [path.stem for path in files_of("flows/cli") if path.stem != "__init__"]
    code = (
        f"import importlib, sys\n"
        f"for name in {names}: importlib.import_module('flows.cli.' + name)\n"
        "heavy = {'keras', 'tensorflow', 'torch', 'jax'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


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
