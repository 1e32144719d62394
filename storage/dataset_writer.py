"""A dataset as a dict of values: everything that changes it.

Adding is on the way of every sample of an import, so `add` first tries the usual case with comparisons that
cost nanoseconds (an ndarray of the very dtype and shape, a plain name) and leaves the rest to `_add`. In a
batch nothing else happens per sample: values wait in a dict and are staged some megabytes at a time. Where they are many
beside what the dataset has, they wait for each other and are laid down as whole leaves (`storage.filling`).
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from types import TracebackType
from typing import Any, Self

import numpy as np

from storage.dataset_reader import DatasetDataReader, Key
from storage.errors import ArborError, Damage, InvalidName, NotFound, SchemaMismatch, WrongType
from storage.filling import LEAST, fill
from storage.model.chunking import INLINE_MAX
from storage.model.names import Path, check_key
from storage.model.records import PLAIN, Entry, Schema, encode_head, sample_head
from storage.model.samples import Array, canonical_header, check_array
from storage.model.values import encode_value
from storage.session import Session
from storage.stores.packing import Packer, Pending
from storage.worktree import WorkingTree

BATCH_BYTES = 4 << 20
"""A batch stages what it keeps back when about so many bytes have come together."""

HELD_BYTES = 48 << 20
"""At most about so many bytes does a batch keep back where its samples are to be laid down together."""
SHARE = 2
"""So many times their number may a dataset have for samples to be laid down as leaves, which rewrites all of its leaves."""

_OVERHEAD = 128  # what a waiting sample costs beside its bytes
_PLAIN_NAME = 60  # characters: at most 240 bytes, whatever they are

_ndarray = np.ndarray

Value = bytes | Entry | Pending
"""A sample on its way: its bytes where all samples of the dataset share one head, else its entry, or what will have one."""


class DatasetDataWriter(DatasetDataReader):
    """The samples of one dataset by key, to read and to change. Thread-safe.

    A change is staged when the call returns: it survives the end of the process, and a mount shows it. In a
    batch (`with dataset:`, `with one, other:`) changes are staged together, at the latest when the
    outermost batch ends; this object sees them at once. A batch that ends with an exception stages what was
    added before it: what was added, was added. Where staging fails because the disk does, the samples are
    kept back, and the next flush, commit or close tries again.
    """

    def __init__(self, session: Session, path: Path, schema: Schema) -> None:
        super().__init__(session, path, schema)
        nbytes = self._dtype.itemsize * math.prod(schema.shape)
        self._lock = threading.RLock()
        self._depth = 0
        self._waiting: dict[str, Value] | None = None
        self._packer: Packer | None = None
        self._storing = ExitStack()
        self._last_time = 0
        kept = min(nbytes, INLINE_MAX) + _OVERHEAD
        self._limit = self._full = max(1, BATCH_BYTES // kept)
        self._held = HELD_BYTES // kept
        self._crowded = False  # the dataset has too much for what this batch can hold
        self._size = len(canonical_header(schema.dtype, schema.shape)) + nbytes
        # The shape that all samples have, where they are also small enough to lie in the tree itself.
        short = schema.holds == "array" and not schema.variable and nbytes <= INLINE_MAX
        self._uniform = schema.shape if short else None

    def __setitem__(self, key: Key, data: Any) -> None:
        """Stage `data` under `key`, in place of what was there; the same data as before change nothing.

        SchemaMismatch (a ValueError) for what does not fit the schema, InvalidName (a ValueError) for what
        cannot be a key.
        """
        self.add(data, key)

    def add(self, data: Any, name: Key | None = None) -> str:
        """Stage `data` under `name`, as `dataset[name] = data` does, and return the key.

        Without a name in a dataset of unnamed samples the key is generated; such keys sort by time.
        """
        if (
            type(data) is _ndarray
            and data.dtype is self._dtype
            and data.shape == self._uniform
            and type(name) is str
            and name.isalnum()
            and len(name) <= _PLAIN_NAME
        ):
            with self._lock:
                if self._waiting is None:
                    if self._stage_one(name, data.tobytes()):
                        return name
                elif self._depth:
                    self._waiting[name] = data.tobytes()
                    if len(self._waiting) >= self._full:
                        self._hold_or_flush()
                    return name
        return self._add(data, name)

    def require(self, data: Any) -> None:
        """SchemaMismatch (a ValueError) unless `data` would be a sample here, InvalidName where samples need names."""
        self._checked(data, self._new_key())

    def append(self, data: Any) -> str:
        """Stage `data` under a generated key, and return that; such keys sort by time."""
        return self._add(data, self._generated())

    def update(self, other: Any = (), /, *arrays: Array, **more: Any) -> None:
        """Stage many samples as one change: all are checked before any is written; all are staged or none.

        Takes a mapping or pairs, and keywords; or keys and one array, whose rows are the samples: `update(keys, array)`, by
        far the fastest. In a batch they wait with the others.
        """
        self._session.require_open()
        if arrays:
            if len(arrays) > 1 or more or isinstance(other, str):
                raise WrongType("beside keys in a list, update takes one array with as many rows, and nothing else")
            self._update_rows(list(other), arrays[0])
            return
        pairs = list(other.items() if isinstance(other, Mapping) else other) + list(more.items())
        checked = {check_key(key): self._checked(data, key) for key, data in pairs}
        with self._lock:
            tree = self._session.working_tree
            with tree.storing():
                packer = self._packer or Packer(tree.objects)
                values = {key: self._value(tree, key, array, packer) for key, array in checked.items()}
                if packer is not self._packer:
                    packer.finish()
                self._take(values)

    def _update_rows(self, keys: list[Key], rows: Array, /) -> None:
        """Stage the rows of one array."""
        if not isinstance(rows, np.ndarray) or rows.ndim == 0 or len(rows) != len(keys):
            found = f"shape {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise SchemaMismatch(
                f"{len(keys)} keys need an array of as many rows, not {found}", expected=str(len(keys)), found=found
            )
        if not keys:
            return
        check_array(self._schema, rows.dtype, rows.shape[1:], "each row")
        texts = _checked_keys(keys)
        if self._uniform is None or len(texts) < LEAST:
            self.update(zip(texts, rows, strict=True))
            return
        self.flush()
        with self._lock:
            names = file_names(texts, self._suffix.decode())
            tree = self._writeable_tree()
            if not fill(tree, self._path, names, rows, self._size):
                self._stage_rows(tree, names, [row.tobytes() for row in rows])

    def remove(self, name: Key) -> str:
        """Remove the sample `name` and return its key; KeyError where there is none. Commits keep theirs."""
        with self._lock:
            self.flush()
            tree = self._session.working_tree
            file = self._file_name(name)
            if self._find(file) is None:
                raise NotFound(f"no sample {name!r} in dataset {self.name!r}")
            tree.remove((*self._path, file))
        return str(name)

    def __delitem__(self, key: Key) -> None:
        """Remove the sample `key`; KeyError where there is none."""
        self.remove(key)

    def pop(self, key: Key, *default: Any) -> Any:
        """Remove the sample `key` and return it. Where there is none, the default; KeyError without one."""
        with self._lock:
            try:
                array = self[key]
            except KeyError:
                if default:
                    return default[0]
                raise
            self.remove(key)
        return array

    def __getitem__(self, key: Key | Sequence[Key]) -> Any:
        """The sample under `key`, or those of a list of keys. KeyError where there is none; ValueError for no key."""
        waiting = self._kept_back(key)
        if waiting is None:
            return super().__getitem__(key)
        if isinstance(waiting, bytes):
            return self._decoded(waiting, PLAIN)
        if isinstance(waiting, Pending):
            with self._lock:  # the memory of its payload serves another sample once it is stored
                payload = None if waiting.payload is None else bytes(waiting.payload)
            waiting = waiting.entry
            if payload is not None:
                return self._decoded(payload, waiting.attributes)
        return self._decoded(self._session.tree.payload(waiting), waiting.attributes)

    def stack(self, keys: Iterable[Key] | None = None, out: Array | None = None) -> Array:
        """As of a reader; what a batch keeps back is staged first."""
        self.flush()
        return super().stack(keys, out)

    def __contains__(self, key: object) -> bool:
        """Whether there is a sample under `key`."""
        return self._kept_back(key) is not None or super().__contains__(key)

    def __len__(self) -> int:
        """How many samples there are; costs a walk over those that are staged."""
        self.flush()
        return super().__len__()

    def __enter__(self) -> Self:
        """Begin a batch. Batches nest; the outermost counts."""
        with self._lock:
            tree = self._session.working_tree
            if self._waiting is None:
                self._waiting = {}
                # What is large is stored before the batch is staged and names it.
                self._storing.enter_context(tree.storing())
                self._packer = Packer(tree.objects)
                self._session.begin(self)
            self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a batch: what was added in it is staged, also when it ends with an exception."""
        with self._lock:
            self._depth = max(0, self._depth - 1)  # closing the checkout inside the batch ended it already
            if self._depth == 0:
                self.flush()

    def _hold_or_flush(self) -> None:
        """Let a batch that may be laid down whole go on waiting; stage any other."""
        if self._full == self._limit and not self._crowded:
            self._crowded = self._uniform is None or not self._is_small(self._held)
        if self._crowded or self._full + self._limit > self._held:
            self.flush()
        else:
            self._full += self._limit

    def _is_small(self, beside: int) -> bool:
        """Whether the dataset is small enough to be laid down anew with so many samples more."""
        return self._session.working_tree.is_small(self._path, SHARE * beside)

    def flush(self) -> None:
        """Stage what the batch keeps back."""
        with self._lock:
            self._full = self._limit
            if self._waiting:
                try:
                    if self._packer is not None:
                        self._packer.finish()
                    self._stage_waiting(self._waiting)
                except Damage:
                    raise  # kept back: the next flush tries again
                except ArborError:
                    self._waiting = {}  # it will never be possible: the dataset is gone
                    raise
                self._waiting = {}
            if self._depth == 0 and self._waiting is not None:
                self._waiting = self._packer = None
                self._crowded = False
                self._storing.close()
                self._session.end(self)

    def finish(self) -> None:
        """Stage what the batch keeps back, and end it."""
        with self._lock:
            self._depth = 0
            self.flush()

    def _add(self, data: Any, name: Key | None) -> str:
        key = self._new_key() if name is None else check_key(name)
        array = self._checked(data, key)
        with self._lock:
            self._take({key: self._value(self._session.working_tree, key, array, self._packer)})
        return key

    def _take(self, values: dict[str, Value]) -> None:
        """Let samples wait with the others of a batch; outside of one, stage them now."""
        if self._depth and self._waiting is not None:
            self._waiting.update(values)
            if len(self._waiting) >= self._full:
                self._hold_or_flush()
        elif values:
            self.flush()  # what a batch could not stage comes first
            self._stage(values)

    def _kept_back(self, key: object) -> Value | None:
        with self._lock:
            if not self._waiting:
                return None
            try:
                return self._waiting.get(check_key(key))
            except InvalidName:
                return None

    def _rows(self) -> Iterator[tuple[bytes, Entry]]:
        self.flush()
        return super()._rows()

    def _new_key(self) -> str:
        if self._schema.named:
            raise InvalidName(f"A sample of dataset {self.name!r} needs a name: its samples are named.")
        return self._generated()

    def _generated(self) -> str:
        with self._lock:
            self._last_time = max(self._last_time + 1, time.time_ns())
            return f"{self._last_time:016x}{secrets.token_hex(4)}"

    def _checked(self, data: object, key: Key) -> Array | bytes:
        """`data` as a plain array that fits the schema, or the file form of what is none; SchemaMismatch."""
        what = f"sample {str(key)[:64]!r}"
        if self._holds != "array":
            return encode_value(self._holds, data, what)
        found = type(data).__name__
        if not isinstance(data, np.ndarray):
            raise SchemaMismatch(
                f"{what} is of type {found}, not numpy.ndarray: convert it with numpy.asarray first",
                expected="numpy.ndarray",
                found=found,
            )
        if isinstance(data, np.ma.MaskedArray):
            raise SchemaMismatch(
                f"{what} is a masked array, whose mask would be lost: use .filled() or store the mask too",
                expected="numpy.ndarray",
                found=found,
            )
        array: Array = np.asarray(data)
        check_array(self._schema, array.dtype, array.shape, what)
        return array

    def _value(self, tree: WorkingTree, key: str, array: Array | bytes, packer: Packer | None) -> Value:
        """The sample as it will be staged, which only names large contents: they are stored now, or by the packer."""
        if self._uniform is not None and not isinstance(array, bytes):
            return array.tobytes()
        (name,) = file_names([key], self._suffix.decode())
        pending = None if packer is None else tree.pending(self._schema, array, (*self._path, name))
        if pending is not None and packer is not None:
            packer.add(pending, array)
            return pending
        if isinstance(array, bytes):
            return tree.value_entry(self._schema, array, (*self._path, name))
        return tree.sample_entry(self._schema, array, replaces=(*self._path, name))

    def _writeable_tree(self) -> WorkingTree:
        tree = self._session.working_tree
        if tree.schema_of(self._path) != self._schema:
            raise NotFound(f"dataset {self.name!r} is not what it was when it was opened: open it again")
        return tree

    def _stage_waiting(self, values: dict[str, Value]) -> None:
        """Stage what a batch kept back: whole, or some megabytes at a time, so that others need not wait long."""
        if self._is_whole(len(values)):
            self._stage(values)
            return
        rest = iter(values.items())
        while some := dict(islice(rest, self._limit)):
            self._stage(some)

    def _is_whole(self, count: int) -> bool:
        """Whether so many samples are laid down as leaves."""
        return self._uniform is not None and count >= LEAST and self._is_small(count)

    def _stage(self, values: dict[str, Value]) -> None:
        """Stage samples as one change."""
        tree = self._writeable_tree()
        names = file_names(values, self._suffix.decode())
        if self._uniform is not None:
            payloads = [value for value in values.values() if isinstance(value, bytes)]
            if not self._is_whole(len(names)) or not self._filled(tree, names, payloads):
                self._stage_rows(tree, names, payloads)
        else:
            found = [value.entry if isinstance(value, Pending) else value for value in values.values()]
            entries = [value for value in found if isinstance(value, Entry)]
            if len(entries) == 1 and self._stage_entry(tree, names[0], entries[0]):
                return
            tree.put_rows(self._path, list(zip(names, entries, strict=True)))

    def _filled(self, tree: WorkingTree, names: Sequence[bytes], payloads: Sequence[bytes]) -> bool:
        rows: Array = np.ndarray((len(names), len(payloads[0])), np.uint8, b"".join(payloads))
        return fill(tree, self._path, names, rows, self._size)

    def _stage_one(self, name: str, payload: bytes) -> bool:
        """Stage a single short sample, of a key without any special character; False where it takes the longer way."""
        head = sample_head(self._size, time.time_ns())
        tree = self._session.working_tree
        return tree.put_sample(self._path, self._schema, name.encode() + self._suffix, head, payload)

    def _stage_entry(self, tree: WorkingTree, name: bytes, entry: Entry) -> bool:
        """Stage a single sample as it will lie in the tree; False where it takes the longer way."""
        if entry.flags or entry.attributes is not PLAIN or not isinstance(entry.value, bytes):
            return False
        return tree.put_sample(self._path, self._schema, name, encode_head(entry), entry.value)

    def _stage_rows(self, tree: WorkingTree, names: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        head = sample_head(self._size, time.time_ns())
        tree.put_samples(self._path, names, payloads, head)


def _checked_keys(keys: Sequence[Key]) -> list[str]:
    """Keys as text; the usual ones are checked all at once. InvalidName."""
    try:
        joined = "".join(keys)  # type: ignore[arg-type]  # TypeError where one is an int
        longest = max(map(len, keys))  # type: ignore[arg-type]
    except TypeError:
        return [check_key(key) for key in keys]
    if joined.isalnum() and longest <= _PLAIN_NAME and "" not in keys:
        return list(keys)  # type: ignore[arg-type]
    return [check_key(key) for key in keys]


def file_names(keys: Iterable[str], suffix: str) -> list[bytes]:
    """The file names of samples with these keys, of which there is at least one.

    Keys hold no NUL, so joining, encoding and splitting them costs no step per key.
    """
    return (f"{suffix}\0".join(keys) + suffix).encode().split(b"\0")
