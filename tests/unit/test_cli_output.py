"""How the command line prints names, times and sizes."""

import json

import pytest

from fusefs.cli.output import (
    NARROWEST,
    cells,
    counted,
    fitted,
    json_time,
    local_time,
    print_json,
    printable,
    shortened,
    shown,
    size_text,
    table_lines,
)


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


@pytest.mark.parametrize("text, width", [("", 0), ("abc", 3), ("größe", 5), ("数据", 4), ("e\u0301", 1), ("ｗ", 2)])
def test_a_text_takes_as_many_cells_as_a_terminal_gives_it(text, width):
    assert cells(text) == width


@pytest.mark.parametrize(
    "text, width, expected",
    [
        ("short", 8, "short"),
        ("measurements-2026-11-01", 11, "measu…11-01"),
        ("measurements-2026-11-01", 10, "measu…1-01"),
        ("数据数据数据", 8, "数据…据"),  # a wide character is never cut in two
        ("abcdef", 1, "…"),
    ],
)
def test_what_is_too_long_loses_its_middle(text, width, expected):
    assert shortened(text, width) == expected
    assert cells(expected) <= width


def test_the_columns_of_a_table_stand_under_one_another():
    lines = table_lines([("数据", "1"), ("images", "20")], ("name", "n"))
    assert lines == ["name    n", "数据    1", "images  20"]


def test_a_table_without_rows_has_no_lines():
    assert table_lines([]) == []


def test_on_a_terminal_the_widest_columns_give_way_first():
    lines = table_lines([("a" * 100, "short", "b" * 30)], width=60)
    assert cells(lines[0]) == 60
    first, middle, last = lines[0].split("  ")
    assert (cells(first), middle, cells(last)) == (26, "short", 25)
    assert "…" in first and "…" in last


def test_a_column_is_never_narrower_than_what_can_be_read():
    assert fitted([100, 100, 3], 10) == [NARROWEST, NARROWEST, 3]
    assert fitted([5, 4], 80) == [5, 4]
