"""The data of all members of a bundle or a view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from storage.errors import NotFound, Unsupported
from storage.treants.aggregates import Scope, _is_any
from storage.treants.frames import is_frame, pandas_installed

if TYPE_CHECKING:
    from storage.treants.members import Members
    from storage.treants.trees import Tree

Label = Literal["path", "name", "uuid"]


class AggData:
    """What the members that are directories keep as data, looked up anew each time."""

    def __init__(self, members: Members[Any, Any]) -> None:
        self._members = members

    @property
    def all(self) -> set[str]:
        """The handles that all members have."""
        return set(self.keys("all"))

    @property
    def any(self) -> set[str]:
        """The handles that any member has."""
        return set(self.keys("any"))

    def keys(self, scope: Scope = "all") -> list[str]:
        """The handles that all members have, or any, sorted. Unsupported (a ValueError) for other scopes."""
        each = [set(tree.data.keys()) for tree in self._members._trees()]
        found = set[str]().union(*each) if _is_any(scope) or not each else set.intersection(*each)
        return sorted(found)

    def __getitem__(self, handle: str) -> Any:
        """What `retrieve` gives, by path."""
        return self.retrieve(handle)

    def retrieve(self, handle: str, by: Label = "path", **kwargs: Any) -> Any:
        """What is kept under a handle, of those members that have it.

        Tables and series of pandas are put together, with the members' labels as the outermost level of the index; other things
        are the values of a dict by label. Labels are absolute paths, names or, of Treants, uuids. `kwargs` go to the
        `retrieve` of each. NotFound (a KeyError) where nobody has the handle, or two that have it have the same name;
        Unsupported (a ValueError) for other labels.
        """
        having = [tree for tree in self._members._trees() if handle in tree.data]
        labels = _labels(having, by)
        if not having:
            raise NotFound(f"no member has data {handle!r}")
        found = {label: tree.data.retrieve(handle, **kwargs) for label, tree in zip(labels, having, strict=True)}
        if all(is_frame(value) for value in found.values()):
            return pandas_installed().concat(found)
        return found

    def __iter__(self) -> Iterator[str]:
        """The handles that all members have."""
        return iter(self.keys())

    def __len__(self) -> int:
        """How many handles all members have."""
        return len(self.keys())

    def __repr__(self) -> str:
        """The handles that all members have."""
        return f"<AggData({self.keys()!r})>"


def _labels(trees: Iterable[Tree], by: str) -> list[str]:
    match by:
        case "path":
            return [tree.abspath for tree in trees]
        case "uuid":
            return [_uuid(tree) for tree in trees]
        case "name":
            names = [tree.name for tree in trees]
            double = [name for name, count in Counter(names).items() if count > 1]
            if double:
                raise NotFound(f"{double[0]!r} is the name of several members: retrieve by path")
            return names
    raise Unsupported(f"data of several members are labelled by 'path', 'name' or 'uuid', not by {by!r:.80}")


def _uuid(tree: Tree) -> str:
    from storage.treants.treant import Treant  # which has data itself

    if not isinstance(tree, Treant):
        raise Unsupported(f"{tree.abspath} is no Treant and has no uuid: retrieve by path")
    return tree.uuid
