"""Errors of storage and of the view as error numbers, and the boundary that every request passes."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from fusefs.nodes import CrossDevice, NameTooLong, NoAttribute, NoRoom, NoXattrs, Refused, Stale
from fusefs.statistics import Statistics
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
    NoRoom: errno.ENOSPC,
    NoXattrs: errno.ENOTSUP,
    errors.InvalidName: errno.EINVAL,
    errors.SchemaMismatch: errno.EINVAL,
    errors.InvalidInput: errno.EINVAL,
    errors.Unsupported: errno.EINVAL,
    errors.NotInstalled: errno.EINVAL,
    errors.NotProvided: errno.EINVAL,
    errors.NotYet: errno.ENOSYS,
    errors.WrongType: errno.EINVAL,
    errors.WrongKind: errno.EINVAL,
    errors.Ambiguous: errno.ENOENT,
    errors.NotFound: errno.ENOENT,
    errors.NotARepository: errno.EIO,
    errors.NotATreant: errno.ENOENT,
    errors.TreeNotFound: errno.ENOENT,
    errors.MultipleTreants: errno.EINVAL,
    errors.NotMounted: errno.ENOENT,
    errors.Exists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.TooFewSamples: errno.EINVAL,
    errors.WorkerDied: errno.EIO,
    errors.RsyncFailed: errno.EIO,
    errors.NeedsCopy: errno.EXDEV,
    errors.NothingToCommit: errno.ENODATA,
    errors.NothingToUndo: errno.ENODATA,
    errors.NotMerged: errno.ENOTEMPTY,
    errors.StagedWork: errno.EBUSY,
    errors.MergeConflict: errno.EBUSY,
    errors.MergeUnderWay: errno.EBUSY,
    errors.NoMergeUnderWay: errno.EINVAL,
    errors.ReadOnly: errno.EROFS,
    errors.Closed: errno.ESHUTDOWN,
    errors.InBatch: errno.EBUSY,
    errors.WriterLockHeld: errno.EBUSY,
    errors.BranchInUse: errno.EBUSY,
    errors.Conflict: errno.EBUSY,
    errors.CollectorRuns: errno.EBUSY,
    errors.Collected: errno.EAGAIN,
    errors.Corrupt: errno.EIO,
    errors.DamagedState: errno.EIO,
    errors.DamagedMark: errno.EIO,
    errors.IntegrityFault: errno.EIO,
    errors.StorageFull: errno.ENOSPC,
    errors.StorageFailed: errno.EIO,
    errors.PersistentOrderedDictException: errno.EIO,
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


class Serving(Protocol):
    """What has request handlers."""

    statistics: Statistics


S = TypeVar("S", bound=Serving)
Handler = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def boundary(reported: Callable[[int], Exception]) -> Callable[[Handler[S, P, R]], Handler[S, P, R]]:
    """A decorator for request handlers: they are counted and timed, and whatever they raise leaves them as
    `reported(errno)`.

    pyfuse3 dies of any other exception. Every EIO goes to the log with its traceback, whether the table foresaw it or
    not; other damage, such as a full disk, goes there in a line.
    """
    passes = type(reported(errno.EIO))

    def decorate(handler: Handler[S, P, R]) -> Handler[S, P, R]:
        """The handler inside the boundary."""
        request = handler.__name__.lstrip("_")

        @functools.wraps(handler)
        async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            """The handler's answer, or its error as the kernel may have it."""
            started = perf_counter_ns()
            try:
                return await handler(self, *args, **kwargs)
            except Exception as error:  # The errno boundary.
                if isinstance(error, passes):
                    raise
                number = told(self.statistics, request, error)
                raise reported(number) from None
            finally:
                self.statistics.note(request, perf_counter_ns() - started)

        return guarded

    return decorate


def told(statistics: Statistics, request: str, error: Exception) -> int:
    """The error number that the caller of a request gets; what somebody should look into is logged and remembered."""
    foreseen = errno_of(error)
    number = foreseen or errno.EIO
    statistics.refused(number)
    if number == errno.EIO:
        why = str(error) if foreseen else "failed unexpectedly"
        log.error("%s: %s", request, why, exc_info=error)
    elif isinstance(error, errors.Damage):
        log.error("%s: %s", request, error)
    else:
        return number
    statistics.failed(request, number, error)
    return number
