"""Texts of `.arborfs/`: made by whoever reads first, in that reader's thread."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier, get_ident

import pytest

from fusefs.control import ControlFile
from fusefs.layout import Owner
from storage.errors import NotFound

OWNER = Owner(0, 0)


def test_a_text_is_made_at_the_first_read_and_not_at_open():
    numbers = count()
    file = ControlFile(OWNER, lambda: f"{next(numbers)} lines\n")
    first, second = file.open(os.O_RDONLY), file.open(os.O_RDONLY)
    assert not first.ready(0, 100)  # so the request goes to a thread
    assert second.reading(0, 100)() == b"0 lines\n"
    assert first.reading(0, 100)() == b"1 lines\n"
    assert second.ready(0, 100) and second.read(2, 5) == b"lines"


def test_readers_of_one_handle_see_one_text():
    makers = []
    file = ControlFile(OWNER, lambda: makers.append(get_ident()) or f"{len(makers)}" * 1000)
    handle, together = file.open(os.O_RDONLY), Barrier(4)

    def read(part):
        together.wait()
        return handle.reading(part * 250, 250)()

    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(read, range(4)))
    assert b"".join(parts) == b"1" * 1000
    assert len(makers) == 1


def test_a_text_that_cannot_be_made_is_told_to_every_reader():
    def text():
        raise NotFound("there is no branch 'gone'")

    handle = ControlFile(OWNER, text).open(os.O_RDONLY)
    for _ in range(2):
        with pytest.raises(NotFound, match="gone"):
            handle.reading(0, 10)()


def test_emptying_clears_and_what_is_written_is_dropped():
    cleared = []
    file = ControlFile(OWNER, lambda: "reasons", lambda: cleared.append(True))
    handle = file.open(os.O_WRONLY | os.O_TRUNC)
    handle.write(0, b"anything")
    assert cleared == [True] and handle.read(0, 10) == b""
