"""How settings are resolved: defaults, file, environment, flags; and nothing that is not sane."""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as run_settings
from hypothesis import strategies as st

from flows.cli import COMMANDS, resolve
from flows.cli.main import main
from flows.settings.features import FeaturesSettings, parse_sampling
from flows.settings.resolve import Parser, add_flags
from pipeline.errors import ConfigError
from pipeline.heads.config import DEFAULTS, PRECISIONS, SCHEDULES, SPLITS, TrainConfig
from pipeline.spec import RULES

SETTINGS = [
    (command, item)
    for command, cls in COMMANDS.items()
    for item in fields(cls)
    if not item.metadata.get("file_only")
]
NAMES = [f"{command}.{item.name}" for command, item in SETTINGS]


def variable(command: str, item: Field[Any]) -> str:
    return f"PIXELS_ONCE_{command}_{named(item)}".upper()


def flag(item: Field[Any]) -> str:
    return f"--{named(item).replace('_', '-')}"


def named(item: Field[Any]) -> str:
    """`from` is a field `from_`."""
    return item.name.removesuffix("_")


def parsed(command: str, *words: str) -> dict[str, Any]:
    parser = Parser(prog="test")
    add_flags(parser, COMMANDS[command])
    return vars(parser.parse_args(list(words)))


def three_values(item: Field[Any]) -> list[Any]:
    """Three legal values, so that each source can give another; two of them where there are but two."""
    if item.type == "bool":
        return [not item.default, item.default, not item.default]
    if item.metadata["choices"]:
        return [item.metadata["choices"][i % len(item.metadata["choices"])] for i in (1, 0, -1)]
    if item.type in ("int", "float"):
        least, most = max(item.metadata["least"], 0), item.metadata["most"]
        top = most if most is not None else least + 3
        values = [least, least + (top - least) / 2, top]
        return [int(value) if item.type == "int" else float(value) for value in values]
    return ["one", "two words", "ünïcode=⛷"]


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


@pytest.mark.parametrize(("command", "item"), SETTINGS, ids=NAMES)
def test_flags_win_over_the_environment_which_wins_over_the_file(
    tmp_path: Path, command: str, item: Field[Any]
) -> None:
    in_file, in_environment, in_flag = three_values(item)
    config = tmp_path / "run.toml"
    config.write_text(f"[{command}]\n{named(item)} = {toml(in_file)}\n", encoding="utf-8")
    environment = {variable(command, item): str(in_environment)}
    flags = parsed(command, f"{flag(item)}={in_flag}")

    def found(flags: dict[str, Any], environment: dict[str, str], config: str) -> Any:
        settings = resolve(command, flags, config=config, environment=environment)
        return getattr(settings, item.name)

    assert found({}, {}, "") == item.default
    assert found({}, {}, str(config)) == in_file
    assert found({}, environment, str(config)) == in_environment
    assert found(flags, environment, str(config)) == in_flag
    assert type(found(flags, environment, "")) is type(found({}, {}, str(config)))


@pytest.mark.parametrize(
    ("command", "item"),
    [(c, i) for c, i in SETTINGS if i.type == "bool"],
    ids=[f"{c}.{i.name}" for c, i in SETTINGS if i.type == "bool"],
)
def test_a_switch_can_be_set_and_unset_in_every_spelling(command: str, item: Field[Any]) -> None:
    for word, value in (
        (flag(item), True),
        (f"{flag(item)}=yes", True),
        (f"{flag(item)}=no", False),
        (f"--no-{flag(item)[2:]}", False),
    ):
        assert parsed(command, word) == {item.name: value}
    for text, value in (("1", True), ("on", True), ("0", False), ("", False), ("FALSE", False)):
        settings = resolve(command, {}, environment={variable(command, item): text})
        assert getattr(settings, item.name) is value
    with pytest.raises(ConfigError, match="neither yes nor no"):
        resolve(command, {}, environment={variable(command, item): "ture"})


@pytest.mark.parametrize(
    ("command", "item"),
    [(c, i) for c, i in SETTINGS if i.type in ("int", "float")],
    ids=[f"{c}.{i.name}" for c, i in SETTINGS if i.type in ("int", "float")],
)
def test_numbers_are_finite_and_within_their_bounds(command: str, item: Field[Any]) -> None:
    wrong = [item.metadata["least"] - 1]
    if item.metadata["most"] is not None:
        wrong.append(item.metadata["most"] + 1)
    if item.type == "float":
        wrong += [math.nan, math.inf, -math.inf]
    for value in wrong:
        with pytest.raises(ConfigError, match=f"{item.name} is .*: give "):
            resolve(command, {item.name: value}, environment={})


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(
        [
            "nan",
            "inf",
            "-1",
            "1e309",
            "9" * 30,
            "0x10",
            "true",
            "\0",
            "a\rb",
            "--store",
            "[x]",
            "=1",
        ]
    ),
)


@given(chosen=st.sampled_from(SETTINGS), text=TEXTS)
@run_settings(max_examples=300, deadline=None)
def test_any_text_for_any_setting_is_a_value_or_one_sentence(
    chosen: tuple[str, Field[Any]], text: str
) -> None:
    command, item = chosen
    for source in (from_flag, from_environment, from_file):
        try:
            value = getattr(source(command, item, text), item.name)
        except (ConfigError, SystemExit) as refusal:
            value = refusal
        assert not isinstance(value, float) or math.isfinite(value)
        assert not isinstance(value, SystemExit) or value.code == 2


def from_flag(command: str, item: Field[Any], text: str) -> Any:
    return resolve(command, parsed(command, f"{flag(item)}={text}"), environment={})


def from_environment(command: str, item: Field[Any], text: str) -> Any:
    return resolve(command, {}, environment={variable(command, item): text})


def from_file(command: str, item: Field[Any], text: str) -> Any:
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(f"[{command}]\n{named(item)} = {text}\n")
        file.flush()
        return resolve(command, {}, config=file.name, environment={})


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["train", "--sotre", "x"], 2, "did you mean --store?"),
        (["traain"], 2, "did you mean train?"),
        (["train", "x"], 2, "takes no argument 'x'"),
        (["train", "--seed", "99999999999"], 1, "give a number from 0 to 4294967295"),
        (["predict", "--window", "nan"], 1, "window is nan: give a finite number"),
        (["features", "--frames", "0"], 1, "frames is 0: give a number from 1"),
        (["features", "--config", "absent.toml"], 1, "does not exist"),
        (
            ["features", "--store", "st\udce9.zarr"],
            1,
            r"store is 'st\udce9.zarr', which is not UTF-8",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended = main(words)
    except SystemExit as end:
        ended = int(end.code or 0)
    assert ended == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[trian]\n", r"unknown section \[trian\]: did you mean train\?"),
        ("[train]\nunit = 3\n", "unknown key train.unit"),
        ("[train]\nseed = '3'\n", "give a value of type int"),
        ("[train]\nseed = true\n", "give a value of type int"),
        ("[train]\nresume = 1\n", "give a value of type bool"),
        ("train = 3\n", "train"),
        ("[train\n", "is not valid TOML"),
        ("\x00", "is not valid TOML"),
    ],
)
def test_a_settings_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        resolve("train", {}, config=str(config), environment={})


def test_a_settings_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_bytes(b'[train]\nname = "\xff"\n')
    with pytest.raises(ConfigError, match="is not valid TOML"):
        resolve("train", {}, config=str(config), environment={})
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve("train", {}, config=str(tmp_path), environment={})
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve("train", {}, config="\0", environment={})


def test_unknown_variables_are_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean PIXELS_ONCE_TRAIN_STORE"):
        resolve("train", {}, environment={"PIXELS_ONCE_TRAIN_STOER": "x"})
    with pytest.raises(ConfigError, match="unknown variable PIXELS_ONCE_SOMETHING"):
        resolve("train", {}, environment={"PIXELS_ONCE_SOMETHING": "x"})


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_training_has_the_same_defaults_from_the_command_line_as_from_python(
    command: str,
) -> None:
    ours = {item.name: item for item in fields(COMMANDS[command])}
    shared = [item.name for item in fields(TrainConfig) if item.name in ours]
    assert {"folds", "precision", "epochs", "split"} <= set(shared)
    for name in set(shared) - {"head", "options"}:
        assert ours[name].default == getattr(DEFAULTS, name), name
    for name, known in (("precision", PRECISIONS), ("schedule", SCHEDULES), ("split", SPLITS)):
        assert ours[name].metadata["choices"] == known


def test_a_rule_is_read_with_its_number_and_every_rule_is_in_the_help() -> None:
    assert parse_sampling("uniform") == {"rule": "uniform"}
    assert parse_sampling("stride=4") == {"rule": "stride", "stride": 4}
    assert parse_sampling("fps=2.5") == {"rule": "fps", "fps": 2.5}
    for text in ("nix", "uniform=3", "stride=1.5", "fps=x"):
        with pytest.raises(ConfigError, match="sampling"):
            parse_sampling(text)
    words = next(item for item in fields(FeaturesSettings) if item.name == "sampling")
    for rule in RULES:
        assert re.search(rf"\b{rule}\b", words.metadata["help"])
