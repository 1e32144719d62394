"""Treants: making them, finding 100 among 100,000, and their data.

Floors, in the same run: plain directories and files with the same bytes, a walk through them, h5py on a plain file.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from bench_common import Figures, Row, medians, seconds

from storage import places
from storage.places import place_of
from storage.treants import Bundle, Treant, discover
from storage.treants.state import State, encode_state

MADE = 2_000
MANY = 100_000
RARE = 1_000
"""Each rare tag is on one of so many Treants."""
ROWS = 1_000_000


def treants(work: Path, runs: int, figures: Figures) -> list[Row]:
    """What people do with Treants, beside what plain files would take."""
    rows: list[Row] = []
    for part in (_created, _found, _array):
        rows += part(work, runs, figures)
    return rows


def _fresh(folder: Path) -> Path:
    places.let_go()
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _created(work: Path, runs: int, figures: Figures) -> list[Row]:
    """Treants made one by one, beside directories with a file of the same bytes."""
    states = [State(str(uuid.uuid4()), tags=("elm", "tree")) for _ in range(MADE)]
    for _ in range(runs):
        plain, repo = _fresh(work / "plain"), _fresh(work / "repo")
        place_of(repo, make=True)
        figures.setdefault("plain made", []).append(seconds(lambda plain=plain: _plain(plain, states)))
        made = seconds(lambda repo=repo: [Treant(repo / "wood" / str(i), tags=["elm", "tree"]) for i in range(MADE)])
        figures.setdefault("made", []).append(made)
    m = medians(figures)
    rate = f"{MADE / m['made']:,.0f} Treants/s"
    return [("make Treants", rate, f"{m['plain made'] / m['made']:.2f} x plain files", ">= 5,000/s")]


def _plain(folder: Path, states: list[State]) -> None:
    for i, state in enumerate(states):
        path = folder / "wood" / str(i)
        path.mkdir(parents=True)
        (path / state.file_name).write_bytes(encode_state(state))


def _many() -> list[State]:
    return [
        State(
            str(uuid.uuid4()),
            tags=tuple(sorted(("tree", "old" if i % 2 else "young", f"kind {i % RARE}"))),
            categories={"forest": i % 10},
        )
        for i in range(MANY)
    ]


def _found(work: Path, runs: int, figures: Figures) -> list[Row]:
    """Treants found again among many: by a process that has just begun, and by one that has looked before."""
    plain, repo = _fresh(work / "plain"), _fresh(work / "repo")
    states = _many()
    for start in range(0, MANY, 10_000):
        some = range(start, start + 10_000)
        files = {f"wood/{i % 300}/{i}/{states[i].file_name}": encode_state(states[i]) for i in some}
        place_of(repo, make=True).files.write_many(files)
    _plain(plain, states)
    figures["indexed"] = [seconds(lambda: discover(repo))]
    for _ in range(runs):
        places.let_go()
        _note(figures, "walk", lambda: list(os.walk(plain)))
        _note(figures, "discover first", lambda: discover(repo))
        Treant(repo / "wood" / "one more", tags=["tree"])
        _note(figures, "discover", lambda: discover(repo))
        bundle = discover(repo)
        _note(figures, "rare", lambda bundle=bundle: _check(bundle.tags.filter("'kind 7'"), MANY // RARE))
        _note(
            figures, "filter", lambda bundle=bundle: _check(bundle.tags.filter("old and not 'kind 7'"), MANY // 2 - 100)
        )
        _note(figures, "bools", lambda bundle=bundle: bundle.tags[{"old"}])
        _note(figures, "groupby", lambda bundle=bundle: _check(bundle.categories.groupby("forest")[3], MANY // 10))
        Treant(repo / "wood" / "one more").place.files.remove("wood/one more")
    m = medians(figures)

    def row(what: str, name: str, floor: str, goal: str) -> Row:
        return (
            what,
            f"{m[name] * 1e3:,.1f} ms",
            f"{m[name] / m['walk']:.3f} x a walk of plain files" if floor else "",
            goal,
        )

    return [
        row(f"index {MANY:,} Treants, once", "indexed", "walk", ""),
        row(f"discover {MANY:,}, new process", "discover first", "walk", "<= 1 s"),
        row("discover them again after a change", "discover", "walk", "<= 1 s"),
        row("filter 100 by a rare tag", "rare", "", "<= 20 ms"),
        row("filter 49,900 by a sentence", "filter", "", "<= 20 ms"),
        row("tags[{...}] of all", "bools", "", "<= 20 ms"),
        row("groupby of all", "groupby", "", "<= 20 ms"),
    ]


def _note(figures: Figures, name: str, work: Callable[[], object]) -> None:
    figures.setdefault(name, []).append(seconds(work))


def _check(bundle: Bundle, count: int) -> None:
    if len(bundle) != count:
        raise SystemExit(f"{len(bundle)} found, not {count}")


def _array(work: Path, runs: int, figures: Figures) -> list[Row]:
    """An array of 10^6 x 3 added and read, beside h5py on a plain file."""
    array = np.random.default_rng(0).standard_normal((ROWS, 3))
    for _ in range(runs):
        treant = Treant(_fresh(work / "repo") / "sprout")
        path = work / "plain.h5"
        path.unlink(missing_ok=True)
        _note(figures, "h5py add", lambda path=path: _h5py_add(path, array))
        _note(figures, "h5py read", lambda path=path: _h5py_read(path))
        _note(figures, "add", lambda treant=treant: treant.data.add("array", array))
        _note(figures, "read", lambda treant=treant: treant.data["array"])
    m = medians(figures)
    return [
        (
            f"{what} an array of 24 MB",
            f"{array.nbytes / 1e6 / m[what]:,.0f} MB/s",
            f"{m[f'h5py {what}'] / m[what]:.2f} x h5py",
            ">= 0.5 x",
        )
        for what in ("add", "read")
    ]


def _h5py_add(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["array"] = array


def _h5py_read(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["array"][:]
