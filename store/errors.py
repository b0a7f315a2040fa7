"""What can go wrong with a store; every error is one sentence: the fact, the value, the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.lease import Holder


class StoreError(Exception):
    """Anything that the store refuses; each subclass is also the natural builtin."""

    def __str__(self) -> str:
        # OSError would format errno and file name; the sentence is ours.
        return str(self.args[0]) if self.args else ""


class StoreNotFound(StoreError, FileNotFoundError):
    """There is no store at this place."""


class StoreMismatch(StoreError, ValueError):
    """The store that is there is another one than was asked for."""


class StoreBusy(StoreError, RuntimeError):
    """Another run holds the lease; `holder` says who, where and since when."""

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder

    def __reduce__(self) -> tuple[type[StoreBusy], tuple[str, Holder]]:
        return StoreBusy, (str(self), self.holder)


class StoreTooNew(StoreError, ValueError):
    """The store was written by a newer version of the format."""


class StoreDamaged(StoreError, ValueError):
    """Bytes of the store do not mean what they must."""


class StoreUnwritable(StoreError, OSError):
    """The place does not take the bytes: full, read-only, forbidden, or gone."""


class LeaseLost(StoreError, RuntimeError):
    """The lease is no longer ours: another run took over, or it was removed."""


class StoreWarning(UserWarning):
    """Rows were left out of what a reader returned."""


_REMEDIES = {
    errno.ENOSPC: ("is full", "free some space and run again, the run goes on where it stood"),
    errno.EDQUOT: ("is over its quota", "free some space and run again"),
    errno.EROFS: ("is read-only", "mount it writable or name another place"),
    errno.EACCES: ("may not be written or read", "check its permissions and owner"),
    errno.EPERM: ("may not be written or read", "check its permissions and owner"),
    errno.ENOENT: ("has vanished", "bring it back, or make a new store"),
    errno.ENOTDIR: ("is not a folder", "name a folder"),
    errno.EIO: ("answers with an input/output error", "check the disk"),
}


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what disks and object stores raise into `StoreUnwritable`, one sentence each."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreUnwritable(_sentence(url, error)) from error
    except Exception as error:
        # s3fs lets some of its client's errors through (no endpoint, no credentials, time out).
        if type(error).__module__.split(".")[0] not in ("botocore", "aiobotocore", "aiohttp"):
            raise
        raise StoreUnwritable(
            f"the store {url} cannot be reached ({type(error).__name__}): "
            "check its address, the network and the credentials"
        ) from error


def _sentence(url: str, error: OSError) -> str:
    code = error.errno
    if code is None:
        code = {PermissionError: errno.EACCES, FileNotFoundError: errno.ENOENT}.get(type(error))
    fact, remedy = _REMEDIES.get(
        code or 0, (f"failed ({error})", "mend the cause and run again, nothing ready is lost")
    )
    return f"the store {url} {fact}: {remedy}"
