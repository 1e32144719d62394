"""numpy's own files: `.npy`, one array, and `.npz`, a zip archive of them. Nothing is ever unpickled.

A `.npy` file is one sample, kept to the byte; by row, each row along its first axis is one. A member of an archive
is one sample under its own name; by row or by column it is a dataset of its own, so that members may differ: its rows
are the samples, or the whole array is the only one.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from storage.dataset_reader import DatasetDataReader
from storage.errors import InvalidInput, Unsupported
from storage.formats.base import (
    BLOCK_BYTES,
    FileSource,
    Item,
    Options,
    Samples,
    Stored,
    natural_file,
    regular_file,
)
from storage.formats.stored import blocks, sample_size
from storage.formats.tree import save_file
from storage.model.names import Path as TreePath
from storage.model.names import check_key
from storage.model.records import Kind
from storage.model.samples import HEADER_MAX, Header, Source, parse_header


class NpyFormat:
    """Arrays, one in a file."""

    name = "npy"
    suffixes = (".npy",)

    def weigh(self, path: Path, options: Options) -> int:
        """The file's size."""
        return path.stat().st_size

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """The array as one sample named as the file; or, by row, its rows, numbered on."""
        require_by(options, self.name, "file", "row")
        fd, known = regular_file(path)
        try:
            source = FileSource(fd, known.st_size, str(path), options.meter)
            if options.by == "row":
                yield from _rows(source, str(path))
            else:
                yield Samples(source, [natural_file(path)], str(path))
        finally:
            os.close(fd)

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """A sample as it is; a dataset as one array, its samples stacked: numbered ones by number, else by name."""
        dataset = stored.dataset
        if dataset is None:
            if stored.entry.kind is not Kind.SAMPLE:
                raise Unsupported(f"{stored.name} is neither a dataset nor a sample: it has no {self.name} form")
            save_file(stored, path, options)
            return
        require_fixed(dataset, self.name)
        with open(path, "xb") as out:
            shape = (len(dataset), *dataset.shape)
            described = {"descr": npy.dtype_to_descr(dataset.dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_2_0(out, described) if len(str(described)) > 60_000 else npy.write_array_header_1_0(
                out, described
            )
            for keys, block in blocks(stored, BLOCK_BYTES):
                out.write(block.tobytes())
                options.meter.advance(sample_size(dataset) * len(keys))


class NpzFormat:
    """Arrays, many in a file."""

    name = "npz"
    suffixes = (".npz",)

    def weigh(self, path: Path, options: Options) -> int:
        """What the members hold, unpacked."""
        with _archive(path) as archive:
            return sum(member.file_size for member in archive.infolist())

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """A sample or a dataset for each member. InvalidName for members that would lead elsewhere."""
        require_by(options, self.name, "file", "row", "column")
        with _archive(path) as archive:
            for member in archive.infolist():
                where = f"{path}, member {member.filename!r}"
                if not member.filename.endswith(".npy"):
                    raise InvalidInput("not an array: the members of an archive end in .npy", where=where)
                name = member.filename[: -len(".npy")]
                parts = name.split("/") if options.by in ("row", "column") else [name]
                check_member(parts, where)
                dataset = tuple(part.encode() for part in parts)
                with closing(_MemberSource(archive, member, where, options)) as source:
                    if options.by == "row":
                        yield from _rows(source, where, dataset)
                    elif options.by == "column":
                        yield Samples(source, [natural_file(path)], where, dataset=dataset)
                    else:
                        yield Samples(source, [name], where)

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """A member for each sample of a dataset."""
        dataset = stored.dataset
        if dataset is None:
            raise Unsupported(f"{stored.name} is not a dataset: it has no {self.name} form")
        with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
            for name, child in stored.children():
                if child.entry.kind is not Kind.SAMPLE:
                    continue
                content = child.open()
                # The time is always the same: so are the archives of the same samples.
                member = zipfile.ZipInfo(os.fsdecode(name))
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=content.size >= 1 << 31) as out:
                    for offset in range(0, content.size, BLOCK_BYTES):
                        options.meter.advance(out.write(content.read(offset, BLOCK_BYTES)))


def check_member(parts: Sequence[str], where: str) -> None:
    """InvalidInput for the name of a member that cannot be a sample's: one that would lead elsewhere, above all."""
    try:
        for part in parts:
            check_key(part)
    except ValueError as error:
        raise InvalidInput(str(error), where=where) from error


def require_by(options: Options, name: str, *known: str) -> None:
    """Unsupported unless the format can do what `options.by` asks."""
    if options.by and options.by not in known:
        raise Unsupported(f"{name} files cannot be taken by {options.by}: there is {', '.join(known)}")


def require_fixed(dataset: DatasetDataReader, name: str) -> None:
    """Unsupported for datasets whose samples cannot be stacked."""
    if dataset.variable_shape:
        raise Unsupported(f"the samples of {dataset.name!r} vary in shape: they cannot be stacked into one {name} file")


def _rows(source: Source, where: str, dataset: TreePath = ()) -> Iterator[Item]:
    header = parse_header(source.read(0, HEADER_MAX))
    _require_whole(header, source.size, where)
    if not header.shape:
        raise InvalidInput("a single number has no rows", where=where)
    if header.fortran and len(header.shape) > 1:
        raise InvalidInput("the array is in Fortran order: its rows lie apart; save it in C order", where=where)
    shape = header.shape[1:]
    nbytes = header.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    step = max(1, BLOCK_BYTES // max(1, nbytes))
    # Once also for no rows at all: these make an empty dataset.
    for first in range(0, max(1, header.shape[0]), step):
        count = min(step, header.shape[0] - first)
        raw = source.read(header.length + first * nbytes, count * nbytes)
        rows = np.frombuffer(raw, header.dtype).reshape(count, *shape)
        yield Samples(rows, None, where, dataset=dataset, first=first)


def _require_whole(header: Header, size: int, where: str) -> None:
    if header.length + header.nbytes != size:
        raise InvalidInput(
            f"the file has {size} bytes, its header promises {header.length + header.nbytes}", where=where
        )


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
        raise InvalidInput(f"not a whole .npz file: {error}", where=str(path)) from error


_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


class _MemberSource:
    """A member of an archive, read from front to back.

    Its header is held against the size that the archive gives, and no more than that is ever unpacked, so that
    an archive which unpacks to more than it says costs neither memory nor disk.
    """

    base = None
    dirty: tuple[()] = ()

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, options: Options) -> None:
        self._archive = archive
        self._member = member
        self._where = where
        self._meter = options.meter
        self._stream: IO[bytes] | None = None
        self._position = 0
        # What was read last, up to the position: contents are cut with some overlap.
        self._recent = b""
        self.size = member.file_size

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer only at the end. InvalidInput where the archive is damaged."""
        try:
            return self._at(offset, max(0, min(size, self.size - offset)))
        except _UNREADABLE as error:
            raise InvalidInput(f"the archive is damaged: {error}", where=self._where) from error

    def _at(self, offset: int, size: int) -> bytes:
        start = self._position - len(self._recent)
        if self._stream is None or offset < start:
            self.close()
            self._stream = self._archive.open(self._member)
            start = self._position = 0
            self._recent = b""
        known = self._recent[offset - start : offset - start + size]
        if len(known) == size:
            return known
        while self._position < offset:
            self._unpacked(min(offset - self._position, BLOCK_BYTES))
        self._recent = known + self._unpacked(size - len(known))
        return self._recent

    def close(self) -> None:
        """Let go of the archive."""
        if self._stream is not None:
            self._stream.close()

    def _unpacked(self, size: int) -> bytes:
        assert self._stream is not None
        data = self._stream.read(size)
        if len(data) != size:
            raise EOFError("it ends too early")
        self._position += size
        self._meter.advance(size)
        # The checksum is looked at when the end is read.
        if self._position == self.size and self._stream.read(1):
            raise zipfile.BadZipFile("it is longer than the archive says")
        return data
