"""A repository as Python sees it: where everything begins."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, overload

from storage import html, reports
from storage.checkout import Checkout, ReaderCheckout, StagedCheckout, WriterCheckout
from storage.config import folder
from storage.diffing import DiffAndConflicts, named_tree, three_way
from storage.disk.locks import Owner
from storage.engine import Engine
from storage.errors import (
    Closed,
    IntegrityFault,
    NotADirectory,
    NotARepository,
    NotFound,
    NotYet,
    UnknownRevision,
    Unsupported,
)
from storage.files import Files
from storage.home import delete_data, require_64_bits, require_folder
from storage.labels import LabelIndex
from storage.maintenance.verify import verify
from storage.model.digest import Digest, hexed
from storage.model.records import Author
from storage.model.texts import form, printable, size_text
from storage.rows import BranchHead, OperationRow, Tag, operation_row
from storage.session import Home, when_dropped


class Repository:
    """A versioned repository of datasets in a folder. Thread-safe.

    Making the object changes nothing on disk. Where the folder holds no repository yet, a UserWarning says
    so: call `init` first. NotADirectory (a NotADirectoryError) where there is a file. With `exists` the folder itself must be
    there and take files: FileNotFoundError, PermissionError. Any number of processes may use one repository at once; when
    pickled, only the path travels. OSError where Python has 32 bits: a large repository would have no room in its memory.
    """

    def __init__(self, path: str | os.PathLike[str], exists: bool = False) -> None:
        require_64_bits()
        self._path = Path(path).expanduser().absolute()
        if self._path.exists() and not self._path.is_dir():
            raise NotADirectory(f"{self._path} is a file: a repository needs a folder")
        if exists:
            require_folder(self._path)
        self._checkouts: weakref.WeakSet[Checkout] = weakref.WeakSet()
        self._engine: Engine | None = None
        self._label_index: LabelIndex | None = None
        self._closed = False
        try:
            self._engine = self._kept(Engine.open(self._path))
        except NotARepository:
            warnings.warn(
                f"No repository exists at {folder(self._path)}, please use `repo.init()` first.",
                UserWarning,
                stacklevel=2,
            )

    # Beginning and end

    def init(self, user_name: str, user_email: str, *, remove_old: bool = False) -> str:
        """Make the repository and return the path of its data, which is also printed.

        Name and email stand in every commit. RepositoryExists (an OSError) where there is one already; with
        `remove_old` that one is deleted for ever, unless somebody else has it open (Busy).
        """
        for what, text in (("user_name", user_name), ("user_email", user_email)):
            if not isinstance(text, str) or not text.strip():
                raise Unsupported(f"{what} must be a text that is not empty")
        author = Author(user_name.strip(), user_email.strip())
        if remove_old:
            self.close()
            delete_data(folder(self._path))
        self._engine, self._closed = self._kept(Engine.create(self._path, author)), False
        where = str(folder(self._path))
        print(f"directory initialized at: {where}")
        return where

    @property
    def remote(self) -> NoReturn:
        """Other places that commits are pushed to and fetched from. NotYet (a NotImplementedError): there are none yet."""
        raise NotYet(
            "This version of arborfs has no remotes: "
            "copy the repository's folder while nobody has it open, with `cp -a` or `rsync -a`."
        )

    def close(self) -> None:
        """Close all checkouts and let go of the repository. What is staged stays. Closing twice is fine."""
        for checkout in list(self._checkouts):
            if checkout.is_open:
                checkout.close()
        engine, self._engine, self._closed = self._engine, None, True
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        """The repository itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """The path: where it arrives, the repository is opened again."""
        return type(self), (self._path,)

    def _kept(self, engine: Engine) -> Engine:
        """An engine that is closed, at the latest, when nobody can use this object any more, or the process ends."""
        when_dropped(self, partial(_let_go, engine))
        return engine

    @property
    def _home(self) -> Home:
        return Home(self, self._path, reopened)

    def _opened(self) -> Engine:
        if self._closed:
            raise Closed(f"The repository at {self._path} has been closed. Open it again with Repository(path).")
        if self._engine is None:
            try:
                self._engine = self._kept(Engine.open(self._path))  # another process may have made it meanwhile
            except NotARepository:
                raise NotARepository(
                    f"Repository at path: {self._path} has not been initialized. Please run the `init()` function."
                ) from None
        return self._engine

    # Looking at it

    @property
    def path(self) -> Path:
        """The folder that the repository is in."""
        return self._path

    @property
    def initialized(self) -> bool:
        """Whether there is a repository in the folder."""
        if self._closed:
            return False
        try:
            self._opened()
        except NotARepository:
            return False
        return True

    @property
    def version(self) -> str:
        """The version of arborfs."""
        try:
            return version("arborfs")
        except PackageNotFoundError:  # used from its sources
            return "0"

    @property
    def writer_lock_held(self) -> bool:
        """Whether a live process holds the writer lock of some branch."""
        engine = self._opened()
        return any(engine.writer_held(branch) is not None for branch in engine.branches())

    @property
    def size_nbytes(self) -> int:
        """Bytes the repository takes on its disk."""
        return self._opened().disk_usage()

    @property
    def size_human(self) -> str:
        """The same for people: `46.13 MB`."""
        return size_text(self.size_nbytes)

    def summary(self, *, branch: str = "", commit: str = "") -> None:
        """Print what the last commit of the default branch holds; or of `branch`; or what `commit` holds."""
        engine = self._opened()
        print(reports.summary_text(engine, self._revision(engine, branch or "", commit or "")))

    @overload
    def log(
        self,
        branch: str | None = None,
        commit: str | None = None,
        *,
        return_contents: Literal[True],
        show_time: bool = True,
        show_user: bool = True,
    ) -> dict[str, Any]: ...

    @overload
    def log(
        self,
        branch: str | None = None,
        commit: str | None = None,
        *,
        return_contents: Literal[False] = False,
        show_time: bool = True,
        show_user: bool = True,
    ) -> None: ...

    def log(
        self,
        branch: str | None = None,
        commit: str | None = None,
        *,
        return_contents: bool = False,
        show_time: bool = True,
        show_user: bool = True,
    ) -> dict[str, Any] | None:
        """Print the history of the default branch, newest commit first; or of `branch`; or of `commit`.

        With `return_contents` nothing is printed and a dict is returned: `head`, `order`, `ancestors`,
        `specs`, `branch_heads`.
        """
        engine = self._opened()
        start = self._revision(engine, branch or "", commit or "")
        return reports.log(engine, start, return_contents, show_time=show_time, show_user=show_user)

    def status(self, branch: str = "") -> str:
        """`DIRTY` if something is staged on the branch (the default one unless named), else `CLEAN`."""
        engine = self._opened()
        return "DIRTY" if engine.working_tree(_known_branch(engine, branch)).is_dirty() else "CLEAN"

    def diff(self, master: str, dev: str) -> DiffAndConflicts:
        """What `dev` has that `master` has not, and what of it conflicts; each a branch, a tag or any revision.

        Where both went on from a common ancestor, the differences are those that `dev` made since then: what
        merging it would bring. A `+` behind a branch's name means its working tree: `diff("main", "main+")`.
        ValueError for what is not there.
        """
        engine = self._opened()
        return three_way(engine, named_tree(engine, master), named_tree(engine, dev))

    def _revision(self, engine: Engine, branch: str, commit: str, tag: str = "") -> Digest | None:
        """The commit that is meant: None before the first one of the branch."""
        if sum(map(bool, (branch, commit, tag))) > 1:
            raise Unsupported("name a branch, a commit or a tag, not several of them")
        if tag:
            return _known(engine.tags(), tag, "tag")
        if commit:
            try:
                return engine.resolve(commit)
            except NotFound as error:
                raise UnknownRevision(f"No commit exists with the hash: {commit}") from error
        return engine.branches()[_known_branch(engine, branch)]

    # Checkouts

    @overload
    def checkout(
        self,
        write: Literal[False] = False,
        *,
        branch: str = "",
        commit: str = "",
        tag: str = "",
        staged: Literal[False] = False,
    ) -> ReaderCheckout: ...

    @overload
    def checkout(
        self, write: Literal[True], *, branch: str = "", commit: str = "", tag: str = "", staged: Literal[False] = False
    ) -> WriterCheckout: ...

    @overload
    def checkout(
        self, write: Literal[False] = False, *, branch: str = "", commit: str = "", tag: str = "", staged: Literal[True]
    ) -> StagedCheckout: ...

    def checkout(
        self, write: bool = False, *, branch: str = "", commit: str = "", tag: str = "", staged: bool = False
    ) -> ReaderCheckout | WriterCheckout | StagedCheckout:
        """A checkout to read (of a branch's last commit, a tag, or any revision), or to write (of a branch).

        With `staged` one to read a branch as it stands, with what is staged on it and not committed yet; any number of them.
        The default branch unless another is named. A commit may be named by any unambiguous beginning, and
        as `main~2`. Each branch has one writer at a time: WriterLockHeld (a PermissionError) while another
        one lives; the lock of a dead one is taken over with a warning. ValueError for a branch, tag or
        commit that is not there, also for readers before the first commit.
        """
        engine = self._opened()
        if not isinstance(write, bool):
            raise Unsupported(f"write must be True or False, not {write!r}")
        if write:
            if commit or tag:
                raise Unsupported("commits and tags never change: write on a branch")
            if staged:
                raise Unsupported("a writer sees what is staged: leave out staged=True")
            return self._writer(engine, _known_branch(engine, branch))
        if staged:
            if commit or tag:
                raise Unsupported("nothing is staged on commits and tags: name a branch")
            looking = StagedCheckout(engine, _known_branch(engine, branch), self._home)
            self._checkouts.add(looking)
            return looking
        found = self._revision(engine, branch, commit, tag)
        if found is None:
            raise UnknownRevision(f"No commit exists with the hash: {commit}")
        reader = ReaderCheckout(engine, found, self._home)
        self._checkouts.add(reader)
        return reader

    def _writer(self, engine: Engine, branch: str) -> WriterCheckout:
        owner = engine.acquire_writer(branch)
        try:
            writer = WriterCheckout(engine, branch, partial(_release, self, engine, branch, owner), self._home)
        except BaseException:
            engine.release_writer(branch, owner)
            raise
        self._checkouts.add(writer)
        return writer

    def files(self, *, branch: str = "", commit: str = "", tag: str = "") -> Files:
        """The files and directories of a branch as it stands (the default one unless named), to read and to change, or of a
        commit or tag, to read.

        What a mount shows, without one: any number of processes may change a branch this way at once, and no writer lock is
        held. ValueError for a branch, tag or commit that is not there.
        """
        engine = self._opened()
        if not commit and not tag:
            return Files(engine.working_tree(_known_branch(engine, branch)), self._home, self._labels(engine))
        found = self._revision(engine, branch, commit, tag)
        if found is None:
            raise UnknownRevision(f"No commit exists with the hash: {commit}")
        return Files(engine.snapshot(found), self._home, self._labels(engine))

    def _labels(self, engine: Engine) -> LabelIndex:
        if self._label_index is None or self._label_index.engine is not engine:
            self._label_index = LabelIndex(engine)
        return self._label_index

    def force_release_writer_lock(self) -> bool:
        """Take the writer lock away from whoever holds it, on every branch; True.

        Only for a writer that is gone without closing its checkout, or never will: two writers on one
        branch may overwrite each other's samples.
        """
        self._opened().force_release_writer()
        warnings.warn("USER WARNING: Writer lock force released.", UserWarning, stacklevel=2)
        return True

    # Branches and tags

    def list_branches(self) -> list[str]:
        """The names of all branches."""
        return sorted(self._opened().branches())

    def create_branch(self, name: str, base_commit: str | None = None) -> BranchHead:
        """A new branch at any revision; at the default branch's last commit if none is named.

        ValueError for a name that cannot be or is taken, and for an unknown revision.
        """
        engine = self._opened()
        base = self._revision(engine, "", base_commit or "")
        engine.create_branch(name, base)
        return BranchHead(name, hexed(base) if base is not None else "")

    def remove_branch(self, name: str, *, force_delete: bool = False) -> BranchHead:
        """Remove a branch, and return what it was.

        ValueError where there is none; BranchInUse for the default branch and while a writer holds it;
        NotMerged (a RuntimeError) if it has commits or staged work found nowhere else, unless
        `force_delete`.
        """
        engine = self._opened()
        tip = engine.branches()[_known_branch(engine, name, default=False)]
        engine.remove_branch(name, force=force_delete)
        return BranchHead(name, hexed(tip) if tip is not None else "")

    def verify_repo_integrity(self) -> bool:
        """Read everything that is stored, hold it against its digests, and follow every reference; True where all is well.

        IntegrityFault (a RuntimeError) with its `problems` otherwise: each says what is wrong, where, and what to do.
        """
        problems = verify(self._opened())
        if problems:
            raise IntegrityFault(problems)
        return True

    def merge(self, message: str, master_branch: str, dev_branch: str) -> str:
        """Merge a branch (or any revision) into another branch; the hash of the new last commit of that one.

        Where `master_branch` has nothing of its own it moves there: no commit is made and `message` is not used. ValueError
        for names that are not there; WriterLockHeld (a PermissionError) while a writer has the branch; StagedWork (a
        RuntimeError) while anything is staged on it; MergeConflict (a ValueError), with its `conflicts`, where both changed
        the same, and nothing is changed. A writer checkout's `merge` can leave conflicts open to be resolved.
        """
        engine = self._opened()
        with self._writer(engine, _known_branch(engine, master_branch, default=False)) as writer:
            return writer.merge(message, dev_branch)

    def list_tags(self) -> list[str]:
        """The names of all tags."""
        return sorted(self._opened().tags())

    def create_tag(self, name: str, commit: str = "", message: str = "") -> str:
        """Name a commit, the default branch's last one unless another is given, for ever; the commit's hash."""
        engine = self._opened()
        digest = self._revision(engine, "", commit)
        if digest is None:
            raise UnknownRevision(f"No commit exists with the hash: {commit}")
        engine.create_tag(name, digest, message)
        return hexed(digest)

    def tag(self, name: str) -> Tag:
        """A tag with its commit and message. ValueError where there is none."""
        try:
            found = self._opened().tag(name)
        except NotFound as error:
            raise UnknownRevision(str(error)) from error
        return Tag(name, hexed(Digest(found.digest)), found.message, found.time / 1e9)

    def remove_tag(self, name: str) -> Tag:
        """Remove a tag, and return what it was; its commit stays. ValueError where there is none."""
        tag = self.tag(name)
        self._opened().remove_tag(name)
        return tag

    # Taking back

    def operations(self, limit: int | None = None) -> list[OperationRow]:
        """The operation log, newest first: everything that ever moved a branch, a tag or HEAD."""
        return [operation_row(operation) for operation in self._opened().operations(limit)]

    def undo(self, number: int | None = None) -> OperationRow:
        """Take back the last operation, or the one of that number; which one it was. Undo once more to do it again.

        A commit's changes come back as staged work, so that no sample changes; a removed branch comes back at its tip with what
        was staged on it, and so does what a reset dropped. Conflict (a RuntimeError with `ref`, `expected`, `found`) where
        a ref has moved since; NothingToUndo for the repository's beginning; BranchInUse where a branch would go that is the
        default one or that a writer holds.
        """
        return operation_row(self._opened().undo(number))

    def restore_operation(self, number: int) -> None:
        """Bring all branches, tags and the default branch back to where they were after that operation; an operation, too.

        Datasets on branches that are there stay as they are: what differs is staged afterwards.
        """
        self._opened().restore_operation(number)

    def __repr__(self) -> str:
        """Where it is, and on which branch."""
        return form("Repository", self._facts(), 16)

    def _repr_html_(self) -> str:
        if self._closed or not self.initialized:
            return html.card(self._path.name, "Arborfs Repository", html.facts(self._facts()))
        return reports.repository_html(self._opened())

    def _facts(self) -> list[tuple[str, object]]:
        where = ("Repository Path", printable(str(self._path)))
        if self._closed:
            return [where, ("Closed", True)]
        if not self.initialized:
            return [where, ("Initialized", False)]
        return [where, ("Default Branch", self._opened().head())]


def reopened(path: str, commit: str) -> ReaderCheckout:
    """A commit of the repository in that folder: what a pickled checkout becomes."""
    return Repository(path).checkout(commit=commit)


def _release(repository: Repository, engine: Engine, branch: str, owner: Owner) -> None:
    """Give a writer lock back. The repository is named to stay open until that is done."""
    engine.release_writer(branch, owner)


def _let_go(engine: Engine) -> None:
    """Close an engine that nobody has closed, unless its repository has been deleted meanwhile."""
    if folder(engine.path).exists():
        engine.close()


def _known_branch(engine: Engine, branch: str, *, default: bool = True) -> str:
    if not branch and default:
        return engine.head()
    if branch not in engine.branches():
        raise UnknownRevision(f"there is no branch {branch!r}: {_listed(engine.branches())}")
    return branch


def _known(tags: dict[str, Digest], name: str, what: str) -> Digest:
    if name not in tags:
        raise UnknownRevision(f"there is no {what} {name!r}: {_listed(tags)}")
    return tags[name]


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    return f"there are {', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else "there are none"
