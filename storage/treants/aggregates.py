"""The tags and categories of all members of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from storage.errors import Unsupported, WrongType
from storage.treants.categories import checked
from storage.treants.grammar import TagAlgebra
from storage.treants.state import Scalar
from storage.treants.tags import flat_tags, nearly

if TYPE_CHECKING:
    from storage.treants.bundles import Bundle

Scope = Literal["all", "any"]
Values = list[Scalar | None]
"""A value for each member, None where it has none."""


class AggTags(TagAlgebra):
    """The tags of a bundle's members, looked up anew each time. As a set it is the tags that all members have."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @property
    def all(self) -> set[str]:
        """The tags that all members have."""
        each = [set(state.tags) for state in self._bundle._states()]
        return set.intersection(*each) if each else set()

    @property
    def any(self) -> set[str]:
        """The tags that any member has."""
        return set().union(*(state.tags for state in self._bundle._states()))

    def __getitem__(self, expression: object) -> list[bool]:
        """Of each member whether it is chosen by a text, a list (all of it), a tuple (any of it) or a set (not all of it), see
        `storage.treants.grammar`; to be used as an index of the bundle. Unsupported (a ValueError) for anything else.
        """
        return self._bundle._having(expression)

    def filter(self, expression: object) -> Bundle:
        """The members that are chosen by an expression as in `tags[…]`."""
        return self._bundle._filtered(expression)

    def add(self, *tags: object) -> None:
        """Add tags to every member: texts, or lists, tuples and sets of them."""
        fresh = list(flat_tags(tags))
        for member in self._bundle:
            member.tags.add(fresh)

    def remove(self, *tags: object) -> None:
        """Remove tags from every member. Those that are not there need not be."""
        gone = list(flat_tags(tags))
        for member in self._bundle:
            member.tags.remove(gone)

    def clear(self) -> None:
        """Remove all tags of every member."""
        for member in self._bundle:
            member.tags.clear()

    def fuzzy(self, tag: str | Iterable[str], threshold: float = 80, scope: Scope = "all") -> tuple[str, ...]:
        """The tags of all or any members that are nearly that tag, or one of those: as like as `threshold` says, from 0 to
        100. The likest first. Unsupported (a ValueError) for other scopes.
        """
        return nearly(sorted(self.any if _is_any(scope) else self.all), tag, threshold)

    def __contains__(self, tag: object) -> bool:
        """Whether all members have that tag."""
        return tag in self.all

    def __iter__(self) -> Iterator[str]:
        """The tags that all members have, sorted."""
        return iter(sorted(self.all))

    def __len__(self) -> int:
        """How many tags all members have."""
        return len(self.all)

    def __str__(self) -> str:
        """A line for each tag that all members have."""
        return "\n".join(self)

    def __repr__(self) -> str:
        """The tags that all members have."""
        return f"<AggTags({list(self)!r})>"


class AggCategories:
    """The categories of a bundle's members, looked up anew each time. Values come in the order of the members."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @property
    def all(self) -> dict[str, Values]:
        """The categories that all members have, with the value of each member."""
        return self._known(self._bundle_names(any_of=False))

    @property
    def any(self) -> dict[str, Values]:
        """The categories that any member has, with the value of each member, None where it has none."""
        return self._known(self._bundle_names(any_of=True))

    def _bundle_names(self, *, any_of: bool) -> list[str]:
        each = [state.categories for state in self._bundle._states()]
        names = dict.fromkeys(name for categories in each for name in categories)
        return [name for name in names if any_of or all(name in categories for categories in each)]

    def _known(self, names: Iterable[str]) -> dict[str, Values]:
        each = [state.categories for state in self._bundle._states()]
        return {name: [categories.get(name) for categories in each] for name in names}

    @overload
    def __getitem__(self, key: str) -> Values: ...

    @overload
    def __getitem__(self, key: list[str]) -> list[Values]: ...

    @overload
    def __getitem__(self, key: set[str]) -> dict[str, Values]: ...

    def __getitem__(self, key: str | list[str] | set[str]) -> Values | list[Values] | dict[str, Values]:
        """The value of each member, None where it has none; for a list of names a list of such, for a set a dict by name.

        WrongType (a TypeError) for anything else.
        """
        names = _names(key)
        known = self._known(names)
        if isinstance(key, str):
            return known[key]
        return [known[name] for name in names] if isinstance(key, list) else known

    def __setitem__(self, key: str, value: Scalar | Values | None) -> None:
        """Give every member that value, or of a list each its own; None removes one.

        Unsupported (a ValueError) for a list of another length than the bundle's; then, and for values that cannot be,
        nothing is changed.
        """
        values = value if isinstance(value, list) else [value] * len(self._bundle)
        if len(values) != len(self._bundle):
            raise Unsupported(f"{len(values)} values for {len(self._bundle)} members: one for each is needed")
        for each in values:
            checked({key: each})
        for member, each in zip(self._bundle, values, strict=True):
            if each is None:
                member.categories.remove(key)
            else:
                member.categories[key] = each

    def add(self, categories: Mapping[str, Scalar] | None = None, /, **more: Scalar) -> None:
        """Set categories of every member, from a mapping and by name."""
        changes = checked({**dict(categories or {}), **more})
        for member in self._bundle:
            member.categories.add(changes)

    def remove(self, *keys: str) -> None:
        """Remove categories of every member. Those that are not there need not be."""
        for member in self._bundle:
            member.categories.remove(*keys)

    def clear(self) -> None:
        """Remove all categories of every member."""
        for member in self._bundle:
            member.categories.clear()

    def keys(self, scope: Scope = "all") -> list[str]:
        """The names of the categories that all members have, or any. Unsupported (a ValueError) for other scopes."""
        return self._bundle_names(any_of=_is_any(scope))

    def values(self, scope: Scope = "all") -> list[Values]:
        """The values of each member, for each of the `keys`."""
        return list(self._known(self.keys(scope)).values())

    def items(self, scope: Scope = "all") -> list[tuple[str, Values]]:
        """The `keys`, and the values of each member."""
        return list(self._known(self.keys(scope)).items())

    @overload
    def groupby(self, keys: str) -> dict[Scalar, Bundle]: ...

    @overload
    def groupby(self, keys: list[str]) -> dict[tuple[Scalar, ...], Bundle]: ...

    def groupby(self, keys: Any) -> dict[Scalar, Bundle] | dict[tuple[Scalar, ...], Bundle]:
        """The members by the value of a category, or by the tuple of their values of several; those that lack one are in no
        group. WrongType (a TypeError) for other keys.
        """
        from storage.treants.bundles import grouped  # a Bundle has categories

        if isinstance(keys, set):
            raise WrongType("the values of a set of categories have no order: name the categories in a list")
        groups = grouped(self._bundle, _names(keys))
        if isinstance(keys, str):
            return {value: bundle for (value,), bundle in groups.items()}
        return groups

    def __contains__(self, key: object) -> bool:
        """Whether all members have that category."""
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        """The names of the categories that all members have."""
        return iter(self.keys())

    def __len__(self) -> int:
        """How many categories all members have."""
        return len(self.keys())

    def __str__(self) -> str:
        """A line for each category that all members have."""
        return "\n".join(f"{key}: {values}" for key, values in self.items())

    def __repr__(self) -> str:
        """The categories that all members have."""
        return f"<AggCategories({self.all!r})>"


def _names(key: Any) -> list[str]:
    names = [key] if isinstance(key, str) else sorted(key) if isinstance(key, set) else key
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WrongType(f"categories are named by a text, or a list or set of texts, not by {key!r:.80}")
    return names


def _is_any(scope: object) -> bool:
    if scope not in ("all", "any"):
        raise Unsupported(f"the scope is 'all' or 'any', not {scope!r:.80}")
    return scope == "any"
