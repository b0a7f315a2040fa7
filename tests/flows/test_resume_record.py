"""`docs/resume.md` says what the code does: its tables hold every reason, word for word."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from flows.cli import COMMANDS
from pipeline.features.decoding.process import Limits
from pipeline.features.reasons import FAILURES, WARNINGS

TEXT = (Path(__file__).parents[2] / "docs" / "resume.md").read_text()


@pytest.mark.parametrize("reason", FAILURES.values(), ids=lambda reason: reason.code)
def test_every_failure_is_a_line_of_the_table(reason):
    again = "yes" if reason.retried else "no"
    assert f"| `{reason.code}` | {reason.meaning} | {again} | {reason.remedy} |\n" in TEXT


@pytest.mark.parametrize("reason", WARNINGS.values(), ids=lambda reason: reason.code)
def test_every_warning_is_a_line_of_the_table(reason):
    assert f"| `{reason.code}` | {reason.meaning} | {reason.remedy} |\n" in TEXT


def test_no_other_reason_is_documented():
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == {*FAILURES, *WARNINGS}


def test_every_flag_that_is_named_exists():
    known = {
        f"--{item.name.replace('_', '-')}"
        for settings in (COMMANDS[name] for name in ("features", "forget", "train", "verify"))
        for item in fields(settings)
    }
    assert set(re.findall(r"--[a-z-]+\w", TEXT)) <= known


def test_the_limits_are_the_ones_in_the_code():
    limits, text = Limits(), " ".join(TEXT.split())
    assert f"decoding a clip is {limits.base_s:.0f} seconds (`--timeout`)" in text
    assert f"plus {limits.per_mib_s:.0f} for each MiB of its file" in text
    assert f"and {limits.stall_s:.0f} seconds without a new frame" in text
    assert f"memory limit is {limits.memory_bytes >> 30} GiB above" in text
