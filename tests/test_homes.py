"""Caches have a place on every machine: without a home, and with one that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline import homes


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PIXELS_ONCE_CACHE", "XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


def test_a_home_holds_the_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert homes.cache_folder() == tmp_path / ".cache" / "pixels-once"
    assert homes.keras_home() == tmp_path / ".keras"


def test_without_a_home_they_are_in_the_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    folder = tmp_path / "temporary" / f"pixels-once-{os.getuid()}"
    assert homes.cache_folder() == folder / "cache" / "pixels-once"
    assert homes.keras_home() == folder / "keras"
    assert homes.user_folder(".prefect") == folder / "prefect"


def test_a_user_without_a_name_has_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    folder = tmp_path / "temporary" / f"pixels-once-{os.getuid()}"
    assert (homes.user_folder(".cache"), homes.keras_home()) == (folder / "cache", folder / "keras")
    folder.parent.mkdir()
    homes.give_home()
    assert os.environ["HOME"] == str(folder)
    assert Path.home() == folder


def test_an_empty_variable_names_nothing_and_a_name_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert homes.cache_folder() == tmp_path / ".cache" / "pixels-once"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert homes.cache_folder() == tmp_path / "elsewhere" / "pixels-once"
    monkeypatch.setenv("PIXELS_ONCE_CACHE", str(tmp_path / "named"))
    assert homes.cache_folder() == tmp_path / "named"
