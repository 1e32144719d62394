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
    match = _EXPRESSION.match(text) if isinstance(text, str) else None
    if match is None or len(text) > 200:
        raise NotFound(
            f"{str(text)[:80]!r} is not a revision: use a branch, a tag, a commit's digits, with ~n, ^n or @{{date}}"
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
        """What `find` sees in a commit, looked for once in each tree."""
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


_OURS, _THEIRS, _BEHIND = 1, 2, 4


def merge_bases(load: Callable[[Digest], Commit], ours: Digest, theirs: Digest) -> list[Digest]:
    """The best common ancestors: those from which no other common ancestor comes. Newest first, empty without any.

    A commit counts as its own ancestor. The graph alone decides; times only choose which commit is looked at next, so
    that in most histories no more is read than what lies between the two and where they part.
    """
    marks = {ours: _OURS}
    marks[theirs] = marks.get(theirs, 0) | _THEIRS
    queue = [(-load(digest).time, digest) for digest in marks]
    heapq.heapify(queue)
    open_ends = set(marks)
    common = set()
    while open_ends:
        _, digest = heapq.heappop(queue)
        open_ends.discard(digest)
        mark = marks[digest]
        if mark & _OURS and mark & _THEIRS:
            common.add(digest)
            mark |= _BEHIND
        for parent in load(digest).parents:
            before = marks.get(parent, 0)
            if before | mark == before:
                continue
            marks[parent] = before | mark
            heapq.heappush(queue, (-load(parent).time, parent))
            if marks[parent] & _BEHIND:
                open_ends.discard(parent)
            else:
                open_ends.add(parent)
    best = [digest for digest in common if not marks[digest] & _BEHIND]
    best.sort(key=lambda digest: (-load(digest).time, digest))
    if len(best) == 1:
        return best
    # Where clocks were wrong, an ancestor of another one may not have been reached from it yet.
    return [one for one in best if not any(other != one and is_ancestor(load, one, other) for other in best)]
