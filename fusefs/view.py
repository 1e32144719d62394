"""The repository as a file system: what stands at the root of a mount, and what changes by others mean for it.

Synchronous, without FUSE: everything here runs on the event loop's thread or, in tests, without a loop.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial

import msgspec
from msgspec.structs import replace

from fusefs.buffers import Room
from fusefs.conflicts import merging_control
from fusefs.control import branch_control, snapshot_control, top_control
from fusefs.diff_view import Diffs
from fusefs.frozen import FrozenDirectory, Snapshots
from fusefs.label_view import Here, by_directory
from fusefs.layout import CONTROL, FOREVER, Owner
from fusefs.memory import give_back
from fusefs.nodes import NoAttribute, Node
from fusefs.placed import Branch
from fusefs.refs_view import TopDirectory
from fusefs.rejections import Rejections
from fusefs.statistics import Statistics
from fusefs.working import Notice, WorkingDirectory
from storage.engine import Engine, TreeChange
from storage.labels import LabelIndex
from storage.maintenance.figures import figures
from storage.model.digest import Digest, hexed
from storage.mounts import Where

REJECTED = "rejected"


class View:
    """What a mount shows of a repository.

    Without `ref` and `branch` everything; with `ref` the snapshot that the revision names now; with `branch` one
    working tree. NotFound, Ambiguous where there is no such thing.
    """

    def __init__(self, engine: Engine, owner: Owner, *, ref: str | None = None, branch: str | None = None) -> None:
        self.engine = engine
        self.statistics = Statistics()
        self.statistics.sources["repository"] = lambda: asdict(figures(engine))
        report = self.statistics.report
        self._owner = owner
        self._when = time.time_ns()
        self._diffs = Diffs(engine, owner, self._when, linked=ref is None and branch is None)
        self._labels = LabelIndex(engine)
        self.snapshots = Snapshots(
            owner, lambda commit: snapshot_control(engine, commit, owner, report, self._looking_into(commit))
        )
        self._room = Room(engine.temporary)
        self._top: TopDirectory | None = None
        self._roots: dict[str, WorkingDirectory] = {}
        self.root: Node
        if ref is not None:
            self.root = self.snapshots.root(engine.snapshot(engine.resolve(ref)), FOREVER)
        elif branch is not None:
            self.root = self._roots[branch] = self.open_branch(branch)
        else:
            control = top_control(owner, report)
            self.root = self._top = TopDirectory(engine, owner, self._when, self.snapshots, self.open_branch, control)
            self._roots = self._top.branches.roots

    def open_branch(self, name: str) -> WorkingDirectory:
        """The root of a branch's working tree, with its `.arborfs`. NotFound."""
        folder = self.engine.path / CONTROL.decode() / REJECTED / name
        tree = self.engine.working_tree(name)
        root_id = self.engine.root_ids().get(name, 0)
        branch = Branch(name, tree, root_id, self._owner, self._when, self._room, Rejections(folder))
        more = merging_control(self.engine, branch, self.snapshots)
        more[b"diff"] = self._diffs.of_branch(branch, self.snapshots)
        labels = Here(self._owner, self._when, lambda what: self._labels.of_branch(branch.name, what))
        more[b"by"] = by_directory(labels)
        branch.control = branch_control(self.engine, branch, self.statistics.report, more)
        return WorkingDirectory(branch, None, b"", None)

    def _looking_into(self, commit: Digest) -> dict[bytes, Node]:
        """The directories in `.arborfs` of a commit."""
        engine = self.engine
        labels = partial(self._labels.of_commit, commit)
        here = Here(self._owner, self._when, labels, lambda: engine.snapshot(commit))
        return {b"diff": self._diffs.of_commit(commit, self.snapshots), b"by": by_directory(here)}

    def place(self, node: Node) -> bytes:
        """Where in the repository a directory is: a storage.mounts.Where as JSON. NoAttribute for what is in no tree."""
        where = Where(str(self.engine.path), self.engine.identity)
        if isinstance(node, WorkingDirectory) and not node.gone:
            where = replace(where, branch=node.branch.name, path=os.fsdecode(b"/".join(node.path)))
        elif isinstance(node, FrozenDirectory):
            where = replace(where, commit=hexed(node.snapshot.commit), path=os.fsdecode(b"/".join(node.path())))
        elif node is not self._top and node not in self.fixed():
            raise NoAttribute("only directories of branches and commits have a place in the repository")
        return msgspec.json.encode(where)

    def fixed(self) -> Iterable[Node]:
        """The directories at the top, which have inode numbers from the start, so that the kernel can be told of them."""
        top = self._top
        return [] if top is None else [top.branches, top.commits, top.tags, top.head]

    def rechecked(self, changes: Iterable[TreeChange] | None) -> Iterator[Notice]:
        """Take in what other processes changed (None: anything may have changed); what the kernel must be told."""
        if changes is None:
            yield from self._refs()
            for root in list(self._roots.values()):
                yield from root.recheck_all()
            return
        for change in changes:
            if not change.branch:
                yield from self._refs()
            else:
                yield from self._tree(change)

    def _tree(self, change: TreeChange) -> Iterator[Notice]:
        found: object = self._roots.get(change.branch)
        for name in change.directory:
            found = found.children.get(name) if isinstance(found, WorkingDirectory) else None
        if not isinstance(found, WorkingDirectory):
            return
        if change.names is None:
            yield from found.recheck_all()
            return
        for name in change.names:
            yield from found.recheck(name)
        found.entry = None
        if found.ino:
            yield Notice(found.ino)

    def _refs(self) -> Iterator[Notice]:
        if self._top is not None:
            yield from self._top.branches.recheck()
            yield from self._top.tags.recheck()
            return
        there = self.engine.root_ids()
        for name, root in list(self._roots.items()):
            if there.get(name) != root.branch.root_id:
                del self._roots[name]
                yield from root.recheck_all()

    def let_go(self) -> None:
        """Give back the memory of what can be read again. Runs in any thread."""
        self.engine.objects.empty_caches()
        # Python gives back its blocks by the megabyte, once nothing in one is used: these may be the last in many.
        gc.collect()
        give_back()

    def disk(self) -> os.statvfs_result:
        """The real disk's numbers."""
        return os.statvfs(self.engine.path)
