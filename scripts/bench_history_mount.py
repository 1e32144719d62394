"""Big directories in a mount: listing them beside ext4, what the daemon keeps in memory, and finding one name."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench_common import Figures, Row, bare_pyfuse3, cpu, drop_caches, mounted, seconds
from bench_ingest import FEW, human, name_of

LOOKUPS = 500
LISTINGS = {"ls -U": ("ls", "-U"), "ls -lU": ("ls", "-lU")}
PLACES = {"snapshot": "tags/v1", "branch": "branches/main"}


def mount_figures(work: Path, repo: Path, count: int, runs: int, figures: Figures) -> None:
    """Measure a repository whose dataset `samples` has so many, and whose dataset `few` has a few, as tag v1 and as main."""
    plain = work / "plain"
    plain.mkdir()
    for number in range(count):
        (plain / f"{name_of(number)}.npy").touch()
    point = work / "mounted"
    for place, below in PLACES.items():
        with mounted(repo, point) as daemon:
            _memory(place, point / below / "samples", daemon, count, figures)
        with mounted(repo, point):
            _lookups(place, point / below, count, runs, figures)
    bare = work / "bare"
    with mounted(repo, point), bare_pyfuse3(bare, count):
        folders = {"ext4": plain, "pyfuse3": bare / "files"} | {
            place: point / below / "samples" for place, below in PLACES.items()
        }
        for _ in range(runs if count <= 100_000 else 1):
            for what, command in LISTINGS.items():
                for place, folder in folders.items():
                    drop_caches(2)
                    took = seconds(lambda: _silent(*command, folder))  # noqa: B023
                    figures.setdefault(f"{what} {place}/{count}", []).append(took)
    subprocess.run(["rm", "-r", plain], check=True)


def _silent(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _memory(place: str, folder: Path, daemon: int, count: int, figures: Figures) -> None:
    """What the daemon's memory grows by when all entries are looked at, and what of that stays when they are forgotten."""
    os.listdir(folder.parent)
    before = _resident(daemon)
    _silent("find", folder, "-size", "+0")
    figures.setdefault(f"memory {place}/{count}", []).append(_resident(daemon) - before)
    drop_caches(2)
    figures.setdefault(f"memory {place} forgotten/{count}", []).append(_settled(daemon) - before)


def _resident(pid: int) -> float:
    """The memory of a process in MB, without what it has mapped of files: that is the page cache's."""
    return float(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0]) * 1024 / 1e6


def _settled(pid: int) -> float:
    """Its memory as soon as it has had nothing to do for a second: what the kernel forgets it hears of by and by."""
    used = 0.0
    while cpu(pid) - used > 0.01:
        used = cpu(pid)
        time.sleep(1)
    return _resident(pid)


def _lookups(place: str, tree: Path, count: int, runs: int, figures: Figures) -> None:
    """The time of a stat that the kernel cannot answer itself, of scattered names in the large directory and in the small."""
    for name, among in (("samples", count), ("few", FEW)):
        paths = [f"{tree}/{name}/{name_of(i * among // LOOKUPS)}.npy" for i in range(LOOKUPS)]
        for _ in range(runs + 1):
            drop_caches(2)
            os.stat(f"{tree}/{name}")
            took = statistics.median([seconds(lambda path=path: os.stat(path)) for path in paths])
            figures.setdefault(f"lookup {name} {place}/{count}", []).append(took)


def mount_rows(m: dict[str, float], sizes: Sequence[int]) -> list[Row]:
    """The figures of the largest dataset; of the smaller ones, what they have to say on growth."""
    least, most = min(sizes), max(sizes)
    rows: list[Row] = []
    for what in LISTINGS:
        for place in PLACES:
            took = m[f"{what} {place}/{most}"]
            small = m[f"{what} {place}/{least}"] / m[f"{what} ext4/{least}"]
            beside = f"{took / m[f'{what} ext4/{most}']:.2f} x ext4 ({small:.2f} x {human(least)}), "
            beside += f"{took / m[f'{what} pyfuse3/{most}']:.2f} x pyfuse3"
            rows.append((f"{what} of {human(most)} entries, {place}", f"{took:.2f} s", beside, "<= 4 x ext4"))
    for place, goal in (("snapshot", "<= 100 MB"), ("branch", "<= 300 MB")):
        key = f"memory {place}"
        what = f"daemon's growth by find in {human(most)}, {place}"
        left = f"{m[f'{key} forgotten/{most}']:.0f} MB when forgotten, {m[f'{key}/{least}']:.0f} MB at {human(least)}"
        rows.append((what, f"{m[f'{key}/{most}']:.0f} MB", left, goal))
    for place in PLACES:
        took, few = m[f"lookup samples {place}/{most}"], m[f"lookup few {place}/{most}"]
        what = f"lookup of one name in {human(most)}, {place}"
        rows.append((what, f"{took * 1e6:.0f} us", f"{took / few:.2f} x in {FEW:,}", "<= 2 x"))
    return rows
