"""The table of error numbers, and the boundary."""

from __future__ import annotations

import errno
import logging

import pytest
import trio

from fusefs import nodes
from fusefs.errnos import ERRNOS, boundary, errno_of
from fusefs.statistics import Statistics
from storage import errors


class Reported(Exception):
    """Stands for FUSEError."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Server:
    """Has a handler."""

    def __init__(self) -> None:
        self.statistics = Statistics()

    @boundary(Reported)
    async def act(self, error: BaseException | None) -> str:
        """Raise what is given."""
        if error is not None:
            raise error
        return "done"


def number_of(error: BaseException, server: Server | None = None) -> int:
    with pytest.raises(Reported) as caught:
        trio.run((server or Server()).act, error)
    return caught.value.number


GROUPS = {errors.ArborError, errors.Usage, errors.Missing, errors.State, errors.Busy, errors.Damage}


def concrete(kind: type[BaseException] = errors.ArborError) -> list[type[BaseException]]:
    return [kind, *(below for child in kind.__subclasses__() for below in concrete(child))]


def test_every_error_of_storage_and_view_has_a_number():
    missing = [
        kind.__name__
        for kind in concrete()
        if kind not in GROUPS and kind.__module__ in ("storage.errors", "fusefs.nodes")
        if not any(above in ERRNOS for above in kind.__mro__) and not issubclass(kind, errors.Usage | errors.State)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "error, number",
    [
        (errors.NotFound("x"), errno.ENOENT),
        (errors.Exists("x"), errno.EEXIST),
        (errors.NotEmpty("x"), errno.ENOTEMPTY),
        (errors.IsADirectory("x"), errno.EISDIR),
        (errors.NotADirectory("x"), errno.ENOTDIR),
        (errors.SchemaMismatch("x"), errno.EINVAL),
        (errors.InvalidSample("x"), errno.EINVAL),
        (errors.InvalidName("x"), errno.EINVAL),
        (nodes.NameTooLong("x"), errno.ENAMETOOLONG),
        (errors.ReadOnly("x"), errno.EROFS),
        (errors.StorageFull("x"), errno.ENOSPC),
        (errors.Corrupt("x"), errno.EIO),
        (errors.NotMerged("x"), errno.ENOTEMPTY),
        (errors.BranchInUse("x"), errno.EBUSY),
        (errors.WriterLockHeld("x"), errno.EBUSY),
        (errors.NothingToCommit("x"), errno.ENODATA),
        (nodes.Refused("x"), errno.EPERM),
        (nodes.Stale("x"), errno.ESTALE),
        (nodes.CrossDevice("x"), errno.EXDEV),
        (nodes.NoXattrs("x"), errno.ENOTSUP),
        (nodes.NoAttribute("x"), errno.ENODATA),
        (OSError(errno.ENOSPC, "spill"), errno.ENOSPC),
    ],
)
def test_numbers(error, number):
    assert number_of(error) == number


def test_a_subclass_counts_as_its_nearest_kin():
    class Special(errors.NotEmpty):
        """A special case."""

    assert errno_of(Special("x")) == errno.ENOTEMPTY


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), OSError(errno.EBADF, "x"), AssertionError()])
def test_the_unforeseen_is_an_io_error_with_a_traceback(error, caplog):
    assert errno_of(error) is None
    with caplog.at_level(logging.ERROR, "fusefs"):
        assert number_of(error) == errno.EIO
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("error", [errors.Corrupt("chunk abc is damaged"), errors.StorageFailed("no sync")])
def test_every_io_error_is_logged_with_its_traceback(error, caplog):
    with caplog.at_level(logging.ERROR, "fusefs"):
        assert number_of(error) == errno.EIO
    assert str(error) in caplog.text
    assert caplog.records[0].exc_info is not None


def test_a_full_disk_is_logged_in_a_line(caplog):
    with caplog.at_level(logging.ERROR, "fusefs"):
        number_of(errors.StorageFull("cannot write"))
    assert "cannot write" in caplog.text
    assert not caplog.records[0].exc_info


def test_what_passes():
    server = Server()
    assert trio.run(server.act, None) == "done"
    assert number_of(Reported(77), server) == 77
    assert server.statistics.report()["requests"]["act"]["count"] == 2


def test_what_failed_is_counted_and_remembered(caplog):
    server = Server()
    for error in (errors.NotFound("x"), errors.NotFound("y"), errors.Corrupt("chunk abc"), ZeroDivisionError("z")):
        number_of(error, server)
    report = server.statistics.report()
    assert report["refusals"] == {"ENOENT": 2, "EIO": 2}
    assert [(row["request"], row["errno"], row["error"]) for row in report["last_errors"]] == [
        ("act", "EIO", "Corrupt: chunk abc"),
        ("act", "EIO", "ZeroDivisionError: z"),
    ]
