"""A dict that survives: each key a JSON file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from storage import html
from storage.errors import CalledClosedTrackerError, InvalidName, NotFound, ReadOnly, Unsupported
from storage.places import Place, place_of
from storage.pods.ending import end_in_good_order
from storage.pods.format import JSON
from storage.pods.store import Store, make_directory, store_at
from storage.session import when_dropped

if TYPE_CHECKING:
    from storage.pods.tracker import ProgressTracker

MISSING: Any = object()
SHOWN = 10
"""So many keys are shown in a notebook."""


class PersistentOrderedDict:
    """A dict in the files of a repository, at a plain path (see storage.places): `POD("results/my.pod")["foo"] = "bar"`.

    Keys are str, int, or tuples of these, and keep their type; values are what JSON holds, checked when they are set
    (NotJSON, a TypeError): tuples become lists, keys of dicts become str. Each key is a file `<key>.json` of the directory
    (storage.pods.format says how other keys than plain texts are written), to be read and edited by any program in a mount.

    In Python keys come in the order in which they were first inserted, wherever that was; overwriting does not move one. A
    mount and `Files.list` list them by name.

    What was set or read is *dirty*, and written once `sync_at` keys are, or at `sync`, `close`, when the object is dropped,
    and when the process ends: also by an exception, Ctrl-C or SIGTERM, which ends a process that has a POD as `sys.exit(143)`
    does unless it has a handler of its own. `kill -9` loses what is dirty. A change inside a value is kept
    when it is made through the POD (`pod["a"]["b"] = 1`). Other processes may use the same POD: what they write is seen for
    keys that are not dirty here, and the last to write a key wins. Objects for one path in one process share their dirty keys.
    A forked process begins with none. Thread-safe.

    `init` are keys and values to begin with, for keys that are not there. `mode` "r" changes nothing, and needs the POD to
    be there; what is in a commit is always read so. `commit_on_close` is the message of a commit that `close` makes.
    `gzipped`, `file_size` and `clone` are those of older programs: the repository packs by itself, each key is a file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        init: Mapping[Any, object] | Iterable[tuple[Any, object]] = (),
        gzipped: bool = False,
        file_size: int = 1000,
        sync_at: int = 1000,
        clone: bool = True,
        mode: Literal["r", "w"] | None = None,
        *,
        commit_on_close: str = "",
    ) -> None:
        if gzipped:
            raise Unsupported(
                "gzipped files could not be edited: leave it out, the repository compresses what it keeps"
            )
        if type(file_size) is not int or file_size < 1:
            raise Unsupported(
                "file_size must be a positive int; it changes nothing, since every key is a file of its own"
            )
        if type(sync_at) is not int or sync_at < 1:
            raise Unsupported("sync_at must be a positive int")
        if mode not in (None, "r", "w"):
            raise Unsupported(f"there is no mode {mode!r}: use 'r' or 'w'")
        place = place_of(path, make=mode != "r")
        self._closed = False
        self._commit_on_close = commit_on_close
        self._writeable = mode != "r" and place.writeable
        if mode == "w" and not place.writeable:
            raise ReadOnly(f"{place.given} is in a commit, which never changes: open it with mode 'r'")
        self._store = self._opened(place, clone)
        if self._writeable:
            self._store.sync_at = sync_at
            end_in_good_order()
            when_dropped(self, self._store.write)
            self._begin(init)

    def _opened(self, place: Place, clone: bool) -> Store:
        store, known = store_at(place)
        if known and not clone:
            raise Unsupported(f"{place.given} is open in this process already: leave out clone=False to share it")
        if self._writeable:
            make_directory(place.files, place.path)
        elif place.files.schema(place.path) is None:
            raise NotFound(f"there is no POD at {place.given}")
        return store

    def _begin(self, init: Mapping[Any, object] | Iterable[tuple[Any, object]]) -> None:
        for key, value in dict(init).items():
            self.setdefault(key, value)

    # Beginning and end

    @property
    def path(self) -> str:
        """The path it was opened with, absolute."""
        return str(self._store.place.given)

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def close(self) -> None:
        """Write what is dirty; from then on every use raises CalledClosedTrackerError. Closing twice is fine."""
        if self._closed:
            return
        if self._writeable:
            self._store.write()
            if self._commit_on_close:
                self._store.files.commit(self._commit_on_close)
        self._closed = True

    def __enter__(self) -> Self:
        """The POD itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """As the path it was opened with, after writing what is dirty: for the way to another process."""
        if self._writeable:
            self._used.write()
        return partial(type(self), **self._arguments()), (self.path,)

    def _arguments(self) -> dict[str, Any]:
        """What it was opened with beside its path."""
        return {"mode": None if self._writeable else "r", "sync_at": self._store.sync_at}

    @property
    def _used(self) -> Store:
        if self._closed:
            raise CalledClosedTrackerError(f"{self.path} has been closed: open it again")
        return self._store

    @property
    def _changed(self) -> Store:
        if not self._writeable:
            self._used  # noqa: B018 - raises CalledClosedTrackerError
            raise ReadOnly(f"{self.path} was opened to be read only, or is in a commit")
        return self._used

    def is_writeable(self) -> bool:
        """Whether it can be changed here."""
        return self._writeable

    def commit(self, message: str) -> str:
        """Write what is dirty and freeze everything that is staged on the branch; the commit's name. NothingToCommit."""
        self._changed.write()
        return self._store.files.commit(message)

    # As a dict

    def __getitem__(self, key: Any) -> JSON:
        """The value of a key; KeyError where there is none."""
        return self._used.get(key) if self._writeable else self._used.copy(key)

    def __setitem__(self, key: Any, value: object) -> None:
        """Give a key a value. NotJSON (a TypeError) for what JSON cannot hold, InvalidName (a ValueError) for no key."""
        if self._closed or not self._writeable:
            self._changed  # noqa: B018 - raises
        self._store.put(key, value)

    def __delitem__(self, key: Any) -> None:
        """Take a key away; KeyError where there is none."""
        self._changed.delete(key)

    def __contains__(self, key: object) -> bool:
        """Whether a key has a value."""
        try:
            return self._used.has(key)  # type: ignore[arg-type]
        except InvalidName:
            return False

    def __iter__(self) -> Iterator[Any]:
        """The keys as of now, in the order in which they were first inserted."""
        return self._used.order()

    def __reversed__(self) -> Iterator[Any]:
        """The keys as of now, those inserted last first."""
        return iter(self.keys()[::-1])

    def __len__(self) -> int:
        """How many keys there are."""
        return self._used.count()

    def __eq__(self, other: object) -> bool:
        """Whether another mapping has the same keys and values."""
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and all(key in other and other[key] == value for key, value in self._copies())

    __hash__ = None  # type: ignore[assignment]

    def _copies(self) -> Iterator[tuple[Any, JSON]]:
        """Keys and values as of now, none of which becomes dirty; keys that are taken away meanwhile are left out."""
        store = self._used
        for key in store.order():
            try:
                yield key, store.copy(key)
            except NotFound:
                continue

    def iterkeys(self) -> Iterator[Any]:
        """The keys, one after the other."""
        return iter(self)

    def iteritems(self) -> Iterator[tuple[Any, JSON]]:
        """Keys and values, one after the other; keys that are taken away meanwhile are left out."""
        for key in self:
            try:
                yield key, self[key]
            except NotFound:
                continue

    def itervalues(self) -> Iterator[JSON]:
        """The values, one after the other."""
        return (value for _, value in self.iteritems())

    def keys(self) -> list[Any]:
        """The keys."""
        return list(self)

    def items(self) -> list[tuple[Any, JSON]]:
        """Keys and values. All of them are then in memory: see iteritems."""
        return list(self.iteritems())

    def values(self) -> list[JSON]:
        """The values. All of them are then in memory: see itervalues."""
        return list(self.itervalues())

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, `default` where there is none."""
        try:
            return self[key]
        except NotFound:
            return default

    def setdefault(self, key: Any, default: object = None) -> Any:
        """The value of a key, which gets `default` where it has none."""
        store = self._changed
        with store.ours():
            if not store.has(key):
                self[key] = default
            return self[key]

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Take a key away and return its value, `default` where there is none; KeyError without a default."""
        store = self._changed
        with store.ours():
            try:
                value = store.copy(key)
            except NotFound:
                if default is MISSING:
                    raise
                return default
            store.delete(key)
            return value

    def popitem(self, last: bool = True) -> tuple[Any, JSON]:
        """Take the key away that was inserted last, or first, and return it with its value. KeyError where there is none."""
        with self._changed.ours():
            keys = self.keys()
            if not keys:
                raise NotFound(f"{self.path} is empty")
            key = keys[-1 if last else 0]
            return key, self.pop(key)

    def clear(self) -> None:
        """Take all keys away, at once: this is not kept for the next sync."""
        self._changed.clear()

    def update(self, *others: Any, **more: object) -> None:
        """Give the keys of mappings, or of lists of pairs, their values there; what comes later counts.

        `update(key)`, with a str, an int or a tuple, is `sync_key(key)`.
        """
        if len(others) == 1 and not more and isinstance(others[0], str | int | tuple):
            self.sync_key(others[0])
            return
        for other in (*others, more):
            for key, value in dict(other).items():
                self[key] = value

    # What is dirty

    def dirty(self) -> set[Any]:
        """The keys that were set, deleted or read since the last sync."""
        return self._used.dirty()

    def mark_dirty(self, key: Any) -> None:
        """Count a key as one that was read. KeyError."""
        self[key]

    def sync(self) -> None:
        """Write all that is dirty, so that it survives power loss, too. NotJSON for what JSON cannot hold: see sync_key."""
        self._changed.sync()

    def sync_key(self, key: Any) -> None:
        """Write one key now. NotJSON where its value was changed into something that JSON cannot hold: it stays dirty."""
        self._changed.write_key(key)

    def hold(self) -> None:
        """Sync no more by itself until `unhold`, however much is dirty; the end of the object or process still writes."""
        self._changed.held = True

    def unhold(self) -> None:
        """Sync by itself again, and now."""
        store = self._changed
        store.held = False
        store.sync()

    def revert(self) -> None:
        """Drop all changes that are not written yet."""
        self._used.revert()

    def convert_to_tracker(self, max_tries: int = 0) -> ProgressTracker:
        """The same as a tracker: the values, which must be dicts, become tasks, never begun unless they say otherwise.

        WrongType (a TypeError), and nothing is changed, where one is none.
        """
        from storage.pods.tracker import convert_to_tracker  # a tracker is a POD itself

        return convert_to_tracker(self, max_tries)

    def __repr__(self) -> str:
        """Its path, and how many keys it has."""
        what = "closed" if self._closed else f"{len(self):,} keys"
        return f"{type(self).__name__}({self.path!r}: {what})"

    def _repr_html_(self) -> str:
        shown = [(key, html.code(value)) for (key, value), _ in zip(self._copies(), range(SHOWN), strict=False)]
        more = len(self) - len(shown)
        return html.card(
            self.path, type(self).__name__, html.table(("key", "value"), shown, f"… {more:,} more" * (more > 0))
        )


MutableMapping.register(PersistentOrderedDict)
POD = PersistentOrderedDict
