"""How the command line prints names, times and sizes."""

import json

import pytest

from fusefs.cli.output import counted, json_time, local_time, print_json, printable, shown, size_text


def test_control_characters_come_escaped():
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"


def test_other_scripts_and_signs_stay():
    assert printable("größe – 数") == "größe – 数"


def test_a_path_that_is_not_utf8_can_be_printed():
    assert shown((b"caf\xe9", b"0.npy")) == "caf\\xe9/0.npy"


def test_the_root_is_a_dot():
    assert shown(()) == "."


def test_times_for_programs_are_utc_to_the_microsecond():
    assert json_time(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456+00:00"


def test_times_for_people_name_their_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Etc/GMT-3")
    import time

    time.tzset()
    try:
        assert local_time(1_700_000_000_000_000_000) == "2023-11-15 01:13:20 +0300"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (3449, "3.45 kB"),
        (250_000_000, "250 MB"),
        (4 * 10**15, "4000 TB"),
    ],
)
def test_sizes(size, text):
    assert size_text(size) == text


def test_counts_have_their_plural():
    assert (counted(1, "change"), counted(1797, "entry", "entries")) == ("1 change", "1,797 entries")


def test_json_is_one_document_that_keeps_other_scripts(capsys):
    print_json({"path": "größe"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"path": "größe"} and "größe" in printed
