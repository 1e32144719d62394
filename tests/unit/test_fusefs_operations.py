"""What runs beside the requests that are answered: whatever goes wrong there, the mount lives on."""

from __future__ import annotations

import logging
import os
from stat import S_IFREG
from types import SimpleNamespace

import pytest
import trio

from fusefs import nodes
from fusefs.invalidate import Notifier
from fusefs.lanes import Lanes
from fusefs.layout import Owner
from fusefs.nodes import ROOT_INODE
from fusefs.operations import Operations
from fusefs.view import View
from storage.errors import Corrupt
from storage.model.samples import BytesSource

MANY = 100
CALLER = SimpleNamespace(uid=0, gid=0)  # the kernel alone can make a RequestContext


@pytest.fixture
def view(engine):
    engine.working_tree("main").put_file((b"f",), BytesSource(os.urandom(100_000)))
    return View(engine, Owner(0, 0), branch="main")


@pytest.fixture
def lanes():
    return Lanes()


@pytest.fixture
def operations(view, lanes):
    notifier = Notifier(lambda *_: None, lambda *_: None)
    yield Operations(view, lanes, notifier, read_only=False, on_start=lambda: None)
    notifier.stop(1)


def forgotten_and_asked_again(operations, monkeypatch):
    """The size of a file, after the kernel has given back all of the many that it knew."""
    monkeypatch.setattr(nodes, "MANY", MANY)

    async def asked():
        found = [await operations.mknod(ROOT_INODE, b"%d" % number, S_IFREG, 0, CALLER) for number in range(2 * MANY)]
        await operations.forget([(each.st_ino, 1) for each in found])
        return (await operations.lookup(ROOT_INODE, b"f", None)).st_size

    return trio.run(asked)


@pytest.mark.parametrize("error", [MemoryError(), OSError("no"), Corrupt("a row"), ZeroDivisionError()])
def test_what_fails_while_forgetting_is_logged_and_remembered(operations, engine, monkeypatch, caplog, error):
    def fail():
        raise error

    monkeypatch.setattr(engine.objects, "empty_caches", fail)
    with caplog.at_level(logging.ERROR, "fusefs"):
        assert forgotten_and_asked_again(operations, monkeypatch) == 100_000
    assert "forget" in caplog.text and caplog.records[0].exc_info is not None
    assert operations.statistics.report()["last_errors"][-1]["request"] == "forget"


@pytest.mark.parametrize("error", [MemoryError(), OSError("no"), Corrupt("a chunk")])
def test_what_fails_while_reading_ahead_ends_nothing(operations, view, lanes, monkeypatch, error):
    def fail(*_):
        raise error

    async def read_in_sequence():
        async with trio.open_nursery() as nursery:
            lanes.start(nursery)
            found = await operations.lookup(ROOT_INODE, b"f", None)
            opened = await operations.open(found.st_ino, os.O_RDONLY, None)
            handle = operations._files[opened.fh]
            monkeypatch.setattr(type(handle), "ahead", lambda *_: fail)
            return len(await operations.read(opened.fh, 0, 100_000))

    assert trio.run(read_in_sequence) == 100_000
