"""Errors of storage and of the view as error numbers, and the boundary that every request passes."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from fusefs.nodes import CrossDevice, NameTooLong, NoAttribute, NoXattrs, Refused, Stale
from storage import errors

log = logging.getLogger("fusefs")

P = ParamSpec("P")
R = TypeVar("R")

ERRNOS: dict[type[BaseException], int] = {
    NameTooLong: errno.ENAMETOOLONG,
    CrossDevice: errno.EXDEV,
    Refused: errno.EPERM,
    Stale: errno.ESTALE,
    NoAttribute: errno.ENODATA,
    NoXattrs: errno.ENOTSUP,
    errors.InvalidName: errno.EINVAL,
    errors.SchemaMismatch: errno.EINVAL,
    errors.Unsupported: errno.EINVAL,
    errors.Ambiguous: errno.ENOENT,
    errors.NotFound: errno.ENOENT,
    errors.NotARepository: errno.EIO,
    errors.Exists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.NothingToCommit: errno.ENODATA,
    errors.NotMerged: errno.ENOTEMPTY,
    errors.ReadOnly: errno.EROFS,
    errors.Closed: errno.ESHUTDOWN,
    errors.WriterLockHeld: errno.EBUSY,
    errors.BranchInUse: errno.EBUSY,
    errors.Conflict: errno.EBUSY,
    errors.Corrupt: errno.EIO,
    errors.StorageFull: errno.ENOSPC,
    errors.StorageFailed: errno.EIO,
}
"""The nearest class counts."""

REPORTED = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Numbers of plain OSErrors (of spill files and kept bytes) that mean to the caller what they mean to us."""


def errno_of(error: BaseException) -> int | None:
    """The error number that a caller gets for `error`; None for one that nobody foresaw."""
    for kind in type(error).__mro__:
        if kind in ERRNOS:
            return ERRNOS[kind]
    if isinstance(error, OSError) and error.errno in REPORTED:
        return error.errno
    return None


def boundary(
    reported: Callable[[int], Exception],
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """A decorator for request handlers: whatever they raise leaves them as `reported(errno)`.

    pyfuse3 dies of any other exception. What the table does not know is EIO and goes to the log with its traceback;
    damage on the disk goes there in a line.
    """
    passes = type(reported(errno.EIO))

    def decorate(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        @functools.wraps(handler)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await handler(*args, **kwargs)
            except Exception as error:  # The errno boundary.
                if isinstance(error, passes):
                    raise
                number = errno_of(error)
                if number is None:
                    log.exception("%s failed unexpectedly", handler.__name__)
                elif isinstance(error, errors.Damage):
                    log.error("%s: %s", handler.__name__, error)
                raise reported(number or errno.EIO) from None

        return guarded

    return decorate
