"""Open files and open directories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from storage.stores.contents import Content

if TYPE_CHECKING:
    from fusefs.layout import Stat
    from fusefs.nodes import Node
    from fusefs.working_file import WorkingFile

Entries = Iterator[tuple[bytes, "Node", int]]
T = TypeVar("T")


class Handle:
    """An open file. What is not overridden is what a read-only file does."""

    __slots__ = ("expected", "fetched")

    direct = False
    """Whether reads pass the page cache by: for texts that are made when they are read."""
    file: WorkingFile | None = None
    """The working tree's file that is open, if it is one."""

    def __init__(self) -> None:
        self.expected = 0
        self.fetched = 0

    def ready(self, offset: int, size: int) -> bool:
        """Whether `read` answers from memory."""
        return True

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""
        raise NotImplementedError

    def reading(self, offset: int, size: int) -> Callable[[], bytes | memoryview]:
        """A function that reads, to be run in a thread."""
        return lambda: self.read(offset, size)

    def ahead(self, start: int, end: int) -> Callable[[], None] | None:
        """A function that brings what lies from `start` to `end` into memory, or None where that is not needed."""
        return None

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`."""
        raise NotImplementedError

    def submit(self) -> Callable[[], object] | None:
        """A function that carries out what was written, for files that are commands; None where nothing is to be done."""
        return None

    def close(self) -> None:
        """The last descriptor is closed."""


class ContentHandle(Handle):
    """An open file whose contents never change."""

    __slots__ = ("content",)

    def __init__(self, content: Content) -> None:
        self.expected = 0
        self.fetched = 0
        self.content = content

    def ready(self, offset: int, size: int) -> bool:
        """Whether `read` answers from memory."""
        return self.content.ready(offset, size)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""
        return self.content.read(offset, size)

    def ahead(self, start: int, end: int) -> Callable[[], None] | None:
        """Decodes the chunks from `start` to `end`."""
        return prefetching(self.content, start, end)


def prefetching(content: Content, start: int, end: int) -> Callable[[], None] | None:
    """A function that brings the chunks from `start` to `end` into memory, or None where that is not needed."""
    if content.ready(start, end - start):
        return None
    return lambda: content.prefetch(start, end)


class TextHandle(Handle):
    """An open text that is made when it is first read, in the reader's thread, and stays as it is from then on.

    A history or a status may be long: nobody else waits while its text is made.
    """

    __slots__ = ("_lock", "_make", "_text")
    direct = True

    def __init__(self, make: Callable[[], bytes]) -> None:
        self.expected = 0
        self.fetched = 0
        self._make = make
        self._text: bytes | None = None
        self._lock = Lock()

    def ready(self, offset: int, size: int) -> bool:
        """Whether the text is made."""
        return self._text is not None

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer only at the end."""
        with self._lock:
            if self._text is None:
                self._text = self._make()
        return self._text[offset : offset + size]


class Listing:
    """An open directory. Positions count from 0; every name is listed at most once, and once if it stays."""

    large = False
    """Whether reading it has taken much memory that is free once it is closed."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def pending(self, position: int) -> Callable[[], object] | None:
        """What must be worked out, in a thread, before `entries` from `position` on can be given at once; None for nothing."""
        return self.node.pending()

    def entries(self, position: int) -> Entries:
        """Name, node and following position of everything from `position` on."""
        raise NotImplementedError

    def stat(self, node: Node) -> Stat:
        """What stat says of the node that `entries` has given last."""
        return node.stat()

    def close(self) -> None:
        """Nobody reads on."""


class NameListing(Listing):
    """A short directory whose names are taken when it is opened or read from the start again."""

    def __init__(self, node: Node, names: Callable[[], Iterable[bytes]]) -> None:
        super().__init__(node)
        self._make = names
        self._names: Sequence[bytes] = ()

    def entries(self, position: int) -> Entries:
        """Name, node and following position; names that went meanwhile are left out."""
        if position == 0:
            self._names = list(self._make())
        for at in range(position, len(self._names)):
            name = self._names[at]
            try:
                node = self.node.child(name)
            except KeyError:
                continue
            yield name, node, at + 1


class HandleTable(Generic[T]):
    """Handle number → open file or directory."""

    def __init__(self) -> None:
        self._open: dict[int, T] = {}
        self._next = 0

    def add(self, handle: T) -> int:
        """A number for `handle`, never given before."""
        self._next += 1
        self._open[self._next] = handle
        return self._next

    def __getitem__(self, number: int) -> T:
        """The open file or directory of that number."""
        return self._open[number]

    def __iter__(self) -> Iterator[T]:
        """Everything that is open."""
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def pop(self, number: int) -> T:
        """The open file or directory of that number, which is closed by that."""
        return self._open.pop(number)
