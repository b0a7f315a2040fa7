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
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    homes._temporary.cache_clear()


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


@pytest.mark.parametrize("kind", ["open to others", "a link", "another user's"])
def test_a_foreseeable_folder_that_is_not_this_user_s_alone_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    folder = tmp_path / "temporary" / f"pixels-once-{os.getuid()}"
    if kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
    if kind == "open to others":
        folder.chmod(0o777)
    if kind == "another user's":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 65534, 65534)
    found = homes.user_folder(".prefect").parent
    assert found != folder
    assert found.name.startswith(folder.name)
    assert found.stat().st_mode & 0o777 == 0o700
    assert homes.cache_folder().is_relative_to(found)
