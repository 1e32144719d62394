"""Modes and owners: chmod(2), chown(2), and what they allow to an ordinary user."""

from __future__ import annotations

import os
import stat

import pytest

from tests.posix.calls import NOBODY, answer, as_nobody, refused

root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away and become someone else")


def mode(path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_all_twelve_bits_are_kept(place, what):
    path = place / what
    path.mkdir() if what == "directory" else path.touch()
    for bits in (0, 0o1, 0o777, 0o1777, 0o2755, 0o4755, 0o7777, 0o644):
        path.chmod(bits)
        assert mode(path) == bits
    descriptor = os.open(path, os.O_RDONLY)
    os.fchmod(descriptor, 0o640)
    os.close(descriptor)
    assert mode(path) == 0o640


def test_through_a_link_the_target_is_changed(place):
    (place / "f").touch()
    (place / "link").symlink_to("f")
    (place / "link").chmod(0o600)
    assert mode(place / "f") == 0o600
    assert mode(place / "link") == 0o777


def test_what_is_not_there_cannot_be_changed(place):
    (place / "f").touch()
    with refused("ENOENT"):
        (place / "missing").chmod(0o600)
    with refused("ENOTDIR"):
        os.chmod(place / "f" / "x", 0o600)
    with refused("ENOENT"):
        os.chown(place / "missing", 0, 0)


@root
def test_owners_are_kept(place):
    (place / "f").touch()
    (place / "d").mkdir()
    (place / "link").symlink_to("f")
    os.chown(place / "f", 1001, 1002)
    os.chown(place / "d", -1, 2002)
    os.chown(place / "link", 3001, 3002, follow_symlinks=False)
    os.chown(place / "f", -1, -1)
    for name, owner in {"f": (1001, 1002), "d": (0, 2002), "link": (3001, 3002)}.items():
        found = os.lstat(place / name)
        assert (found.st_uid, found.st_gid) == owner
    os.chown(place / "f", 0, 0)
    assert (os.stat(place / "f").st_uid, os.stat(place / "f").st_gid) == (0, 0)


@root
def test_giving_a_program_away_takes_its_set_id_bits(place):
    (place / "f").touch()
    (place / "d").mkdir()
    for path in (place / "f", place / "d"):
        path.chmod(0o6755)
        os.chown(path, 1001, 1002)
    assert mode(place / "f") == 0o755
    assert mode(place / "d") == 0o6755


@root
def test_writing_takes_the_set_id_bits_from_a_program_of_an_ordinary_user(place):
    place.chmod(0o777)
    for name in ("written", "cut"):
        (place / name).write_bytes(b"contents")
        os.chown(place / name, NOBODY, NOBODY)
        (place / name).chmod(0o6755)

    def job() -> None:
        descriptor = os.open("written", os.O_WRONLY)
        os.write(descriptor, b"C")
        os.close(descriptor)
        os.truncate("cut", 3)

    assert as_nobody(place, job) is None
    assert mode(place / "written") == 0o755
    assert mode(place / "cut") == 0o755


@root
def test_what_is_made_in_a_set_group_id_directory_is_of_its_group(place):
    (place / "d").mkdir()
    os.chown(place / "d", 0, 4321)
    (place / "d").chmod(0o2775)
    (place / "d" / "f").touch()
    (place / "d" / "e").mkdir()
    (place / "d" / "link").symlink_to("f")
    os.mknod(place / "d" / "node")
    assert {os.lstat(place / "d" / name).st_gid for name in ("f", "e", "link", "node")} == {4321}
    assert mode(place / "d" / "e") & stat.S_ISGID
    assert not mode(place / "d" / "f") & stat.S_ISGID
    (place / "d" / "e" / "deep").mkdir()
    assert os.stat(place / "d" / "e" / "deep").st_gid == 4321


def asked_by_nobody(place, attempts) -> dict[str, object]:
    """Every attempt's answer to an ordinary user who stands in `place`."""
    return as_nobody(place, lambda: {name: answer(call) for name, call in attempts.items()})


def opened(name: str, flags: int):
    return lambda: os.close(os.open(name, flags, 0o644))


@root
def test_an_ordinary_user_may_do_what_the_mode_says(place):
    for bits in (0o600, 0o604, 0o602, 0o606, 0o640, 0o007):
        (place / f"{bits:o}").write_bytes(b"x")
        (place / f"{bits:o}").chmod(bits)
    flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
    names = [f"{bits:o}" for bits in (0o600, 0o604, 0o602, 0o606, 0o640, 0o007)]
    attempts = {f"{name} {how}": opened(name, flag) for name in names for how, flag in flags.items()}
    found = asked_by_nobody(place, attempts)
    allowed = {name for name, told in found.items() if told is None}
    assert allowed == {"604 r", "602 w", "606 r", "606 w", "606 rw", "7 r", "7 w", "7 rw"}
    assert {told for told in found.values() if told is not None} == {"EACCES"}


@root
def test_an_ordinary_user_needs_the_directories(place):
    for bits in (0o700, 0o701, 0o705, 0o707, 0o703):
        (place / f"{bits:o}").mkdir()
        (place / f"{bits:o}" / "f").write_bytes(b"x")
        (place / f"{bits:o}").chmod(bits)
    attempts: dict = {}
    for bits in ("700", "701", "705", "707", "703"):
        attempts[f"{bits} find"] = lambda bits=bits: os.stat(f"{bits}/f") and None
        attempts[f"{bits} list"] = lambda bits=bits: os.listdir(bits) and None
        attempts[f"{bits} make"] = opened(f"{bits}/new", os.O_CREAT | os.O_WRONLY)
        attempts[f"{bits} remove"] = lambda bits=bits: os.unlink(f"{bits}/f")
    found = asked_by_nobody(place, attempts)
    allowed = {name for name, told in found.items() if told is None}
    assert allowed == {
        "701 find", "705 find", "705 list", "707 find", "707 list", "707 make", "707 remove",
        "703 find", "703 make", "703 remove",
    }  # fmt: skip
    assert {told for told in found.values() if told is not None} == {"EACCES"}


@root
def test_only_its_owner_changes_a_file(place):
    place.chmod(0o777)
    for name in ("theirs", "mine"):
        (place / name).write_bytes(b"x")
        (place / name).chmod(0o666)
    os.chown(place / "mine", NOBODY, NOBODY)
    attempts: dict = {}
    for name in ("theirs", "mine"):
        attempts[f"{name} chmod"] = lambda name=name: os.chmod(name, 0o4666)
        attempts[f"{name} set time"] = lambda name=name: os.utime(name, ns=(5, 5))
        attempts[f"{name} set now"] = lambda name=name: os.utime(name)
        attempts[f"{name} group"] = lambda name=name: os.chown(name, -1, NOBODY)
        attempts[f"{name} give away"] = lambda name=name: os.chown(name, 1001, -1)
        attempts[f"{name} setxattr"] = lambda name=name: os.setxattr(name, "user.a", b"1")
    found = asked_by_nobody(place, attempts)
    allowed = {name for name, told in found.items() if told is None}
    assert allowed == {
        "mine chmod", "mine set time", "mine set now", "mine group", "mine setxattr", "theirs set now",
        "theirs setxattr",
    }  # fmt: skip
    assert {told for told in found.values() if told is not None} == {"EPERM"}


@root
def test_in_a_sticky_directory_only_owners_remove(place):
    (place / "d").mkdir()
    for name in ("theirs", "mine", "theirs2", "mine2"):
        (place / "d" / name).touch()
        os.chown(place / "d" / name, NOBODY if "mine" in name else 0, 0)
    (place / "d").chmod(0o1777)
    found = asked_by_nobody(
        place,
        {
            "unlink theirs": lambda: os.unlink("d/theirs"),
            "rename theirs": lambda: os.rename("d/theirs", "d/x"),
            "rename over theirs": lambda: os.rename("d/mine2", "d/theirs2"),
            "rename mine": lambda: os.rename("d/mine", "d/moved"),
            "unlink mine": lambda: os.unlink("d/moved"),
            "make": opened("d/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        },
    )
    assert found == {
        "unlink theirs": "EPERM",
        "rename theirs": "EPERM",
        "rename over theirs": "EPERM",
        "rename mine": None,
        "unlink mine": None,
        "make": None,
    }
    found_new = os.stat(place / "d" / "new")
    assert (found_new.st_uid, found_new.st_gid) == (NOBODY, NOBODY)


@root
def test_a_user_outside_its_group_cannot_make_a_set_group_id_file(place):
    (place / "f").touch()
    os.chown(place / "f", NOBODY, 4321)
    assert as_nobody(place, lambda: os.chmod("f", 0o2755)) is None
    assert mode(place / "f") == 0o755
