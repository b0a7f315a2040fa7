"""The errors of a store; each message is one sentence: the fact, the value, the remedy."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.liveness import Holder


class StoreError(Exception):
    """Base of all errors of a store; each subclass is also the natural builtin."""

    exit_status = 1

    def __str__(self) -> str:
        # OSError would format errno and file name; the sentence is ours.
        return str(self.args[0]) if self.args else ""


class StoreNotFound(StoreError, FileNotFoundError):
    """There is no store at this location."""


class StoreMismatch(StoreError, ValueError):
    """The existing store is not the one that was asked for."""


class StoreBusy(StoreError, RuntimeError):
    """Another run writes; `holder` says who, where and since when (None: it has ended already)."""

    def __init__(self, message: str, holder: Holder | None) -> None:
        super().__init__(message)
        self.holder = holder

    def __reduce__(self) -> tuple[type[StoreBusy], tuple[str, Holder | None]]:
        return StoreBusy, (str(self), self.holder)


class StoreTooNew(StoreError, ValueError):
    """The store was written by a newer version of the format."""


class StoreDamaged(StoreError, ValueError):
    """Bytes of the store cannot be decoded or do not match."""


class StoreUnwritable(StoreError, OSError):
    """The location cannot be written: full, read-only, forbidden, or gone."""

    exit_status = 4


class StorePacked(StoreError, ValueError):
    """The store is one file, which is only read."""


class LeaseLost(StoreError, RuntimeError):
    """The lease is no longer ours: another run took over, or it was removed."""

    exit_status = 4


class StoreWarning(UserWarning):
    """Rows were left out of what a reader returned."""


_REMEDIES = {
    errno.ENOSPC: "is full: free some space and run again, the run goes on where it stood",
    errno.EDQUOT: "is over its quota: free some space and run again",
    errno.EROFS: "is read-only: mount it writable or name another location",
    errno.EACCES: "may not be written or read: check its permissions and owner",
    errno.EPERM: "may not be written or read: check its permissions and owner",
    errno.ENOENT: "has vanished: bring it back, or make a new store",
    errno.ENOTDIR: "is not a folder: name a folder",
    errno.EIO: "answers with an input/output error: check the disk",
}

# Error codes of object stores that say more than Python's error does.
_CODES = {
    "NoSuchBucket": "lies in a bucket that does not exist: make the bucket, or check its name",
    "ExpiredToken TokenRefreshRequired": "was refused: the credentials have expired: sign in again "
    "and run again",
    "InvalidToken": "was refused: the session token is not valid: sign in again and run again",
    "InvalidAccessKeyId": "was refused: the service does not know the access key: check the "
    "credentials and the endpoint that they are for",
    "SignatureDoesNotMatch": "was refused: the secret key does not fit the access key: check the "
    "credentials and the endpoint that they are for",
    "RequestTimeTooSkewed": "was refused: this machine's clock differs too much from the service's: "
    "set the clock",
    "AccessDenied": "may not be written or read: check that the credentials may list, read, write "
    "and delete there",
    "SlowDown ServiceUnavailable 503": "is on a service that is too busy to answer: run again later, "
    "nothing ready is lost",
    "InternalError 500 502 504": "is on a service that fails with an internal error: run again later, "
    "nothing ready is lost",
    "NotImplemented 501": "is on a service without a request that is needed (exclusive creation, for "
    "the lease, is one): use another service, or --no-lease and one run only",
    "PermanentRedirect TemporaryRedirect Redirect 301 307 AuthorizationHeaderMalformed "
    "IllegalLocationConstraintException": "is in another region than was asked, and the service "
    "redirects every request: name the bucket's region (AWS_DEFAULT_REGION) or its endpoint "
    "(AWS_ENDPOINT_URL)",
}
_SENTENCES = {code: sentence for codes, sentence in _CODES.items() for code in codes.split()}


def service_code(error: BaseException) -> str:
    """The error code of the object store's response (`NoSuchBucket`); empty without one."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            code = str(response.get("Error", {}).get("Code", ""))
            return code or str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        if _redirected(cause):
            return "PermanentRedirect"
        cause = cause.__cause__ or cause.__context__
    return ""


@contextmanager
def translated(url: str, what: str = "store") -> Iterator[None]:
    """Turn what disks and object stores raise into `StoreUnwritable`, one sentence each.

    what: what is at `url`, where it is not the store itself.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreUnwritable(_sentence(f"{what} {url}", error)) from error
    except Exception as error:
        # s3fs lets some of its client's errors through (no endpoint, no credentials, time out).
        known = type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp")
        if not known and not _redirected(error):
            raise
        raise StoreUnwritable(_sentence(f"{what} {url}", error)) from error


def _redirected(error: BaseException) -> bool:
    """Whether this is aiobotocore's error for a service that redirects each of its requests.

    It asks where the bucket is, is redirected, asks again, … until the stack ends.
    """
    if not isinstance(error, RecursionError):
        return False
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "redirect_from_error" for frame, _ in frames)


def _sentence(place: str, error: Exception) -> str:
    sentence = _SENTENCES.get(service_code(error))
    if sentence is None and isinstance(error, OSError):
        known = {PermissionError: errno.EACCES, FileNotFoundError: errno.ENOENT}
        code = known.get(type(error), 0) if error.errno is None else error.errno
        other = f"failed ({error}): mend the cause and run again, nothing ready is lost"
        sentence = _REMEDIES.get(code, other)
    elif sentence is None:
        cause = type(error).__name__
        sentence = (
            f"cannot be reached ({cause}): check its address, the network and the credentials"
        )
    return f"the {place} {sentence}"


def vanished(url: str) -> StoreUnwritable:
    """The error for a store that has been there and is no more."""
    return StoreUnwritable(f"the store {url} {_REMEDIES[errno.ENOENT]}")


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turn what Zarr raises for bytes that it cannot decode into `StoreDamaged`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise StoreDamaged(
            f"{what} cannot be decoded ({error}): run `pixels-once verify --repair`"
        ) from error
