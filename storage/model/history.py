"""Histories as graphs, and the expressions that name commits."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.errors import NotFound
from storage.model.digest import Digest
from storage.model.records import Commit

_STEP = re.compile(r"~(?P<back>\d*)|\^(?P<parent>\d*)")
_EXPRESSION = re.compile(r"(?P<base>[A-Za-z0-9._-]+)(@\{(?P<date>[^{}]*)\})?(?P<steps>([~^]\d*)*)\Z")
_MOVES = re.compile(r"[0-9]{1,6}\Z")
_MAX_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision expression taken apart: a name or prefix, a date in ns since 1970, or a number of moves back, and steps to
    ancestors.
    """

    base: str
    at: int | None
    moves: int | None
    steps: tuple[tuple[str, int], ...]


def parse_revision(text: str) -> Revision:
    """Take apart `NAME`, `PREFIX`, `NAME~n`, `NAME^n`, `NAME@{date}`, `NAME@{n}` and chains of `~n` and `^n`. NotFound if it is
    none.

    A date without a time means the end of that day, local time. A number of at most six digits is no date: where the branch was
    so many moves ago.
    """
    match = _EXPRESSION.match(text)
    if match is None or len(text) > 200:
        raise NotFound(
            f"{text[:80]!r} is not a revision: use a branch, a tag, a commit's digits, with ~n, ^n or @{{date}}"
        )
    steps = []
    for step in _STEP.finditer(match["steps"]):
        kind = "~" if step["back"] is not None else "^"
        number = step["back"] if kind == "~" else step["parent"]
        steps.append((kind, min(int(number), _MAX_STEPS) if number else 1))
    date = match["date"]
    if date is not None and _MOVES.match(date):
        return Revision(match["base"], None, int(date), tuple(steps))
    return Revision(match["base"], None if date is None else parse_date(date), None, tuple(steps))


def parse_date(text: str) -> int:
    """An ISO 8601 date or time as ns since 1970; NotFound if it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
        if len(text.strip()) <= len("2026-11-01"):
            moment += timedelta(days=1) - timedelta(microseconds=1)
        return int(moment.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError, OSError) as error:
        raise NotFound(f"{text[:40]!r} is not a date: write it as 2026-11-01 or 2026-11-01T12:30") from error


def follow(load: Callable[[Digest], Commit], start: Digest, steps: Iterable[tuple[str, int]]) -> Digest:
    """The ancestor that steps lead to: `~n` n first parents back, `^n` the n-th parent. NotFound if there is none."""
    at = start
    for kind, number in steps:
        if kind == "~":
            for _ in range(number):
                at = _parent(load, at, 1)
        elif number:
            at = _parent(load, at, number)
    return at


def _parent(load: Callable[[Digest], Commit], digest: Digest, number: int) -> Digest:
    parents = load(digest).parents
    if number > len(parents):
        raise NotFound(f"commit {digest.hex()[:16]} has no parent {number}")
    return parents[number - 1]


def walk(load: Callable[[Digest], Commit], start: Digest) -> Iterator[tuple[Digest, Commit]]:
    """`start` and its ancestors, each once, children before parents, newest first where the graph leaves a choice."""
    at = start
    commit = load(at)
    while len(commit.parents) == 1:  # a straight line needs no look ahead
        yield at, commit
        at = commit.parents[0]
        commit = load(at)
    children: dict[Digest, int] = {at: 0}
    commits = {at: commit}
    todo = [at]
    while todo:
        for parent in commits[todo.pop()].parents:
            if parent not in commits:
                commits[parent] = load(parent)
                todo.append(parent)
            children[parent] = children.get(parent, 0) + 1
    ready = [(-commit.time, at)]
    while ready:
        _, digest = heapq.heappop(ready)
        yield digest, commits[digest]
        for parent in commits[digest].parents:
            children[parent] -= 1
            if not children[parent]:
                heapq.heappush(ready, (-commits[parent].time, parent))


def changing(
    load: Callable[[Digest], Commit], start: Digest, find: Callable[[Commit], object]
) -> Iterator[tuple[Digest, Commit]]:
    """Those commits of `walk` in which what `find` sees (None: nothing) is as in none of their parents."""
    seen: dict[Digest, object] = {}

    def found(digest: Digest) -> object:
        root = load(digest).root.root
        if root not in seen:
            seen[root] = find(load(digest))
        return seen[root]

    for digest, commit in walk(load, start):
        here = found(digest)
        before = [found(parent) for parent in commit.parents] or [None]
        if here not in before:
            yield digest, commit


def condensed(
    history: Iterable[tuple[Digest, Sequence[Digest]]], kept: Container[Digest]
) -> list[tuple[Digest, list[Digest]]]:
    """A history (children before parents) of the kept commits alone, each with the nearest kept ones it stands on."""
    whole = list(history)
    nearest: dict[Digest, list[Digest]] = {}
    parents: dict[Digest, list[Digest]] = {}
    for digest, olds in reversed(whole):
        # A parent that lies out of sight has no entry: the history was cut off there.
        parents[digest] = list(dict.fromkeys(near for old in olds for near in nearest.get(old, [])))
        nearest[digest] = [digest] if digest in kept else parents[digest]
    return [(digest, parents[digest]) for digest, _ in whole if digest in kept]


def is_ancestor(load: Callable[[Digest], Commit], old: Digest, new: Digest) -> bool:
    """Whether `old` is `new` or one of its ancestors."""
    seen = {new}
    todo = [new]
    while todo:
        digest = todo.pop()
        if digest == old:
            return True
        fresh = [parent for parent in load(digest).parents if parent not in seen]
        seen.update(fresh)
        todo.extend(fresh)
    return False


def best_common_ancestors(load: Callable[[Digest], Commit], a: Digest, b: Digest) -> list[Digest]:
    """The common ancestors of two commits (each its own ancestor, too) that are no ancestor of another one, newest first.

    One for most histories, several after criss-cross merges, none for unrelated ones. Costs a walk over what is not
    older than the answer, as far as times are right; the answer is right whatever they are.
    """
    ours, theirs, stale = 1, 2, 4
    marks = {a: ours}
    marks[b] = marks.get(b, 0) | theirs
    queue = [(-load(digest).time, digest) for digest in marks]
    heapq.heapify(queue)
    while any(marks[digest] & stale == 0 for _, digest in queue):
        _, digest = heapq.heappop(queue)
        mark = marks[digest] & (ours | theirs | stale)
        handed = mark | stale if mark & ours and mark & theirs else mark
        for parent in load(digest).parents:
            if marks.get(parent, 0) | handed != marks.get(parent, 0):
                marks[parent] = marks.get(parent, 0) | handed
                heapq.heappush(queue, (-load(parent).time, parent))
    both = [digest for digest, mark in marks.items() if mark & ours and mark & theirs and not mark & stale]
    # Where clocks were wrong, one may still stand behind another.
    best = [one for one in both if not any(one != other and is_ancestor(load, one, other) for other in both)]
    return sorted(best, key=lambda digest: (-load(digest).time, digest))
