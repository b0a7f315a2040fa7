"""Names that are not ASCII: in a locale that knows only ASCII, and in bytes that are no UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.main import main
from tests.features.clips import write_numbered_clip
from tests.flows import running


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["-m", "flows"], ["-c", "from flows.cli.main import main; main()"]]
)
def test_a_locale_of_ascii_changes_no_name(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "clips 😀").mkdir()
    write_numbered_clip(tmp_path / "clips 😀" / "é.mp4", frames=4)
    ascii_only = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, *words, "scan", "--videos", "clips 😀", "--csv", "é.csv"],
        cwd=tmp_path,
        env={**os.environ, **ascii_only, "PYTHONPATH": str(running.ROOT)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "é.mp4" in (tmp_path / "é.csv").read_text(encoding="utf-8")


def test_a_folder_whose_path_is_not_utf8_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = os.fsencode(tmp_path) + b"/r\xe9pertoire"
    os.mkdir(folder)
    monkeypatch.chdir(os.fsdecode(folder))
    assert main(["show", "--store", "a.zarr"]) == 1
    assert r"r\udce9pertoire', is not UTF-8: rename it" in capsys.readouterr().err
