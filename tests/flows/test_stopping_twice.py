"""A second signal ends a run at once, whatever library it meets."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pydantic
import pytest

from flows.stopping import stopping


def directly() -> None:
    # Of this thread: a signal of the whole process may reach another thread of it, and its handler
    # may then run when this test is over.
    signal.raise_signal(signal.SIGINT)
    time.sleep(0)  # the handler has run by now, in every version of Python


class Serialised(pydantic.BaseModel):
    """What happens while Pydantic serialises this is turned into an error of Pydantic's own."""

    @pydantic.model_serializer
    def at_that_moment(self) -> str:
        directly()
        return ""


def within_pydantic() -> None:
    Serialised().model_dump()


def twice(second: Callable[[], None]) -> None:
    with stopping() as asked:
        directly()
        assert asked.event.is_set()
        second()


def another_error() -> None:
    raise ValueError("a worker said KeyboardInterrupt")


@pytest.mark.parametrize("second", [directly, within_pydantic])
def test_the_second_signal_is_an_interrupt_wherever_it_comes(second: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        twice(second)


def test_an_error_after_the_first_signal_stays_that_error() -> None:
    with pytest.raises(ValueError, match="KeyboardInterrupt"):
        twice(another_error)
