"""The documentation holds: it builds, its commands exist and run, its pages follow the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import store
from benchmarks import beside_others, pages
from flows.cli import COMMANDS, module_of
from flows.settings import resolve
from pipeline.features.backbones import DEFAULT_BACKBONE, backbone_names
from pipeline.features.backbones.keras_models import KERAS_MODELS
from pipeline.heads.zoo import HEADS
from pipeline.spec import Sampling, Spec
from store.layout import STEP_COLUMNS
from tests.flows import running

ROOT = running.ROOT
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def commands_in(text: str, *, marked: bool = True) -> list[str]:
    """The `pixels-once …` lines of the page's shell blocks, with those marked `{.sh .some-mark}`."""
    found = []
    opening = r"(?:sh|\{\.sh [^}\n]*\})" if marked else "sh"
    for block in re.findall(rf"^```{opening}\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split("  #")[0].strip()
            if line.startswith("pixels-once "):
                found.append(line)
    return found


ALL = sorted({(page.name, line) for page in PAGES for line in commands_in(page.read_text())})


def test_every_module_that_the_pages_on_the_code_name_is_there() -> None:
    paths = [f"/{path.relative_to(ROOT)}" for path in ROOT.glob("*/**/*.py")]
    for page in ("architecture", "contributing"):
        text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`([\w/]+\.py)`", text))
        assert named
        assert [
            name for name in named if not any(path.endswith(f"/{name}") for path in paths)
        ] == []


@pytest.mark.parametrize(("page", "line"), ALL)
def test_every_command_in_the_docs_exists_with_all_its_flags(page: str, line: str) -> None:
    _, *words = shlex.split(line)
    if words[0].startswith("-"):
        return
    known = {
        f"--{item.name.removesuffix('_').replace('_', '-')}" for item in fields(COMMANDS[words[0]])
    }
    known |= {"--json", "--config", "--help", "--traceback"}
    flags = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
    negated = {f"--no-{flag[2:]}" for flag in known}
    assert flags <= known | negated, f"{page}: {line}"


def test_no_page_has_the_marks_of_a_merge() -> None:
    marks = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    for page in [*PAGES, ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("**/*.toml")]:
        assert not marks.search(page.read_text(encoding="utf-8")), page


def test_every_command_has_examples_and_a_section_in_the_reference() -> None:
    page = pages.cli_page()
    for name in COMMANDS:
        assert f"pixels-once {name}" in module_of(name).EXAMPLES
        assert f"\n## {name}\n" in page


def test_the_reference_in_the_repository_is_what_the_commands_say() -> None:
    """Written by `python -m benchmarks.pages`; the site's build would write it, unnoticed."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == pages.cli_page()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_a_whole_sentence_of_each(name: str) -> None:
    first = (COMMANDS[name].__doc__ or "").strip().splitlines()[0]
    assert first.endswith("."), first


def test_every_command_has_a_target_in_the_makefile() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+): .*## .+\n\t\$\(call run,\1\)$", text, re.M))
    assert targets == set(COMMANDS)


def test_every_head_and_first_stage_has_its_line_in_the_page_on_them() -> None:
    page = (ROOT / "docs" / "heads.md").read_text(encoding="utf-8")
    lines = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    ours = {name for name in backbone_names() if name not in KERAS_MODELS}
    assert {*HEADS, *ours, DEFAULT_BACKBONE} - lines == set()


def test_every_column_of_a_store_has_its_line_in_the_page_on_the_format() -> None:
    page = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*)\|", page, re.M))))
    assert {*store.COLUMNS, *STEP_COLUMNS} - named == set()


def test_every_environment_variable_that_the_code_reads_or_sets_has_its_line() -> None:
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    texts = [
        path.read_text(encoding="utf-8")
        for room in ("pipeline", "store", "flows")
        for path in (ROOT / room).rglob("*.py")
    ]
    used = {
        name
        for text in texts
        for name in re.findall(r"""environ(?:\.get\(|\.setdefault\(|\[)"([A-Z_0-9]+)\"""", text)
    }
    assert {"PREFECT_API_URL", "KERAS_BACKEND"} <= used
    documented = set(re.findall(r"[A-Z][A-Z_0-9]+", page))
    assert (used | resolve._OTHER_VARIABLES) - {"PYTHONPATH"} - documented == set()


def test_every_attribute_of_a_store_has_its_line_in_the_page_on_the_format(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    feature_store(tmp_path / "some.zarr")
    written = set(store.open(tmp_path / "some.zarr").attributes) | {"test_sets"}
    for path in (ROOT / "flows").rglob("*.py"):
        for arguments in re.findall(r"set_attributes\((.*)\)\n", path.read_text(encoding="utf-8")):
            written |= set(re.findall(r"(?:^|, )(\w+)=", arguments))
    assert {"clips", "first_stage", "last_run", "spec"} <= written
    assert written - set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set()


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("quickstart", "cli", "format", "performance"):
        assert (tmp_path / "site" / name / "index.html").exists()


def test_the_performance_page_has_every_kept_figure() -> None:
    page = pages.performance_page()
    elsewhere = {"heads", "ray_data", "scale", "streams"}  # these have pages of their own
    kept = {path.stem for path in pages.RESULTS.glob("*.json")} - elsewhere
    assert page.count("\n### ") == len(kept)


def test_the_page_beside_others_is_what_was_measured() -> None:
    page = (ROOT / "docs" / "beside-others.md").read_text(encoding="utf-8")
    assert page == beside_others.with_figures(page)


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(pages.FIGURES.findall(readme)) == 1
    assert pages.with_figures(readme) == readme


def feature_store(url: Path) -> None:
    """36 clips of three actions in six groups, as InceptionV3's features would be: no video needed."""
    spec = Spec(
        sampling=Sampling(steps=8), fit="crop", interpolation="area", size=299,
        backbone="inception_v3", weights="random:0", view="plain", precision="float32",
        dtype="float16", shape=(64,),
    )  # fmt: skip
    layout = store.Layout(steps=8, shape=(64,), batch=36)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    random = np.random.default_rng(0)
    label = np.arange(36) % 3
    centres = random.normal(size=(3, 64))
    features = centres[label][:, None] + 0.3 * random.normal(size=(36, 8, 64))
    table = pd.DataFrame(
        {
            "video_id": [f"a{n}/g{i // 3 % 6}-{i}.mp4" for i, n in enumerate(label)],
            "label": [f"a{n}" for n in label],
            "group": [f"g{i // 3 % 6}" for i in range(36)],
        }
    )
    with store.Writer.acquire(str(url), owner="test") as writer:
        writer.append(table)
        digests = store.write_batch(str(url), 0, features.astype(np.float16), token=writer.token)
        writer.set(np.arange(36), digest=digests, frames_decoded=8)
        writer.put_steps(np.arange(36), np.ones(8, bool), np.arange(8), np.arange(8) / 25)
        writer.mark(np.arange(36), store.READY)
        writer.set_attributes(classes=["a0", "a1", "a2"])
        writer.flush()


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbclient
    import nbformat

    feature_store(tmp_path / "demo.zarr")
    monkeypatch.setenv("EPOCHS", "4")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "retrain.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=250,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    assert (tmp_path / "runs" / "notebook-gru" / "metrics.json").exists()
    said = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert "top-1" in said


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_quickstart_runs_as_it_stands(tmp_path: Path) -> None:
    """Each command of the story in its order, on the built-in clips; the Python of the format page."""
    story = commands_in((ROOT / "docs" / "quickstart.md").read_text(), marked=False)
    assert len(story) >= 9
    for line in story:
        done = running.run(*shlex.split(line)[1:], cwd=tmp_path, timeout_s=900)
        assert done.status == 0, f"{line}: {done.err}"
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "format.md").read_text(), re.M | re.S
    )
    assert blocks
    for block in blocks:
        subprocess.run(
            [sys.executable, "-c", block], check=True, cwd=tmp_path, env=running.environment()
        )
