"""What a process has of a POD beside its files: values that were set or read, and are not written yet.

All objects of one POD in a process share one store. A key is *dirty* from when it is set or read until the next sync:

* `_set` holds what was set, as JSON; None for a key that was deleted;
* `_read` holds what was handed out, and may have been changed there: at a sync each is written as JSON again, and goes to
  its file if that is something else than it was.

A key may be in both: set, then read. Everything else is in the files alone, and read from there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NoReturn, cast
from weakref import WeakValueDictionary

import numpy as np

from storage.errors import Exists, NotADirectory, NotFound, NotJSON, PersistentOrderedDictIntegrityError
from storage.files import Files
from storage.model.records import Schema
from storage.model.samples import make_schema
from storage.places import Place
from storage.pods.format import BORN, JSON, SUFFIX, Births, Key, born, decode_value, encode_value, file_name, key_of
from storage.session import when_dropped

Merge = Callable[[JSON, JSON, JSON], JSON]
"""What a value becomes that was changed here and elsewhere: of what it was (None: new here), is here, and is there."""

RECENT = 16
"""So many of the values that were handed out last stay dirty when a sync comes by itself: the statement that asked for one
may be about to change it.
"""
_SCALARS = (str, int, float, bool, type(None))


@dataclass(slots=True)
class _Read:
    """A value that was handed out, and its JSON as of then."""

    value: JSON
    data: bytes


class Store:
    """A POD's directory and what is dirty of it. Thread-safe; in a forked process the parent's dirty keys are not dirty."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.files: Files = place.files
        self.path = place.path
        self.writeable = place.writeable
        self.sync_at = 1000
        self.held = False
        self.merge: Merge | None = None
        self._births = Births()
        self._prefix = place.path + "/" if place.path else ""
        self._end: object = self
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._set: dict[str, bytes | None] = {}
        self._read: dict[str, _Read] = {}
        self._born: dict[str, int] = {}
        self._gone: set[str] = set()
        self._expected: dict[str, bytes | None] = {}

    def forked(self) -> None:
        """This is a child of the process in which that was dirty: it is for the parent to write."""
        self._end = None
        self._forget()

    def ours(self) -> AbstractContextManager[object]:
        """The lock of everything in here."""
        if self._end is None:
            # What was registered for the end of the parent is not done at the end of its children.
            self._end = _End()
            when_dropped(self._end, self.write)
        return self._lock

    # One key

    def get(self, key: Key) -> JSON:
        """The value of a key, which is dirty from then on. NotFound, PersistentOrderedDictIntegrityError."""
        name = file_name(key)
        with self.ours():
            read = self._read.pop(name, None)
            if read is None or (isinstance(read.value, _SCALARS) and name not in self._set):
                if len(self._set) + len(self._read) + 1 >= self.sync_at and not self.held:
                    self.write(recent=True)
                read = self._fetched(name, key)
            if self.writeable:
                self._read[name] = read
            return read.value

    def copy(self, key: Key) -> JSON:
        """The value of a key as it is now, which does not become dirty."""
        name = file_name(key)
        with self.ours():
            read = self._read.get(name)
            return decode_value(encode_value(read.value, key)) if read is not None else self._fetched(name, key).value

    def _fetched(self, name: str, key: Key) -> _Read:
        pending = self._set.get(name)
        if pending is not None:
            return _Read(decode_value(pending), pending)
        if name in self._gone:
            self._missing(key)
        try:
            data = self.files.read(self._prefix + name)
        except (NotFound, NotADirectory):
            self._missing(key)
        if self.merge is not None:
            self._expected[name] = data
        value = self._value(name, data)
        return _Read(value, encode_value(value, key))

    def _value(self, name: str, data: bytes) -> JSON:
        try:
            return decode_value(data)
        except ValueError as error:
            where = self._prefix + name
            raise PersistentOrderedDictIntegrityError(f"{where} holds no value: {error}", where=where) from error

    def _missing(self, key: Key) -> NoReturn:
        raise NotFound(f"{key!r} is not in {self}") from None

    def put(self, key: Key, value: object) -> None:
        """Give a key a value, which becomes dirty. NotJSON, InvalidName."""
        name, data = file_name(key), encode_value(value, key)
        with self._lock if self._end is not None else self.ours():
            if self._expected:
                self._expected.pop(name, None)
            self._put(name, data)

    def put_new(self, key: Key, value: object) -> bool:
        """Give a key a value, unless it has one, or somebody else gave it one before this is written; whether it had none."""
        name, data = file_name(key), encode_value(value, key)
        with self.ours():
            if self._exists(name):
                return False
            if self.merge is not None:
                self._expected[name] = None
            self._put(name, data)
            return True

    def _put(self, name: str, data: bytes) -> None:
        self._set[name] = data
        if name not in self._born:
            self._born[name] = self._births.next()
        if self._read:
            self._read.pop(name, None)
            self._full()
        elif len(self._set) >= self.sync_at:
            self._full()

    def _full(self) -> None:
        """Sync where it is time to."""
        if len(self._set) + len(self._read) >= self.sync_at and not self.held:
            self.write(recent=True)

    def delete(self, key: Key) -> None:
        """Take a key away; it becomes dirty. NotFound."""
        name = file_name(key)
        with self.ours():
            if not self._exists(name):
                self._missing(key)
            self._clean(name)
            self._set[name] = None
            self._gone.add(name)
            self._full()

    def _clean(self, name: str) -> None:
        self._set.pop(name, None)
        self._read.pop(name, None)
        self._born.pop(name, None)
        self._expected.pop(name, None)

    def has(self, key: Key) -> bool:
        """Whether a key has a value."""
        name = file_name(key)
        with self.ours():
            return self._exists(name)

    def _exists(self, name: str) -> bool:
        if name in self._set:
            return self._set[name] is not None
        return self._stored_now(name)

    def _stored_now(self, name: str) -> bool:
        return name not in self._gone and self._in_files(name)

    def _in_files(self, name: str) -> bool:
        try:
            info = self.files.info(self._prefix + name)
        except (NotFound, NotADirectory):
            return False
        return info.kind == "file" and info.size > 0  # an empty one is still to be filled

    # All keys

    def order(self) -> Iterator[Key]:
        """All keys as of now, in the order in which they were first inserted."""
        with self.ours():
            births = self._all_births()
        order = sorted(births, key=lambda name: (births[name], name))
        births.clear()
        return map(key_of, order)

    def _all_births(self) -> dict[str, int]:
        found: dict[str, int] = {}
        try:
            for name, info, value in self.files.list_with(self.path, BORN):
                if info.kind == "file" and info.size and name.endswith(SUFFIX):
                    found[name] = born(value, info.mtime)
        except (NotFound, NotADirectory):
            pass  # taken away: nothing is there but what is kept here
        for name, data in self._set.items():
            if data is None or name in self._gone:
                found.pop(name, None)
            if data is not None:
                found.setdefault(name, self._born[name])
        return found

    def contents(self) -> Iterator[bytes]:
        """The JSON of all values as of now, those of keys that are dirty as they are here; in no order."""
        with self.ours():
            here = dict(self._set)
            for name, read in self._read.items():
                here[name] = encode_value(read.value, key_of(name))
        yield from (data for data in here.values() if data is not None)
        try:
            yield from (data for name, data in self.files.samples(self.path) if name not in here)
        except (NotFound, NotADirectory):
            return

    def count(self) -> int:
        """How many keys there are."""
        with self.ours():
            try:
                stored = self.files.count(self.path)
            except (NotFound, NotADirectory):
                stored = 0
            here = sum(data is not None for data in self._set.values())
            return stored + here - sum(self._in_files(name) for name in self._set)

    def clear(self) -> None:
        """Take all keys away, at once."""
        with self.ours():
            self.revert()
            names = [name for name, _ in self.files.list(self.path) if name.endswith(SUFFIX)]
            self.files.write_samples(self.path, {}, born=(BORN, {}), remove=names)

    def dirty(self) -> set[Key]:
        """The keys that are dirty."""
        with self.ours():
            return set(map(key_of, self._set.keys() | self._read.keys()))

    # Writing

    def sync(self) -> None:
        """Write all that is dirty, so that it survives power loss. Then nothing is dirty."""
        self.write()
        if self.writeable:
            self.files.sync()

    def write(self, *, recent: bool = False) -> None:
        """Write all that is dirty, in one step: it survives the end of the process. What is not written stays dirty.

        With `recent`, the values handed out last stay dirty, too. NotJSON, when everything else is written, for a value that
        was changed into something that JSON cannot hold.
        """
        with self.ours():
            if not self._read and not self._gone:
                self._write_set()
            else:
                kept = list(self._read)[-min(RECENT, self.sync_at // 2) :] if recent else []
                self._write([*self._set, *(self._read.keys() - self._set.keys())], {*kept})

    def _write_set(self) -> None:
        """Write all where nothing but values that were set is dirty: the usual case, without a step for each."""
        if self._set:
            self._store(cast(dict[str, bytes], self._set), self._born, ())  # where nothing is gone, nothing is None
            self._set, self._born, self._expected = {}, {}, {}

    def write_key(self, key: Key) -> None:
        """Write one key, if it is dirty."""
        name = file_name(key)
        with self.ours():
            if name in self._set or name in self._read:
                self._write([name], set())

    def _write(self, names: Iterable[str], kept: set[str]) -> None:
        samples: dict[str, bytes] = {}
        wrong: dict[str, NotJSON] = {}
        for name in names:
            read, data = self._read.get(name), self._set.get(name)
            if read is not None:
                try:
                    changed = encode_value(read.value, key_of(name))
                except NotJSON as error:
                    wrong[name] = error
                    continue
                data = changed if data is not None or changed != read.data else None
            if data is not None:
                samples[name] = data
        names = [name for name in names if name not in wrong]
        gone = [name for name in names if name in self._gone]
        if samples or gone:
            self._store(samples, {name: self._born.get(name) or self._births.next() for name in samples}, gone)
        for name in names:
            read = self._read.get(name)
            self._clean(name)
            self._gone.discard(name)
            if read is not None and name in kept:
                data = samples.get(name, read.data)
                self._read[name] = _Read(read.value, data)
                if self.merge is not None:
                    self._expected[name] = data
        if wrong:
            raise next(iter(wrong.values()))

    def _store(self, samples: dict[str, bytes], births: dict[str, int], gone: Iterable[str]) -> None:
        expected = {name: self._expected[name] for name in samples if name in self._expected} if self._expected else {}
        try:
            left = self.files.write_samples(self.path, samples, born=(BORN, births), instead=expected, remove=gone)
        except NotFound:
            make_directory(self.files, self.path)  # somebody has taken it away
            left = self.files.write_samples(self.path, samples, born=(BORN, births), instead=expected, remove=gone)
        for name in left:
            self._merged(name, expected[name], samples[name], births[name])

    def _merged(self, name: str, base: bytes | None, mine: bytes, birth: int) -> None:
        """Write a value that somebody else has changed, too."""
        assert self.merge is not None
        merge, before, here = self.merge, decode_value(base) if base is not None else None, decode_value(mine)
        self.edit_file(name, lambda there: here if there is None else merge(before, here, there), birth)

    def edit(self, key: Key, change: Callable[[JSON], JSON]) -> JSON:
        """Change the value of a key in its file in one step, after what is dirty of it: `change` gets it, None where there
        is none, and returns what it shall be, the same for no change. Nobody else's change comes between, in this
        process or another; where one did, `change` is called again. Returns the value, also to who had it handed out before.
        """
        name = file_name(key)
        with self.ours():
            read = self._read.get(name)
            if name in self._set and not self.held:
                self.write()  # what else was set goes with it
            elif read is not None or name in self._set:
                self._write([name], set())
            value, data = self.edit_file(name, change, 0)
            if read is not None and type(read.value) is dict and type(value) is dict:
                read.value.clear()
                read.value.update(value)
                self._read[name] = _Read(read.value, data)
                if self.merge is not None:
                    self._expected[name] = data
            return value

    def edit_file(self, name: str, change: Callable[[JSON], JSON], birth: int) -> tuple[JSON, bytes]:
        """Change the value in a file, as `edit` does; the value and its JSON."""
        path, key = self._prefix + name, key_of(name)
        while True:
            try:
                before: bytes | None = self.files.read(path)
            except (NotFound, NotADirectory):
                before = None
            stored = self._value(name, before) if before else None  # an empty one is still to be filled
            value = change(stored)
            if before and value is stored:
                return value, before
            data = encode_value(value, key)
            if data == before:
                return value, data
            if before is not None:
                if self.files.replace_sample(path, before, data, born=BORN):
                    return value, data
                continue
            births = {name: birth or self._births.next()}
            try:
                if not self.files.write_samples(self.path, {name: data}, born=(BORN, births), instead={name: None}):
                    return value, data
            except NotFound:
                make_directory(self.files, self.path)

    def revert(self) -> None:
        """Drop all that is dirty."""
        with self.ours():
            for pending in (self._set, self._read, self._born, self._gone, self._expected):
                pending.clear()

    def __repr__(self) -> str:
        """The path that was given."""
        return str(self.place.given)


class _End:
    """Stands for the end of a forked process."""


_stores: WeakValueDictionary[tuple[str, str, str], Store] = WeakValueDictionary()
_opening = threading.Lock()


def _forked() -> None:
    for store in list(_stores.values()):
        store.forked()


os.register_at_fork(after_in_child=_forked)


def store_at(place: Place) -> tuple[Store, bool]:
    """The store of the POD at a place, which there is one of in a process, and whether it was there already."""
    files = place.files
    where = (os.fspath(files.repository), files.branch or files.commit_hash, place.path)
    with _opening:
        known = _stores.get(where)
        # Its repository may have been closed, or deleted and made anew, since.
        if known is not None and known.place.repository is place.repository:
            return known, True
        found = _stores[where] = Store(place)
        return found, False


def make_directory(files: Files, path: str) -> None:
    """Make the directory of a POD, unless it is there; an ordinary one becomes one, with the JSON files in it.

    Exists where it is another dataset; InvalidSample where a file that would be a key holds no JSON. Both are ValueErrors.
    """
    if path:
        files.make_directory(path, parents=True, schema=SCHEMA)
    schema = files.schema(path)
    if schema is None:
        try:
            files.set_schema(path, SCHEMA, born=BORN)
        except Exists:
            schema = files.schema(path)
            if schema is None:
                raise
    if schema is not None and schema.kind != SCHEMA.kind:
        raise Exists(f"{path or 'the top'} is a dataset of {schema.kind}: a POD needs a directory of its own")


SCHEMA: Schema = make_schema(np.dtype(np.uint8), (), kind="json")
