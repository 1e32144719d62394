"""Groups: Treants that refer to other Treants, and find them again where they were moved."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import msgspec

from storage.errors import ArborError, NotATreant, NotFound
from storage.places import Place, place_of
from storage.treants.categories import Categories
from storage.treants.data_of_many import AggData
from storage.treants.mapping import mapped
from storage.treants.state import GROUP, Member, Scalar, State
from storage.treants.treant import Treant
from storage.treants.veg import PlainPath

if TYPE_CHECKING:
    from storage.treants.bundles import Bundle


class Group(Treant):
    """A Treant that keeps which other Treants belong to it, in the order in which they were added; it may be one of them."""

    __slots__ = ()

    kind: ClassVar[str] = GROUP

    def __init__(
        self,
        group: PlainPath,
        members: object = None,
        location: PlainPath = ".",
        coordinator: None = None,
        categories: Mapping[str, Scalar | None] | Categories | None = None,
        tags: object = None,
        *,
        allow_pickle: bool = False,
        commit_on_close: str | None = None,
    ) -> None:
        """The Group at a path, which is made if it is not there, as for `Treant`; NotATreant where there is a Treant that is
        none. `members` are added to those it has.
        """
        super().__init__(
            group,
            location,
            coordinator,
            categories,
            tags,
            allow_pickle=allow_pickle,
            commit_on_close=commit_on_close,
        )
        if members is not None:
            self.members.add(members)

    def _check_kind(self, state_file: str) -> None:
        if not state_file.startswith(GROUP):
            raise NotATreant(f"{self._text} is a Treant, but no Group")

    @property
    def members(self) -> GroupMembers:
        """The Treants that belong to it."""
        return GroupMembers(self)

    def __repr__(self) -> str:
        """Its name, and how many members of which kind it has."""
        try:
            kinds = Counter(member.kind for member in self.state.members)
        except ArborError:
            return super().__repr__()
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), reverse=True))
        return f"<Group: {self.name!r} | {kinds.total()} Members{told and ': '}{told}>"


class GroupMembers:
    """The members of a Group, in the order in which they were added, each uuid once. Looked up anew each time.

    One that was moved is found by its uuid: anywhere in the Group's tree, or, if it is a repository of its own, in the
    directory that it was in or that the Group is in. NotATreant for one that is nowhere there.
    """

    def __init__(self, group: Group) -> None:
        self._group = group

    # Changing

    def add(self, *treants: object) -> None:
        """Add Treants: as such, by path, or in bundles and lists. What is none raises NotATreant, and none is added."""
        fresh = {member.uuid: member for member in map(self._reference, self._bundle(*treants))}
        self._change(lambda known: {**known, **fresh})

    def remove(self, *members: Treant | int | str, all: bool = False) -> None:
        """Remove members, which themselves stay: as such, by position, by uuid or name; or `all`. NotFound for what is none."""
        gone = {self._uuid(member) for member in members}
        self._change(lambda known: {} if all else {uuid: member for uuid, member in known.items() if uuid not in gone})

    def _change(self, change: Callable[[dict[str, Member]], dict[str, Member]]) -> None:
        def changed(state: State) -> State:
            """The state with other members."""
            known = {member.uuid: member for member in state.members}
            return msgspec.structs.replace(state, members=tuple(change(known).values()))

        self._group.change_state(changed)

    def _reference(self, treant: Treant) -> Member:
        here, there = self._group.place, treant.place
        near = (here.files.repository, here.files.branch) == (there.files.repository, there.files.branch)
        return Member(treant.uuid, treant.treanttype, there.path if near else treant.basedir)

    def _uuid(self, member: Treant | int | str) -> str:
        uuids = self.uuids
        if isinstance(member, Treant):
            found = member.uuid
        elif isinstance(member, int):
            found = uuids[member]
        else:
            found = member if member in uuids else self[member].uuid
        if found not in uuids:
            raise NotFound(f"{member} is no member of {self._group.name!r}")
        return found

    # Finding

    def _found(self, member: Member) -> Treant | None:
        """The member where it is now; where it is found elsewhere, that is noted."""
        outside = member.path.startswith("/")
        for place in self._far(member) if outside else self._near(member):
            file = f"{member.kind}.{member.uuid}.h5"
            if place.files.exists(os.path.join(place.path, file)):
                found = _class(member).known(str(place.given), place, file)
                if self._group.place.writeable and self._reference(found) != member:
                    self._note(self._reference(found))
                return found
        return None

    def _note(self, member: Member) -> None:
        self._change(lambda known: {**known, member.uuid: member} if member.uuid in known else known)

    def _near(self, member: Member) -> Iterator[Place]:
        """Where in the Group's tree it may be."""
        # The index finds what is marked; mostly it need not be asked.
        yield self._place(member.path)
        yield from map(self._place, self._group.place.files.labels().marked())

    def _place(self, path: str) -> Place:
        """A place in the Group's tree, seen as the Group is seen."""
        here = self._group.place
        given = str(here.given)
        if not here.path or given.endswith(f"/{here.path}"):
            return Place(Path(given[: len(given) - len(here.path)], path), path, here.files, here.repository)
        place = Place(here.repository.path / path, path, here.files, here.repository)  # a link led to the Group
        return Place(place.mounted() or place.given, path, here.files, here.repository)

    def _far(self, member: Member) -> Iterator[Place]:
        """Where outside of the Group's tree it may be."""
        folders = dict.fromkeys((os.path.dirname(member.path), self._group.location))
        for path in (member.path, *(each for folder in folders for each in _folders(folder))):
            try:
                yield place_of(path)
            except ArborError:
                continue  # no repository any more

    def _all(self) -> Iterator[Treant | None]:
        """The members as they are found, None for lost ones."""
        return map(self._found, self._group.state.members)

    def _require(self, member: Member) -> Treant:
        found = self._found(member)
        if found is None:
            raise NotATreant(
                f"the member {member.kind} {member.uuid} is not at {member.path} any more, nor anywhere near"
            )
        return found

    @property
    def bundle(self) -> Bundle:
        """Those that are found, as a Bundle: for their tags, categories and data."""
        return self._bundle([found for found in self._all() if found is not None])

    @staticmethod
    def _bundle(*treants: object) -> Bundle:
        from storage.treants.bundles import Bundle  # it knows Groups itself

        return Bundle(*treants)

    @overload
    def __getitem__(self, key: int | str) -> Treant: ...

    @overload
    def __getitem__(self, key: slice) -> Bundle: ...

    def __getitem__(self, key: int | str | slice) -> Treant | Bundle:
        """The member at a position, with a uuid or of a name (NotFound); a Bundle of those of a slice. NotATreant for lost
        ones.
        """
        members = self._group.state.members
        if isinstance(key, slice):
            return self._bundle([self._require(member) for member in members[key]])
        if isinstance(key, int):
            return self._require(members[key])
        for member in members:
            if member.uuid == key:
                return self._require(member)
        for found in self._all():
            if found is not None and found.name == key:
                return found
        raise NotFound(f"{self._group.name!r} has no member {key!r}")

    def __iter__(self) -> Iterator[Treant]:
        """The members. NotATreant for one that is lost."""
        return map(self._require, self._group.state.members)

    def __len__(self) -> int:
        """How many there are, lost ones too."""
        return len(self._group.state.members)

    def __contains__(self, treant: object) -> bool:
        """Whether it is one of them."""
        return isinstance(treant, Treant) and treant.uuid in self.uuids

    @property
    def names(self) -> list[str | None]:
        """Their names; None for lost ones."""
        return [None if found is None else found.name for found in self._all()]

    @property
    def basedirs(self) -> list[str | None]:
        """The absolute paths of their directories; None for lost ones."""
        return [None if found is None else found.basedir for found in self._all()]

    @property
    def uuids(self) -> list[str]:
        """Their uuids."""
        return [member.uuid for member in self._group.state.members]

    @property
    def treanttypes(self) -> list[str]:
        """What they are: `Treant` or `Group`."""
        return [member.kind for member in self._group.state.members]

    def map(self, function: Callable[..., Any], processes: int = 1, **kwargs: Any) -> list[Any] | None:
        """`function(member, **kwargs)` of each, in order, by so many processes; None if all results are None."""
        results = mapped(function, list(self), processes, kwargs)
        return results if any(result is not None for result in results) else None

    @property
    def data(self) -> MemberData:
        """Their data."""
        return MemberData(self)

    def __repr__(self) -> str:
        """What they are, and their names."""
        told = zip(self.treanttypes, self.names, strict=True)
        return f"<Members([{', '.join(f'<{kind}: {name!r}>' for kind, name in told)}])>"


class MemberData:
    """The data of a Group's members."""

    def __init__(self, members: GroupMembers) -> None:
        self._members = members

    def keys(self, mode: Literal["any", "all"] = "any") -> list[str]:
        """The handles that any member has, or all, sorted."""
        return AggData(self._members.bundle).keys(mode)

    def retrieve(self, handle: str, by: Literal["uuid", "name", "path"] = "uuid", **kwargs: Any) -> Any:
        """What they keep under a handle, labelled by uuid, name or path: see `AggData.retrieve`."""
        return AggData(self._members.bundle).retrieve(handle, by, **kwargs)

    def __getitem__(self, handle: str) -> Any:
        """What they keep under a handle, labelled by uuid."""
        return self.retrieve(handle)

    def __repr__(self) -> str:
        """The handles that any member has."""
        return f"<Data({self.keys()!r})>"


def _class(member: Member) -> type[Treant]:
    return Group if member.kind == GROUP else Treant


def _folders(folder: str) -> Sequence[str]:
    """The directories in an ordinary directory."""
    try:
        with os.scandir(folder) as found:
            return sorted(each.path for each in found if each.is_dir())
    except OSError:
        return ()
