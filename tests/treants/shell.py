"""What a user does at the prompt: by real programs in a mount, by the API where there is none."""

from __future__ import annotations

import subprocess

from storage.places import place_of
from tests.treants.conftest import Ground


def remove(place: Ground, path: str) -> None:
    """`rm -r`."""
    if place.mounted:
        subprocess.run(["rm", "-r", place / path], check=True)
    else:
        place_of(place.path).files.remove(path)


def move(place: Ground, old: str, new: str) -> None:
    """`mv`."""
    if place.mounted:
        subprocess.run(["mv", place / old, place / new], check=True)
    else:
        place_of(place.path).files.rename(old, new)


def copy(place: Ground, old: str, new: str) -> None:
    """`cp -r`."""
    if place.mounted:
        subprocess.run(["cp", "-r", place / old, place / new], check=True)
        return
    files = place_of(place.path).files
    for name, info in list(files.list(old)):
        if info.is_directory:
            copy(place, f"{old}/{name}", f"{new}/{name}")
        else:
            files.write_many({f"{new}/{name}": files.read(f"{old}/{name}")})


def write(place: Ground, path: str, data: bytes) -> None:
    """`cat > path`."""
    if place.mounted:
        (place / path).write_bytes(data)
    else:
        place_of(place.path).files.write(path, data)


def listed(place: Ground, path: str) -> list[str]:
    """`ls`: what is not hidden, sorted."""
    if place.mounted:
        done = subprocess.run(["ls", place / path], check=True, capture_output=True, text=True)
        return sorted(done.stdout.split())
    return sorted(name for name, _ in place_of(place.path).files.list(path) if not name.startswith("."))


def shows(place: Ground, path: str, *names: str) -> bool:
    """Whether `ls` comes to show just that: a mount hears of what is changed beside it."""
    return place.seen(lambda: listed(place, path) == sorted(names))
