"""Datasets of str, bytes and JSON, and nested ones, through the mount: the API and the files agree byte by byte."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from storage.repository import Repository
from tests.conftest import wait_until

TWO = np.array([1, 2], "i4")


@pytest.fixture
def repo(repository: Path):
    with Repository(repository) as opened:
        with opened.checkout(write=True) as co:
            for kind in ("str", "bytes", "json"):
                co.datasets.init_dataset(kind, kind=kind)
            co.datasets.init_dataset("pairs", prototype=TWO, contains_subsamples=True)
            co.datasets.init_dataset("notes", kind="str", contains_subsamples=True)
            co.commit("datasets")
        yield opened


@pytest.fixture
def looking(repo, main):
    with repo.checkout(staged=True) as co:
        yield co


def test_what_the_api_writes_are_the_files(repo, main):
    with repo.checkout(write=True) as co:
        co["str"]["a"], co["str"]["empty"] = "Grüße\n", ""
        co["bytes"]["raw.bin"] = b"\0\xff"
        co["json"]["a"] = {"b": [1, "ä"]}
        co["pairs"]["s"] = {"x": TWO}
        wait_until((main / "pairs" / "s").is_dir)
        assert (main / "str" / "a.txt").read_bytes() == "Grüße\n".encode()
        assert (main / "str" / "empty.txt").read_bytes() == b""
        assert (main / "bytes" / "raw.bin").read_bytes() == b"\0\xff"
        assert json.loads((main / "json" / "a.json").read_text()) == {"b": [1, "ä"]}
        assert np.load(main / "pairs" / "s" / "x.npy").tolist() == [1, 2]
        assert os.getxattr(main / "str" / "a.txt", "user.arborfs.dtype") == b"str"


def test_what_programs_write_are_the_samples(main, looking, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.json").write_text('{ "x":\n  [1, 2] }\n')
    (tmp_path / "any").write_bytes(bytes(range(256)) * 900)
    for source, kind in (("empty.txt", "str"), ("a.txt", "str"), ("a.json", "json"), ("any", "bytes")):
        subprocess.run(["cp", "--", tmp_path / source, main / kind / source], check=True)
        assert (main / kind / source).read_bytes() == (tmp_path / source).read_bytes()
    assert dict(looking["str"].items()) == {"a": "text", "empty": ""}
    assert looking["json", "a"] == {"x": [1, 2]}
    assert looking["bytes", "any"] == (tmp_path / "any").read_bytes()
    (main / "str" / "a.txt").write_text("")
    # Staged by the last close, of which the kernel tells after close() has returned.
    wait_until(lambda: looking["str", "a"] == "", what="the emptied file")
    (main / "bytes" / "new").touch()
    assert looking["bytes", "new"] == b""


def test_what_is_no_json_or_text_is_refused_with_the_reason(main, looking):
    for name, data, reason in (("json/a.json", b"{'a': 1}", "is not JSON"), ("str/a.txt", b"\xff\xfe", "UTF-8")):
        with pytest.raises(OSError, match=f"Errno {errno.EINVAL}]"):
            (main / name).write_bytes(data)
        assert reason in (main / ".arborfs" / "errors").read_text()
    assert len(looking["json"]) == len(looking["str"]) == 0
    (main / "json" / "README").write_bytes(b"anything")
    assert list(looking["json"]) == []


def test_directories_in_nested_datasets_are_samples(main, looking, tmp_path):
    (main / "pairs" / "s").mkdir()
    np.save(main / "pairs" / "s" / "x.npy", TWO)
    with pytest.raises(OSError, match=f"Errno {errno.EINVAL}]"):
        np.save(main / "pairs" / "s" / "y.npy", TWO.astype("f8"))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "one.txt").write_text("1")
    shutil.copytree(tmp_path / "t", main / "notes" / "t")
    assert {key: value.tolist() for key, value in looking["pairs", "s", ...].items()} == {"x": [1, 2]}
    assert looking["notes", "t"].data == {"one": "1"}
    assert list(looking) == ["bytes", "json", "notes", "pairs", "str"]
    os.rename(main / "notes" / "t", main / "notes" / "u")
    assert list(looking["notes"]) == ["u"]


def test_moving_a_directory_into_a_nested_dataset_copies_it(main, looking):
    (main / "folder").mkdir()
    (main / "folder" / "one.txt").write_text("1")
    with pytest.raises(OSError, match=f"Errno {errno.EXDEV}]"):
        os.rename(main / "folder", main / "notes" / "t")
    subprocess.run(["mv", main / "folder", main / "notes" / "t"], check=True)
    assert looking["notes", "t", "one"] == "1"
    assert not (main / "folder").exists()
    subprocess.run(["mv", main / "notes" / "t", main / "out"], check=True)
    assert (main / "out" / "one.txt").read_text() == "1"
    assert list(looking["notes"]) == []
