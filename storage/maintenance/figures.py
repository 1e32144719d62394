"""How much a repository holds, in figures that cost next to nothing to find out."""

from __future__ import annotations

from dataclasses import dataclass

from storage.engine import Engine
from storage.stores.log import failed_segments
from storage.stores.tails import END


@dataclass(frozen=True, slots=True)
class Files:
    """How many files there are of a kind, and their bytes together."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """`staged_rows` counts what staging holds, names removed from a commit included; `dirty` are the branches with
    staged work. `unsynced_bytes` were acknowledged and not synced yet; `failed_segments` could not be synced.
    """

    branches: int
    commits: int
    objects: int
    staged_rows: int
    dirty: list[str]
    log: Files
    journals: Files
    index_bytes: int
    unsynced_bytes: int
    failed_segments: list[str]


def figures(engine: Engine) -> Figures:
    """The figures of an open repository: a few counters, and one stat for each segment file."""
    index, segments, _, _ = engine.internals()
    with index.read() as txn:
        objects, staged, commits = (index.rows(txn, t) for t in (index.objects, index.staged, index.commits))
        ends = [END.unpack(value) for _, value in index.scan(txn, index.ends, b"")]
    sizes: dict[str, list[int]] = {".log": [], ".journal": []}
    for path in segments.paths().values():
        try:
            sizes[path.suffix].append(path.stat().st_size)
        except FileNotFoundError:
            continue  # a journal that has just been settled
    branches = engine.branches()
    return Figures(
        branches=len(branches),
        commits=commits,
        objects=objects,
        staged_rows=staged,
        dirty=sorted(name for name in branches if engine.working_tree(name).is_dirty()),
        log=Files(len(sizes[".log"]), sum(sizes[".log"])),
        journals=Files(len(sizes[".journal"]), sum(sizes[".journal"])),
        index_bytes=(index.folder / "data.mdb").stat().st_blocks * 512,
        unsynced_bytes=sum(end - synced for end, synced in ends),
        failed_segments=[f"{segment:08x}" for segment in failed_segments(index)],
    )
