"""A second signal ends a run at once, whatever library it meets.

Each case is a process of its own: a signal goes to a process, and a test process has other threads and
handlers than a command.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

TWICE = """
import signal

import pydantic

from flows.stopping import stopping


class Serialised(pydantic.BaseModel):
    # What happens while Pydantic serialises this is turned into an error of Pydantic's own.
    @pydantic.model_serializer
    def at_that_moment(self) -> str:
        directly()
        return ""


def directly():
    signal.raise_signal(signal.SIGINT)


def within_pydantic():
    Serialised().model_dump()


def another_error():
    raise ValueError("a worker said KeyboardInterrupt")


try:
    with stopping() as asked:
        directly()
        assert asked.event.is_set()
        {second}()
except BaseException as error:
    print(type(error).__name__, *error.args)
"""


@pytest.mark.parametrize(
    ("second", "ends"),
    [
        ("directly", "KeyboardInterrupt SIGINT"),
        ("within_pydantic", "KeyboardInterrupt SIGINT"),
        ("another_error", "ValueError a worker said KeyboardInterrupt"),
    ],
)
def test_what_ends_a_run_after_the_first_signal(second: str, ends: str) -> None:
    command = [sys.executable, "-c", TWICE.replace("{second}", second)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.strip() == ends, ended.stderr
    assert ended.stderr.count("once more to stop at once") == 1
