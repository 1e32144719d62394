"""Checkouts: one branch to read and change, or one commit to read."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

from storage import notebook, reports, reprs
from storage.dataset_reader import DatasetDataReader
from storage.datasets import Datasets
from storage.diffing import Differ, WriterDiffer
from storage.engine import Engine
from storage.errors import NotFound, NothingToCommit, UnknownRevision, Unsupported
from storage.exporting import export_tree
from storage.formats.base import By, Meter
from storage.importing import ImportReport, import_files
from storage.merging import Choice, Conflict, MergeResult, Merging
from storage.metadata import FOLDER, Metadata
from storage.model.digest import Digest, hexed
from storage.model.names import split_path
from storage.restoring import restore
from storage.session import Home, Session, when_dropped
from storage.snapshot import Snapshot
from storage.working import WorkingReader


class Checkout:
    """What all kinds of checkouts are: a way to datasets and metadata that can be closed. Thread-safe.

    It is also a dict of the datasets: `co["images"]`, `co["images", "0"]` for a sample, `co["pairs", "0", "left"]` for a value
    of a nested one and `co["pairs", "0", ...]` for all of them, `co[("images", "0"), ("labels", "0")]`, or a list of such keys,
    for a list of samples.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self._datasets = Datasets(session)
        self._metadata = Metadata(session)

    @reprs.part
    def datasets(self) -> Datasets:
        """The datasets by name. Closed after `close`."""
        self._session.require_open()
        return self._datasets

    @reprs.part
    def metadata(self) -> Metadata:
        """The metadata, as a dict of str to str. Closed after `close`."""
        self._session.require_open()
        return self._metadata

    def __getitem__(self, keys: Any) -> Any:
        """A dataset, a sample, a value of a nested sample, or a list of those: see the class. KeyError where there is none."""
        self._session.require_open()
        if _are_several(keys):
            return [self[each] for each in keys]
        return self._one(keys if isinstance(keys, tuple) else (keys,))

    def get(self, keys: Any, default: Any = None, except_missing: bool = False) -> Any:
        """As `co[keys]`, with `default` in the place of whatever is not there; KeyError for that with `except_missing`."""
        self._session.require_open()
        if except_missing:
            return self[keys]
        if _are_several(keys):
            return [self.get(each, default) for each in keys]
        try:
            return self[keys]
        except KeyError:
            return default

    def _one(self, keys: tuple[Any, ...]) -> Any:
        if not 1 <= len(keys) <= 3:
            raise Unsupported(
                f"{keys!r} names nothing: give a dataset, a key, and of a nested sample a second key or ..."
            )
        found: Any = self._datasets[keys[0]]
        for key in keys[1:]:
            if not isinstance(found, Mapping):
                raise NotFound(f"sample {keys[1]!r} of dataset {keys[0]!r} is one value, without any below it")
            found = found[key]
        return found

    def __contains__(self, name: object) -> bool:
        """Whether there is a dataset of that name."""
        return name in self.datasets

    def __len__(self) -> int:
        """How many datasets there are."""
        return len(self.datasets)

    def __iter__(self) -> Iterator[str]:
        """The names of the datasets."""
        return iter(self.datasets)

    def keys(self) -> KeysView[str]:
        """The names of the datasets."""
        return self.datasets.keys()

    def values(self) -> ValuesView[DatasetDataReader]:
        """The datasets."""
        return self.datasets.values()

    def items(self) -> ItemsView[str, DatasetDataReader]:
        """The datasets by name."""
        return self.datasets.items()

    def export(
        self,
        path: str,
        destination: str | os.PathLike[str],
        *,
        format: str = "",
        force: bool = False,
        meter: Meter | None = None,
    ) -> Path:
        """Write a dataset, sample, file or directory (empty: everything) to a file or directory, and return that.

        The destination's ending says the format: `.npy`, `.npz`, `.h5`, `.csv`, `.parquet`, images; none means files as
        they look in a mount. `format` names another. It appears whole or not at all. Exists (a FileExistsError) where
        there is something, unless `force`; KeyError where there is no `path`; ValueError for what the format cannot hold.
        """
        parts = tuple(os.fsencode(part) for part in path.split("/") if part)
        return export_tree(self._session, parts, destination, format=format, force=force, meter=meter)

    @property
    def commit_hash(self) -> str:
        """The commit, or the branch's last one: 64 hexadecimal digits; empty before the first one."""
        tip = self._tip()
        return hexed(tip) if tip is not None else ""

    @overload
    def log(
        self, *, return_contents: Literal[True], show_time: bool = True, show_user: bool = True
    ) -> dict[str, Any]: ...

    @overload
    def log(
        self, *, return_contents: Literal[False] = False, show_time: bool = True, show_user: bool = True
    ) -> None: ...

    def log(
        self, *, return_contents: bool = False, show_time: bool = True, show_user: bool = True
    ) -> dict[str, Any] | None:
        """Print the history of what is checked out, newest commit first; or return it, as `Repository.log` does."""
        return reports.log(self._engine, self._tip(), return_contents, show_time=show_time, show_user=show_user)

    def _tip(self) -> Digest | None:
        """The commit that is checked out, or the branch's last one; None before the first one. Closed."""
        tree = self._session.tree
        return tree.commit if isinstance(tree, Snapshot) else tree.tip()

    def __reduce__(self) -> tuple[Any, ...]:
        """Path and commit: the repository is opened again where they arrive. ReadOnly for a branch's, which may change."""
        reopen, *address = self._session.address()
        return reopen, tuple(address)

    @property
    def is_open(self) -> bool:
        """Whether the checkout has not been closed."""
        return self._session.is_open

    def close(self) -> bool:
        """Close the checkout; True. From then on using it, or anything got from it, raises Closed."""
        self._session.require_open()
        self._session.close()
        return True

    def __repr__(self) -> str:
        """What is checked out."""
        return reprs.checkout_text(type(self).__name__, self._session, self._facts())

    def _repr_html_(self) -> str:
        return notebook.checkout_html(type(self).__name__, self._session, self._facts(), self._datasets, FOLDER)

    def _ipython_key_completions_(self) -> list[str | tuple[str, str]]:
        return reprs.pair_completions(self._datasets)

    def _facts(self) -> list[tuple[str, object]]:
        """What a repr tells, by label."""
        return []

    def __enter__(self) -> Self:
        """The checkout itself."""
        self._session.require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the checkout. What is staged stays staged."""
        if self.is_open:
            self.close()


class ReaderCheckout(Checkout):
    """A commit's datasets and metadata. Nothing in it ever changes.

    It can be pickled, with or without its datasets: where it arrives, the repository is opened again.
    """

    def __init__(self, engine: Engine, commit: Digest, home: Home) -> None:
        super().__init__(engine, Session(engine.snapshot(commit), home))
        self._commit = commit
        self._differ = Differ(engine, self._session, lambda: engine.committed(commit))

    @property
    def diff(self) -> Differ:
        """What differs between this commit and others."""
        self._session.require_open()
        return self._differ

    def _facts(self) -> list[tuple[str, object]]:
        return [("Writer", False), ("Commit Hash", hexed(self._commit))]


class BranchCheckout(Checkout):
    """What is common to the checkouts of a branch as it stands."""

    def __init__(self, engine: Engine, tree: WorkingReader, branch: str, home: Home) -> None:
        super().__init__(engine, Session(tree, home))
        self._branch = branch

    @property
    def branch_name(self) -> str:
        """The branch that is checked out, or looked at."""
        self._session.require_open()
        return self._branch


class StagedCheckout(BranchCheckout):
    """A branch's datasets and metadata as they stand, staged work included, to read only. What is staged later shows, too."""

    def __init__(self, engine: Engine, branch: str, home: Home) -> None:
        super().__init__(engine, engine.working_reader(branch), branch, home)

    def _facts(self) -> list[tuple[str, object]]:
        return [("Writer", False), ("Base Branch", self._branch)]


class WriterCheckout(BranchCheckout):
    """A branch's datasets and metadata, to read and to change.

    Changes are staged on the branch: they are safe from the end of the process, are seen by mounts and by
    the next checkout of the branch, and become a commit with `commit`. Holds the branch's writer lock until
    `close`.
    """

    def __init__(self, engine: Engine, branch: str, release: Callable[[], None], home: Home) -> None:
        tree = engine.working_tree(branch)
        super().__init__(engine, tree, branch, home)
        # The lock goes with the last that could write: a checkout that was dropped or left to the end of the process frees it.
        self._release = release
        self._dropped = when_dropped(self._session, release)
        self._differ = WriterDiffer(engine, self._session, tree.standing)

    @property
    def diff(self) -> WriterDiffer:
        """What is staged, and what differs between the branch as it stands and other states."""
        self._session.require_open()
        return self._differ

    def commit(self, message: str, *, metadata: Mapping[str, str] | None = None) -> str:
        """Freeze everything staged on the branch as a commit and return its name, 64 hexadecimal digits.

        `metadata` are texts by name that the commit itself bears; `log` shows them. Unsupported (a ValueError) for others.
        Includes what open batches hold. The commit survives power loss when this returns; the checkout stays
        open. NothingToCommit (a RuntimeError) when nothing is staged.
        """
        self._session.flush()
        if metadata is not None and not isinstance(metadata, Mapping):
            raise Unsupported(f"metadata of a commit are a dict of texts by name, not {type(metadata).__name__}")
        return hexed(self._session.working_tree.commit(message, metadata=metadata))

    def merge(self, message: str, dev_branch: str, *, leave_open: bool = False) -> str:
        """Merge a branch, or any revision, into this one; the hash of the branch's new last commit.

        Where this branch has nothing of its own it moves there, and no commit is made. Nothing may be staged: StagedWork
        (a RuntimeError). MergeConflict (a ValueError) with its `conflicts` where both sides changed the same, and nothing
        is changed. With `leave_open` the merge is under way then: see `conflicts`, resolve each by writing or removing what
        it is about, or with `resolve`, then `commit`; or give it up with `abort_merge`.
        """
        theirs = self._revision(dev_branch)
        self._session.flush()
        return self._made(self._merging.merge(theirs, message, name=dev_branch, leave_open=leave_open))

    def revert(self, commit: str, message: str = "", *, parent: int | None = None, leave_open: bool = False) -> str:
        """Take back what a commit changed, as a new commit; its hash. Of a merge, against its parent number `parent`.

        Errors and `leave_open` as of `merge`.
        """
        taken = self._revision(commit)
        self._session.flush()
        return self._made(self._merging.revert(taken, message, parent=parent, leave_open=leave_open))

    def cherry_pick(
        self, commit: str, message: str = "", *, parent: int | None = None, leave_open: bool = False
    ) -> str:
        """Make the changes of another branch's commit here, as a new commit; its hash. Otherwise as `revert`."""
        taken = self._revision(commit)
        self._session.flush()
        return self._made(self._merging.cherry_pick(taken, message, parent=parent, leave_open=leave_open))

    @property
    def conflicts(self) -> list[Conflict]:
        """The open conflicts of the merge that is under way, by path; none where no merge is."""
        self._session.require_open()
        return self._merging.conflicts()

    def resolve(self, path: str, choice: Choice) -> None:
        """Settle the conflict at `path` (as in a mount: `images/7.npy`): stage what `ours` or `theirs` has, or `delete`.

        NotFound (a KeyError) without such a conflict, NoMergeUnderWay (a RuntimeError) without a merge.
        """
        self._session.flush()
        self._merging.resolve(split_path(path), choice)

    def abort_merge(self) -> None:
        """Give the merge that is under way up: the branch is as before it, without anything staged. NoMergeUnderWay."""
        self._session.flush()
        self._merging.abort()

    @property
    def _merging(self) -> Merging:
        self._session.require_open()
        return self._engine.merging(self._branch)

    def _made(self, result: MergeResult) -> str:
        return hexed(result.commit) if result.commit is not None else ""

    def amend(self, message: str | None = None) -> str:
        """Put a commit of everything staged in the last one's place, with its message unless one is given; the new one's name.

        Only this branch moves; `Repository.undo` brings the old commit back. NothingToCommit (a RuntimeError) when nothing
        would differ, and before the first commit.
        """
        self._session.flush()
        return hexed(self._session.working_tree.amend(message))

    def reset_staging_area(self, *, force: bool = False) -> str:
        """Drop everything staged on the branch, open batches included; the name of its last commit, empty before the first.

        NothingToCommit (a RuntimeError) when nothing is staged, unless `force`. `Repository.undo` brings the work back.
        """
        self._session.flush()
        tree = self._session.working_tree
        if not force and not tree.is_dirty():
            raise NothingToCommit("No changes made in staging area. No reset necessary.")
        self._engine.reset_hard(self._branch, tree.tip())
        return self.commit_hash

    def reset(self, commit: str, *, soft: bool = False) -> str:
        """Move the branch to a commit, given as any revision, its datasets with it; the commit's name.

        StagedWork (a RuntimeError) while anything is staged: commit it, or drop it with `reset_staging_area`. With `soft` the
        datasets stay as they are, so that what differs is staged. `Repository.undo` takes it back.
        """
        self._session.flush()
        move = self._engine.reset_soft if soft else self._engine.reset
        move(self._session.working_tree.branch, self._revision(commit))
        return self.commit_hash

    def restore(self, path: str, commit: str = "", *, remove: bool = False) -> None:
        """Put a file, a sample, a dataset or a directory back as it is in a commit, as staged work.

        The commit is the branch's last one unless another revision is given. `path` begins at the top of the tree: `images`,
        `images/0.npy`; an empty one is everything. A directory comes back whole. KeyError for what the commit does not have;
        with `remove` it goes here, too. SchemaMismatch (a ValueError) for a sample that the dataset as it is now does not take.
        """
        self._session.flush()
        source = self._engine.snapshot(self._revision(commit or self._branch))
        restore(self._session.working_tree, source, split_path(path), remove=remove)

    def _revision(self, text: str) -> Digest:
        try:
            return self._engine.resolve(text)
        except NotFound as error:
            raise UnknownRevision(f"No commit exists with the hash: {text}") from error

    def import_files(
        self,
        *paths: str | os.PathLike[str],
        dataset: str,
        format: str = "",
        by: By = "",
        key: str = "",
        overwrite: bool = False,
        variable_shape: bool = False,
        meter: Meter | None = None,
    ) -> ImportReport:
        """Import files and directories into `dataset`, which is made if need be: all of it is staged, or nothing.

        The ending of a file says its format, or `format` names it: `npy`, `npz`, `hdf5`, `image`, `csv`, `parquet`, `tree`
        (files as they are; the usual for directories) or a plug-in. Of a directory given with another format, the
        files of that format below it are taken, those in subdirectories into datasets below. `by` says what becomes one
        sample: a `file`, a `row` or a `column` (for `npz` the last two make each member a dataset). Samples are named after
        files, by the column `key`, or numbered on.

        ValueError, naming file and row, for what cannot be read or does not fit; FileExistsError where a name is taken
        by something else, unless `overwrite`. Samples of a new dataset have one shape, unless `variable_shape`. Memory
        stays bounded, whatever the size. An error or interrupt leaves the branch as it was.
        """
        self._session.flush()
        return import_files(
            self._session.working_tree,
            paths,
            dataset,
            format=format,
            by=by,
            key=key,
            overwrite=overwrite,
            variable_shape=variable_shape,
            meter=meter,
        )

    def flush(self) -> None:
        """Stage what open batches hold, and make everything staged so far survive power loss."""
        self._session.require_open()
        self._session.flush()
        self._engine.sync()

    def close(self) -> bool:
        """Close the checkout and release the writer lock; True. What is staged stays staged.

        From then on using it, or anything got from it, raises Closed. When an open batch cannot be staged,
        this raises and the checkout stays open.
        """
        super().close()
        if self._dropped.detach() is not None:
            self._release()
        return True

    def _facts(self) -> list[tuple[str, object]]:
        return [("Writer", True), ("Base Branch", self._branch)]


def _are_several(keys: Any) -> bool:
    """Whether these are keys of several things, rather than the parts of one."""
    return isinstance(keys, list) or (
        isinstance(keys, tuple) and bool(keys) and all(isinstance(k, tuple) for k in keys)
    )
