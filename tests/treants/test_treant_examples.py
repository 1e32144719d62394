"""The worked examples of Treants, each under its id, on a repository alone and in a mount."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from storage.errors import NotMounted
from storage.treants.treant import Treant
from tests.treants import shell

STATE_FILE = r"Treant\.[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.h5"


def in_another_process(program: str) -> str:
    """What it prints."""
    text = f"import numpy as np\nfrom storage.treants.treant import Treant\n{program}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def array(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape)


def table(rows: int) -> pd.DataFrame:
    return pd.DataFrame(array((rows, 3)) * 3, columns=["A", "B", "C"])


def test_dt_01e_a_new_treant_is_a_directory_with_its_state_file(place):
    Treant(place / "sprout")
    names = os.listdir(place / "sprout") if place.mounted else shell.listed(place, "sprout")
    assert len(names) == 1 and re.fullmatch(STATE_FILE, names[0])


def test_dt_02e_another_process_finds_the_same(place):
    treant = Treant(place / "sprout")
    assert in_another_process(f"print(Treant({str(place / 'sprout')!r}).uuid)") == treant.uuid
    assert shell.shows(place, "sprout", f"Treant.{treant.uuid}.h5")


def test_dt_03e_tags_of_another_process_are_seen_by_an_open_object(place):
    treant = Treant(place / "sprout")
    assert repr(treant.tags) == "<Tags([])>"
    in_another_process(f"Treant({str(place / 'sprout')!r}).tags.add('elm')")
    assert repr(treant.tags) == "<Tags(['elm'])>"


def test_dt_04e_and_05e_a_large_array(place):
    a = array((1_000_000, 3))
    treant = Treant(place / "sprout")
    treant.data.add("something_wicked", a)
    assert repr(treant.data) == "<Data(['something_wicked'])>"
    found = treant.data["something_wicked"]
    assert found.shape == (1_000_000, 3) and found.dtype == a.dtype and np.array_equal(found, a)
    assert shell.shows(place, "sprout", "something_wicked", f"Treant.{treant.uuid}.h5")
    assert shell.shows(place, "sprout/something_wicked", "npData.h5")
    file = open(place / "sprout/something_wicked/npData.h5", "rb") if place.mounted else None
    with file or treant.place.files.open("sprout/something_wicked/npData.h5") as opened, h5py.File(opened) as hdf5:
        assert np.array_equal(hdf5["main"][()], a)


def test_dt_06e_handles_are_directories(place):
    treant = planted(place)
    handles = ["cations/twiggy", "something_wicked", "subjects/barkley", "subjects/leafy"]
    assert repr(treant.data) == f"<Data({handles})>" and set(treant.data) == set(handles)
    assert shell.shows(place, "sprout/subjects", "barkley", "leafy") and shell.shows(place, "sprout/cations", "twiggy")


def planted(place) -> Treant:
    treant = Treant(place / "sprout")
    treant.data.add("something_wicked", array((10, 3)))
    treant.data.add("subjects/leafy", table(3))
    treant.data.add("subjects/barkley", table(4))
    treant.data["cations/twiggy"] = table(5)
    return treant


def test_dt_07e_other_files_lie_beside_the_data(place):
    treant = planted(place)
    if not place.mounted:
        with pytest.raises(NotMounted, match="arborfs mount"):
            treant.data.locate("subjects/barkley")
        return
    located = treant.data.locate("subjects/barkley")
    assert located == f"{place.path}/sprout/subjects/barkley"
    with open(f"{located}/figure.png", "wb") as figure:
        figure.write(b"a figure")
    assert len(treant.data) == 4
    treant.data.add("subjects/barkley", table(2))
    assert shell.shows(place, "sprout/subjects/barkley", "figure.png", "pdData.h5")


def test_dt_08e_rm_takes_the_handle(place):
    treant = planted(place)
    shell.remove(place, "sprout/subjects/leafy")
    assert treant.data.keys() == ["cations/twiggy", "something_wicked", "subjects/barkley"]
    assert_frame_equal(treant.data["subjects/barkley"], table(4))


def test_dt_09e_mv_renames_the_handles(place):
    treant = planted(place)
    shell.move(place, "sprout/subjects", "sprout/people")
    assert treant.data.keys() == ["cations/twiggy", "people/barkley", "people/leafy", "something_wicked"]
    assert_frame_equal(treant.data["people/barkley"], table(4))


def _add(path: str, who: int) -> None:
    treant = Treant(path)
    for number in range(200):
        treant.tags.add(f"tag {who} {number}")
        treant.data.add(f"data/{who}/{number}", np.full(3, number))


def test_dt_10e_two_processes_add_200_each(place):
    treant = Treant(place / "sprout")
    context = multiprocessing.get_context("spawn")
    work = [context.Process(target=_add, args=(treant.abspath, who)) for who in range(2)]
    for process in work:
        process.start()
    for process in work:
        process.join()
    assert [process.exitcode for process in work] == [0, 0]
    assert list(treant.tags) == sorted(f"tag {who} {number}" for who in range(2) for number in range(200))
    assert len(treant.data) == 400
    assert all(treant.data[handle].tolist() == [int(handle.split("/")[2])] * 3 for handle in treant.data)


def test_dt_11e_rows_are_appended_and_chosen(place):
    treant = Treant(place / "sprout")
    df, more = table(1000), table(2000)
    treant.data["x"] = df
    treant.data.append("x", more)
    whole = treant.data["x"]
    assert whole.shape == (3000, 3)
    chosen = treant.data.retrieve("x", where="A < -2 & C > 2")
    assert_frame_equal(chosen, whole[(whole["A"] < -2) & (whole["C"] > 2)])
    assert 0 < len(chosen) < 3000
    assert_frame_equal(treant.data.retrieve("x", start=990, stop=1010), whole[990:1010])
    assert list(treant.data.retrieve("x", columns=["A"]).columns) == ["A"]


def test_dt_12e_handles_may_be_deep(place):
    treant = Treant(place / "sprout")
    treant.data["a/better/grocery/list"] = pd.Series(["ham", "eggs"])
    assert treant.data.keys() == ["a/better/grocery/list"]
    assert list(treant.data["a/better/grocery/list"]) == ["ham", "eggs"]
    assert shell.shows(place, "sprout/a/better/grocery/list", "pdData.h5")
