"""What mount(8) hands to its helper, and what the helper makes of it."""

from pathlib import Path

import click
import pytest

from fusefs.cli import mount8


def parsed(*words: str, sloppy: bool = False):
    return mount8.parse("/srv/data", "/mnt/v1", words, sloppy=sloppy)


def test_a_plain_mount_is_writable_and_whole():
    options = parsed()
    assert (options.repository, options.mountpoint) == (Path("/srv/data"), Path("/mnt/v1"))
    assert (options.ref, options.branch, options.read_only, options.allow_other) == (None, None, False, False)


def test_options_come_comma_separated_and_repeated():
    options = parsed("ref=v1.0,ro", "allow_other,log=/var/log/arborfs.log")
    assert (options.ref, options.read_only, options.allow_other) == ("v1.0", True, True)
    assert options.log == Path("/var/log/arborfs.log")


def test_a_daemon_can_be_supervised():
    assert parsed("supervise").supervise
    assert not parsed().supervise


def test_a_branch_can_be_the_root():
    assert parsed("branch=main").branch == "main"


def test_generic_options_are_taken_and_mean_nothing():
    options = parsed("rw,defaults,noauto,_netdev,user,nofail,nosuid,nodev,relatime,x-systemd.automount,comment=a")
    assert options == parsed()


def test_options_that_do_not_hold_here_are_not_taken_in_silence(capsys):
    assert parsed("noexec") == parsed()
    assert "noexec has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["reff=v1.0", "ref=", "cache", "ro=yes"])
def test_an_unknown_option_is_refused_by_name(word):
    with pytest.raises(click.UsageError, match=word):
        parsed(word)


def test_sloppy_ignores_what_it_does_not_know():
    assert parsed("cache,ref=v1.0", sloppy=True).ref == "v1.0"


def test_a_ref_and_a_branch_exclude_each_other():
    with pytest.raises(click.UsageError, match="exclude"):
        parsed("ref=v1.0,branch=main")


def test_exit_codes_are_those_of_mount8(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mount.arborfs", "/nowhere", "/nowhere/m", "-o", "wrong"])
    with pytest.raises(SystemExit) as ended:
        mount8.main()
    assert ended.value.code == 1
    assert "mount.arborfs: unknown option 'wrong'" in capsys.readouterr().err


def test_fake_checks_the_call_and_mounts_nothing(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mount.arborfs", "/nowhere", "/nowhere/m", "-fv", "-o", "ref=v1.0"])
    mount8.main()
    assert "v1.0" in capsys.readouterr().out
