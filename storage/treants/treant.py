"""Treants: directories with tags, categories and data that are found again by them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import uuid4

from storage.errors import (
    DamagedState,
    Exists,
    InvalidName,
    MultipleTreants,
    NeedsCopy,
    NotADirectory,
    NotARepository,
    NotATreant,
    NotFound,
    NothingToCommit,
    NoTreants,
    WrongKind,
    WrongType,
)
from storage.files import Data as Contents
from storage.files import Files
from storage.places import Place, place_of
from storage.treants.categories import Categories, checked
from storage.treants.data import Data
from storage.treants.grammar import TagAlgebra
from storage.treants.notebook import treant_html
from storage.treants.state import STATE_NAME, TREANT, Scalar, State, decode_state, encode_state
from storage.treants.tags import Tags, flat_tags
from storage.treants.trees import Tree
from storage.treants.veg import PlainPath, Veg

if TYPE_CHECKING:
    from storage.treants.bundles import Bundle

MAKING = "treants"
"""The lock under which a directory that is there becomes a Treant, and Treants move."""


class Treant(Tree):
    """A directory of a branch with tags, categories and data, kept there and nowhere else: all is looked up anew each time, so
    that other processes' changes, and those made in a mount, are seen at once. Threads and processes may use one at once.

    A directory is a Treant by its state file, `Treant.UUID.h5`, which is an ordinary file: `cp -r` makes another Treant of
    the same uuid, a rename of the file or `rm` an ordinary directory of it. What is done to an object whose directory is no
    Treant any more raises NotATreant. In a commit a Treant is read-only: ReadOnly (a PermissionError).
    """

    __slots__ = ("_commit_on_close", "_file", "allow_pickle")

    kind: ClassVar[str] = TREANT

    def __init__(
        self,
        treant: PlainPath,
        location: PlainPath = ".",
        coordinator: None = None,
        categories: Mapping[str, Scalar | None] | Categories | None = None,
        tags: object = None,
        *,
        allow_pickle: bool = False,
        commit_on_close: str | None = None,
    ) -> None:
        """The Treant at a path (`storage.places` says where that leads), which is made if it is not there; or by the path of
        its state file, which must be there: NoTreants. Paths are seen from `location`.

        `categories` and `tags` are added to those it has. `allow_pickle` is for its `data`. With `commit_on_close` the end of a
        `with` block commits, with that message, whatever is staged on its branch. MultipleTreants (a ValueError) for a
        directory with several state files.
        """
        if coordinator is not None:
            raise NotImplementedError("there are no coordinators: nothing has to be kept in step")
        folder, name = os.path.split(os.path.join(os.fspath(location), os.fspath(treant)))
        named = STATE_NAME.fullmatch(name) is not None
        Veg.__init__(self, folder if named else os.path.join(folder, name))
        self.allow_pickle = allow_pickle
        self._commit_on_close = commit_on_close
        fresh = State("", self.kind, (), {})
        labels = _labelled(categories, tags)
        found = self._state_file()
        if found is None and named:
            raise NoTreants(f"{treant} is not there")
        if found is not None:
            self._check_kind(found)
        self._file: str = found if found is not None else self._made(labels(fresh))
        if found is not None and (categories or tags):
            self.change_state(labels)

    def _check_kind(self, state_file: str) -> None:
        """A Group is a Treant, too."""

    @classmethod
    def known(cls, text: str, place: Place | None, state_file: str) -> Self:
        """The one at an absolute path whose place and state file are known, without a look at what stands there."""
        made = cls._at(text, place)
        made._file = state_file
        made.allow_pickle = False
        made._commit_on_close = None
        return made

    def _state_file(self) -> str | None:
        """The name of the state file, None where there is none, or no directory."""
        try:
            place = self.place
        except NotARepository:
            return None
        return state_file_in(place.files, place.path, self._text)

    def _made(self, state: State) -> str:
        """Make it, and return the name of its state file: another's, if somebody made it just now."""
        place = self._place = self._place or place_of(self._text, make=True)
        state = State(str(uuid4()), state.kind, state.tags, state.categories)
        changes = {_below(place.path, state.file_name): encode_state(state)}
        try:
            place.files.write_many(changes, new=place.path)
            return state.file_name
        except Exists:
            with place.files.locked(MAKING):
                found = self._state_file()
                if found is None:
                    place.files.write_many(changes)
        return found or state.file_name

    # Its state

    @property
    def state(self) -> State:
        """What its state file says now. NotATreant; DamagedState, naming the file, where it makes no sense."""
        place = self.place
        try:
            data = place.files.read(_below(place.path, self._file))
        except (NotFound, NotADirectory):
            raise self._gone() from None
        return self._decoded(data)

    def change_state(self, change: Callable[[State], State]) -> None:
        """Put what `change` makes of the state in its place, in one step; it may be called again where others were first."""

        def changed(data: bytes | None) -> bytes:
            """The file as it shall be."""
            if data is None:
                raise self._gone()
            return encode_state(change(self._decoded(data)))

        place = self.place
        try:
            place.files.edit(_below(place.path, self._file), changed)
        except (NotFound, NotADirectory):
            self.require()
            raise

    def require(self) -> None:
        """NotATreant if its directory is no Treant, or another."""
        place = self.place
        if not place.files.exists(_below(place.path, self._file)):
            raise self._gone()

    def _decoded(self, data: bytes) -> State:
        where = os.path.join(self._text, self._file)
        state = decode_state(data, where)
        if state.file_name != self._file:
            raise DamagedState(f"it is that of {state.kind} {state.uuid}, under another name", where=where)
        return state

    def _gone(self) -> NotATreant:
        found = self._state_file()
        if found is not None:
            return NotATreant(f"{self._text} is another Treant now, {found}: open it again")
        return NotATreant(
            f"{self._text} is no Treant any more, for {self._file} is not in it: open it again where it was moved to, or "
            f"bring it back with `arborfs restore`"
        )

    # Who it is

    @property
    def uuid(self) -> str:
        """What tells it apart from others, wherever it is moved; a copy has the same."""
        return self._file.split(".")[1]

    @property
    def treanttype(self) -> str:
        """`Treant`, or `Group`."""
        return self._file.split(".")[0]

    @property
    def filepath(self) -> str:
        """The absolute path of its state file."""
        return self.abspath + self._file

    @property
    def basedir(self) -> str:
        """The absolute path of its directory."""
        return self._text

    @property
    def name(self) -> str:
        """The name of its directory. Setting it renames the directory: Exists where there is something of that name."""
        return os.path.basename(self._text)

    @name.setter
    def name(self, name: str) -> None:
        """Rename the directory."""
        if "/" in name or name in ("", ".", ".."):
            raise InvalidName(f"{name!r} cannot be the name of a directory")
        self._move(os.path.join(os.path.dirname(self._text), name))

    @property
    def location(self) -> str:
        """The absolute path of the directory that it is in. Setting it moves it there, within its branch (NeedsCopy, an
        OSError, otherwise); missing directories are made.
        """
        return os.path.dirname(self._text)

    @location.setter
    def location(self, location: PlainPath) -> None:
        """Move the directory."""
        self._move(os.path.join(os.path.abspath(location), self.name))

    def _move(self, text: str) -> None:
        here = self.place
        if not here.path:
            raise NeedsCopy(
                f"{self._text} is a repository of its own: close what uses it, and move the folder with `mv`"
            )
        try:
            there = place_of(text)
        except (NotARepository, NotFound):
            raise _elsewhere(self._text, text) from None
        if (there.files.repository, there.files.branch) != (here.files.repository, here.files.branch):
            raise _elsewhere(self._text, text)
        with here.files.locked(MAKING):
            self.require()
            above = os.path.dirname(there.path)
            if above:
                here.files.make_directory(above, parents=True)
            here.files.rename(here.path, there.path)
        self._text, self._place = text, there

    @property
    def coordinators(self) -> None:
        """None: nothing has to be kept in step. Setting it raises NotImplementedError."""

    @coordinators.setter
    def coordinators(self, value: object) -> None:
        """NotImplementedError."""
        raise NotImplementedError("there are no coordinators: nothing has to be kept in step")

    # What is kept in it

    @property
    def tags(self) -> Tags:
        """Its tags. Setting them replaces all: a list, tuple or set of texts, or the tags of another; WrongType (a
        TypeError).
        """
        return Tags(self)

    @tags.setter
    def tags(self, tags: object) -> None:
        """Replace all."""
        if not isinstance(tags, list | tuple | set | frozenset | TagAlgebra):
            raise WrongType(f"tags are a list or a set, not {type(tags).__name__}")
        fresh = tuple(sorted(set(flat_tags(tags))))
        self.change_state(lambda state: State(state.uuid, state.kind, fresh, state.categories, state.members))

    @property
    def categories(self) -> Categories:
        """Its categories. Setting them replaces all: a dict, or the categories of another; WrongType (a TypeError)."""
        return Categories(self)

    @categories.setter
    def categories(self, categories: Mapping[str, Scalar] | Categories) -> None:
        """Replace all."""
        if not isinstance(categories, dict | Categories):
            raise WrongType(f"categories are a dict, not {type(categories).__name__}")
        fresh = {key: value for key, value in checked(dict(categories.items())).items() if value is not None}
        self.change_state(lambda state: State(state.uuid, state.kind, state.tags, fresh, state.members))

    @property
    def data(self) -> Data:
        """Its data, by handle."""
        return Data(self, self.allow_pickle)

    def put_files(self, files: Mapping[str, Contents | None], compression: str = "") -> None:
        """Write and remove files of its tree, by paths from the top of that, in one step. NotATreant, also if it goes just
        now.
        """
        place = self.place
        try:
            place.files.write_many(files, needs=_below(place.path, self._file), compression=compression)
        except NotFound:
            self.require()
            raise

    def __getitem__(self, key: Any) -> Any:
        """The data of that handle; where there is none, what a tree has at that path: a Tree or Leaf, there or not."""
        return self.data[key] if isinstance(key, str) and self._has_data(key) else super().__getitem__(key)

    def _has_data(self, handle: str) -> bool:
        try:
            return handle in self.data
        except InvalidName:
            return False

    def __setitem__(self, handle: str, data: object) -> None:
        """Store data under that handle."""
        self.data.add(handle, data)

    def __delitem__(self, handle: str) -> None:
        """Remove the data of that handle."""
        self.data.remove(handle)

    def __add__(self, other: object) -> Bundle:
        """A Bundle of it and another Treant, or those of another Bundle."""
        from storage.treants.bundles import Bundle  # it is made of Treants

        return Bundle(self, other) if isinstance(other, Treant | Bundle) else NotImplemented

    # Its end

    def close(self) -> None:
        """Commit what is staged on its branch if it was opened with `commit_on_close`."""
        if self._commit_on_close is not None:
            try:
                self.commit(self._commit_on_close)
            except NothingToCommit:
                return

    def __enter__(self) -> Self:
        """The Treant itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it. After an error nothing is committed; what was done is staged."""
        if kind is None:
            self.close()

    def __lt__(self, other: object) -> bool:
        """In the order of the names, and of paths where these are equal."""
        if isinstance(other, Treant):
            return (self.name, self.abspath) < (other.name, other.abspath)
        return super().__lt__(other)

    def __repr__(self) -> str:
        """What it is, and its name."""
        return f"<{type(self).__name__}: {self.name!r}>"

    def _repr_html_(self) -> str:
        return treant_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """By the path of its state file: another process looks there itself."""
        return _reopened, (type(self), self.filepath, self.allow_pickle)


def state_file_in(files: Files, path: str, text: str) -> str | None:
    """The name of the state file in a directory, None without one. WrongKind where a file is, MultipleTreants; `text` is for
    these.
    """
    if not files.exists(path):  # a fraction of what it takes to list what is not there
        return None
    try:
        names = [name for name, info in files.list(path) if STATE_NAME.fullmatch(name) and not info.is_directory]
    except NotFound:
        return None
    except NotADirectory:
        raise WrongKind(f"{text} is a file, or in one, and no directory") from None
    if len(names) > 1:
        raise MultipleTreants(text, names)
    return names[0] if names else None


def _labelled(categories: Any, tags: object) -> Callable[[State], State]:
    """What adds categories and tags to a state. Checked at once."""
    fresh_tags = set(flat_tags([] if tags is None else tags))
    fresh = checked(dict(categories or {}))

    def add(state: State) -> State:
        """The state with them."""
        kept = {key: value for key, value in {**state.categories, **fresh}.items() if value is not None}
        return State(state.uuid, state.kind, tuple(sorted({*state.tags, *fresh_tags})), kept, state.members)

    return add


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _elsewhere(old: str, new: str) -> NeedsCopy:
    return NeedsCopy(f"{new} is not on the branch that {old} is on: copy it there, and remove the old one")


def _reopened(kind: type[Treant], path: str, allow_pickle: bool) -> Treant:
    return kind(path, allow_pickle=allow_pickle)
