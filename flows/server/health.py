"""Whether a Prefect server answers at an address, and what is there where none does."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from flows.notices import notice

_ANSWER_TIMEOUT_S = 10.0  # an unused port is known at once; a busy server is not absent
_PAUSES_S = (0.1, 0.4)
_BUSY_S = 60.0
_ANOTHER = "what answers there is no Prefect API"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an address has no healthy Prefect API. `busy`: a server is there, and may answer later."""

    why: str
    busy: bool = False


def answers(url: str) -> bool:
    """True if a Prefect API is healthy at this address."""
    return refusal(url) is None


def refusal(url: str) -> Refusal | None:
    """Why no Prefect API is healthy at this address, None where one is; asked once."""
    try:
        with urllib.request.urlopen(
            f"{url.rstrip('/')}/health", timeout=_ANSWER_TIMEOUT_S
        ) as reply:
            if reply.status == 200 and reply.read().strip() == b"true":
                return None
        return Refusal(_ANOTHER)
    except urllib.error.HTTPError as error:
        return Refusal(f"HTTP status {error.code}", busy=error.code >= 500)
    except http.client.HTTPException as error:
        cut = isinstance(error, http.client.RemoteDisconnected)
        return Refusal("the connection was cut" if cut else _ANOTHER)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return Refusal(f"no answer in {_ANSWER_TIMEOUT_S:.0f} s", busy=True)
        return Refusal(getattr(reason, "strerror", None) or str(reason))


def refusal_in_the_end(url: str) -> Refusal | None:
    """`refusal`, asked again: one lost response does not mean that there is no server, and one that
    takes connections without an answer is waited for, a minute long."""
    until = time.monotonic() + _BUSY_S
    for pause in _PAUSES_S:
        if refusal(url) is None:
            return None
        time.sleep(pause)
    said = False
    while (found := refusal(url)) is not None and found.busy and time.monotonic() < until:
        if not said:
            notice(
                f"the Prefect server at {url} is busy ({found.why}): waiting up to {_BUSY_S:.0f} s"
            )
            said = True
        time.sleep(_PAUSES_S[-1])
    return found
