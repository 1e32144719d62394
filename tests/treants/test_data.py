"""Data of Treants and trees: arrays, tables, pickles, handles, and files that somebody else put there."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

from storage.errors import InvalidInput, InvalidName, NotFound, NotMounted, Unsupported, WrongType
from storage.places import place_of
from storage.treants.data import ARRAY, FRAME, PICKLE
from storage.treants.treant import Treant
from storage.treants.trees import Tree
from tests.treants import shell


@pytest.fixture
def treant(repository: Path) -> Treant:
    return Treant(repository / "sprout")


def files_of(treant: Treant):
    return treant.place.files


# Arrays

ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.arange(6, dtype=">i2").reshape(3, 2),
    np.asfortranarray(np.arange(6, dtype="u8").reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
    np.array(1.5),
    np.zeros((0, 3)),
    np.zeros((3, 0), "i1"),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.array([1.5], np.float16),
    np.array([b"ab", b"c"]),
    np.array(["größe", "", "x"]),
    np.array([["a"], ["bcd"]], ">U3"),
    np.zeros(0, "U4"),
    np.array([(1, 2.5, b"x")], dtype=[("a", "i4"), ("b", "f8"), ("c", "S3")]),
    np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    np.array(["2020-01-01", "NaT"], "M8[us]"),
    np.array([1, 2], "m8[s]"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_as_they_were(treant, array):
    treant.data["x"] = array
    found = treant.data["x"]
    assert type(found) is np.ndarray and found.dtype == array.dtype and found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    if array.ndim:
        np.testing.assert_array_equal(treant.data.retrieve("x", start=1), array[1:])
        np.testing.assert_array_equal(treant.data.retrieve("x", start=-1, stop=None), array[-1:])
        np.testing.assert_array_equal(treant.data.retrieve("x", start=2, stop=1), array[2:1])
    else:
        with pytest.raises(InvalidInput, match="no rows"):
            treant.data.retrieve("x", start=1)
    if array.dtype.kind not in "MmU":
        with h5py.File(io.BytesIO(files_of(treant).read(f"sprout/x/{ARRAY}"))) as file:
            np.testing.assert_array_equal(file["main"][()], array)


def test_what_was_read_is_ones_own(treant):
    treant.data["x"] = np.arange(10)
    treant.data["x"][:] = 7
    assert treant.data["x"].tolist() == list(range(10))


def hdf5(write) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        write(file)
    return memory.getvalue()


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.create_dataset("main", data=np.arange(20), chunks=(7,), compression="gzip"),
        lambda file: file.create_dataset("anything", data=np.arange(20)),
        lambda file: file.create_dataset("main", data=np.arange(20), maxshape=(None,)),
    ],
)
def test_arrays_of_other_programs_are_read(treant, write):
    files_of(treant).write_many({f"sprout/x/{ARRAY}": hdf5(write)})
    assert treant.data.keys() == ["x"]
    assert treant.data["x"].tolist() == list(range(20))
    assert treant.data.retrieve("x", start=3, stop=5).tolist() == [3, 4]


def outside(file):
    file["main"] = h5py.ExternalLink("/etc/hosts", "main")


def virtual(file):
    layout = h5py.VirtualLayout((3,), "i8")
    layout[:] = h5py.VirtualSource("/elsewhere.h5", "main", (3,))
    file.create_virtual_dataset("main", layout)


def stored_outside(file):
    file.create_dataset("main", (3,), "i8", external=[("/etc/hosts", 0, 24)])


@pytest.mark.parametrize(
    "write", [outside, virtual, stored_outside, lambda file: file.create_group("main"), lambda file: None]
)
def test_arrays_that_are_none_or_lie_elsewhere_are_refused(treant, write):
    files_of(treant).write_many({f"sprout/x/{ARRAY}": hdf5(write)})
    with pytest.raises(InvalidInput) as caught:
        treant.data["x"]
    assert caught.value.where == f"sprout/x/{ARRAY}"


def test_damaged_arrays_are_told(treant):
    treant.data["x"] = np.arange(1000)
    data = files_of(treant).read(f"sprout/x/{ARRAY}")
    for bad in (b"", b"x", data[:300], data[:-8], data[:100] + b"\xff" * 100 + data[200:]):
        files_of(treant).write(f"sprout/x/{ARRAY}", bad)
        with pytest.raises(InvalidInput, match=ARRAY):
            treant.data["x"]


# Tables

FRAMES = {
    "plain": pd.DataFrame({"A": [1.0, 2], "B": [3, 4]}),
    "numbered columns": pd.DataFrame(np.ones((2, 3))),
    "texts": pd.DataFrame({"a": ["x", None, "größe"], "b": range(3)}),
    "times": pd.DataFrame({"a": range(3)}, index=pd.date_range("2020-01-01", periods=3, tz="Europe/Berlin")),
    "levels": pd.DataFrame({"a": range(4)}, index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["k", "l"])),
    "levels of columns": pd.DataFrame(np.ones((2, 4)), columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]])),
    "categories": pd.DataFrame({"a": pd.Categorical(["x", "y", "x"])}),
    "bools": pd.DataFrame({"a": [True, False]}),
    "odd names": pd.DataFrame({"a b": [1, 2], "index": [1, 2], "class": [3, 4]}),
    "twice": pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]),
    "wide": pd.DataFrame(np.ones((2, 600)), columns=[f"c{n}" for n in range(600)]),
    "no rows": pd.DataFrame({"a": np.zeros(0), "b": np.zeros(0, "i4")}),
    "nothing": pd.DataFrame(),
    "series": pd.Series([1.0, 2], name="s"),
    "nameless": pd.Series([1, 2], index=[5, 6]),
    "empty series": pd.Series([], dtype="f8"),
    "texts in a series": pd.Series(["a", "b"], name="q"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_tables_come_back_as_they_were(treant, name):
    frame = FRAMES[name]
    treant.data["x"] = frame
    assert sorted(name for name, _ in files_of(treant).list("sprout/x")) == [FRAME]
    same = assert_frame_equal if isinstance(frame, pd.DataFrame) else assert_series_equal
    same(treant.data["x"], frame, check_freq=False)


def test_parts_of_tables(treant):
    frame = pd.DataFrame({"A": np.arange(10) - 5.0, "B": np.arange(10), "C": 1})
    treant.data["x"] = frame
    assert_frame_equal(treant.data.retrieve("x", where="A < -2 & B >= 1"), frame[1:3])
    assert_frame_equal(treant.data.retrieve("x", start=2, stop=4, columns=["B"]), frame[["B"]][2:4])
    pieces = list(treant.data.retrieve("x", chunksize=4))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert_frame_equal(pd.concat(pieces), frame)
    assert_frame_equal(pd.concat(treant.data.retrieve("x", iterator=True)), frame)
    assert_frame_equal(treant.data["x"], frame)


def test_appending(treant):
    frame = pd.DataFrame({"n": [1, 2], "t": ["a", "b"]})
    treant.data["x"] = frame
    more = pd.DataFrame({"n": [3], "t": ["a much longer text than before"]})
    treant.data.append("x", more)
    treant.data.append("x", pd.DataFrame({"n": [4.5], "t": ["c"]}))
    treant.data.append("x", more[:0])
    expected = pd.concat([frame, more, pd.DataFrame({"n": [4.5], "t": ["c"]})])
    assert_frame_equal(treant.data["x"], expected)
    treant.data["empty"] = frame[:0]
    treant.data.append("empty", frame)
    assert_frame_equal(treant.data["empty"], frame)
    treant.data["s"] = pd.Series([1, 2])
    treant.data.append("s", pd.Series([3]))
    assert treant.data["s"].tolist() == [1, 2, 3]


def test_what_cannot_be_appended(treant):
    treant.data["x"] = pd.DataFrame({"n": [1, 2]})
    treant.data["array"] = np.arange(3)
    with pytest.raises(WrongType):
        treant.data.append("x", np.arange(3))
    with pytest.raises(WrongType):
        treant.data.append("x", pd.Series([1]))
    with pytest.raises(WrongType):
        treant.data.append("array", pd.Series([1]))
    with pytest.raises(ValueError, match="columns"):
        treant.data.append("x", pd.DataFrame({"m": [1]}))
    with pytest.raises(KeyError):
        treant.data.append("nothing", pd.DataFrame({"m": [1]}))
    assert treant.data["x"]["n"].tolist() == [1, 2] and treant.data.keys() == ["array", "x"]


def test_appends_at_once_are_all_there(treant):
    treant.data["x"] = pd.Series([0])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: Treant(treant).data.append("x", pd.Series([n])), range(1, 21)))
    assert sorted(treant.data["x"]) == list(range(21))


def test_parts_are_removed(treant):
    frame = pd.DataFrame({"A": np.arange(10), "B": 1.0, "C": "t"})
    treant.data["x"] = frame
    treant.data.remove("x", where="A > 7")
    treant.data.remove("x", start=1, stop=3)
    treant.data.remove("x", columns=["C"])
    assert_frame_equal(treant.data["x"], frame.drop(columns="C").iloc[[0, 3, 4, 5, 6, 7]])
    with pytest.raises(KeyError):
        treant.data.remove("x", columns=["Q"])
    with pytest.raises(ValueError):
        treant.data.remove("x", columns=["A"], start=1)
    treant.data.remove("x", start=0)
    assert len(treant.data["x"]) == 0
    treant.data["array"] = np.arange(3)
    treant.data["s"] = pd.Series([1])
    for wrong in (lambda: treant.data.remove("array", start=1), lambda: treant.data.remove("s", columns=["a"])):
        with pytest.raises(TypeError):
            wrong()


# Pickles


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_other_objects_need_the_word(treant, tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=True"):
        treant.data["x"] = {"a": 1}
    assert treant.data.keys() == []
    treant.data.add("x", {"a": [1, None]}, allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=True"):
        treant.data["x"]
    assert treant.data.retrieve("x", allow_pickle=True) == {"a": [1, None]}
    assert Treant(treant, allow_pickle=True)["x"] == {"a": [1, None]}
    with pytest.raises(TypeError):
        treant.data.retrieve("x", start=1, allow_pickle=True)
    with pytest.raises(TypeError, match="cannot be pickled"):
        treant.data.add("f", lambda: 1, allow_pickle=True)
    treant.data.add("trap", Trap(tmp_path / "sprung"), allow_pickle=True)
    with pytest.raises(ValueError):
        treant.data["trap"]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([{"a": 1}, None]),
        np.ma.masked_array([1, 2], [True, False]),
        pd.DataFrame({"a": [1, "x", [2]]}),
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}),
        pd.Series(["a"]).rename(b"x"),
    ],
    ids=["objects", "masked", "mixed", "nullable", "odd name"],
)
def test_what_hdf5_does_not_hold_is_pickled_where_that_is_allowed(treant, value):
    try:
        treant.data["x"] = value
    except Unsupported:
        treant.data.add("x", value, allow_pickle=True)
        assert [name for name, _ in files_of(treant).list("sprout/x")] == [PICKLE]
    found = treant.data.retrieve("x", allow_pickle=True)
    assert type(found) is type(value) and str(found) == str(value)


def attribute(trap):
    def write(file):
        file.attrs["TITLE"] = np.bytes_(trap)

    return write


def deep_attribute(trap):
    def write(file):
        file.create_dataset("main/table", data=np.arange(3)).attrs["info"] = np.bytes_(trap)

    return write


def in_rows(trap):
    def write(file):
        rows = file.create_dataset("main/block0_items", (1,), h5py.vlen_dtype(np.uint8))
        rows[0] = np.frombuffer(trap, np.uint8)
        rows.attrs["CLASS"], rows.attrs["PSEUDOATOM"] = np.bytes_("VLARRAY"), np.bytes_("object")

    return write


@pytest.mark.parametrize("place_it", [attribute, deep_attribute, in_rows])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_hidden_in_tables_are_refused(treant, tmp_path, place_it, protocol):
    trap = pickle.dumps(Trap(tmp_path / "sprung"), protocol)
    data = io.BytesIO(treant_table(treant))
    with h5py.File(data, "a") as file:
        if "main/block0_items" in file:
            del file["main/block0_items"]
        if place_it is deep_attribute:
            del file["main/table"]
        place_it(trap)(file)
    files_of(treant).write(f"sprout/x/{FRAME}", data.getvalue())
    uses = [
        lambda: treant.data["x"],
        lambda: treant.data.append("x", pd.DataFrame({"A": [1]})),
        lambda: treant.data.remove("x", start=1),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="allow_pickle=True"):
            use()
    assert not (tmp_path / "sprung").exists()


def treant_table(treant: Treant) -> bytes:
    treant.data["x"] = pd.DataFrame({"A": [1, 2]})
    return files_of(treant).read(f"sprout/x/{FRAME}")


def test_tables_with_links_to_other_files_are_refused(treant):
    for write in (
        outside,
        lambda file: stored_outside(file.create_group("g")),
        lambda file: virtual(file.create_group("g")),
    ):
        data = io.BytesIO(treant_table(treant))
        with h5py.File(data, "a") as file:
            if write is outside:
                del file["main"]
            write(file)
        files_of(treant).write(f"sprout/x/{FRAME}", data.getvalue())
        with pytest.raises(ValueError, match="another file"):
            treant.data["x"]


def test_damaged_tables_are_told(treant):
    data = treant_table(treant)
    for bad in (b"", b"x", data[:500], hdf5(lambda file: None)):
        files_of(treant).write(f"sprout/x/{FRAME}", bad)
        with pytest.raises(InvalidInput, match=FRAME):
            treant.data["x"]


# Handles


@pytest.mark.parametrize(
    "handle", ["", "/", ".", "..", "a/../b", "/a", "a/..", "x" * 256, "a\0b", ARRAY, f"a/{FRAME}/b", ".arborfs/x"]
)
def test_handles_that_are_none(treant, handle):
    for use in (
        lambda: treant.data.add(handle, np.arange(3)),
        lambda: treant.data.retrieve(handle),
        lambda: treant.data.remove(handle),
        lambda: treant.data.locate(handle),
        lambda: handle in treant.data,
    ):
        with pytest.raises(ValueError):
            use()
    assert treant.data.keys() == []
    with pytest.raises(TypeError):
        treant.data.retrieve(5)


def test_handles(treant):
    treant.data["b//./c/"] = np.arange(3)
    treant.data["a"] = np.arange(2)
    treant.data["a/deeper"] = np.arange(1)
    assert list(treant.data) == treant.data.keys() == ["a", "a/deeper", "b/c"]
    assert len(treant.data) == 3 and "b/c" in treant.data and "b" not in treant.data and 5 not in treant.data
    assert [len(array) for array in treant.data[["a", "b/c"]]] == [2, 3]
    assert repr(treant.data) == "<Data(['a', 'a/deeper', 'b/c'])>"
    with pytest.raises(KeyError, match="No data for 'q'"):
        treant.data["q"]
    with pytest.raises(OSError):
        treant.data[f"Treant.{treant.uuid}.h5/x"] = np.arange(3)


def test_removing_takes_empty_directories_and_no_others(place):
    treant = Treant(place / "sprout")
    for handle in ("a/b/c", "a/b/d", "e/f"):
        treant.data[handle] = np.arange(3)
    treant.place.files.write("sprout/e/f/figure.png", b"png")
    treant.data.remove("a/b/c")
    del treant.data["e/f"]
    assert shell.shows(place, "sprout/a/b", "d") and shell.shows(place, "sprout/e/f", "figure.png")
    treant.data.remove("a/b/d")
    assert shell.shows(place, "sprout", "e", f"Treant.{treant.uuid}.h5")
    with pytest.raises(KeyError):
        treant.data.remove("a/b/d")


def test_another_type_takes_the_place_of_the_former(treant):
    treant.allow_pickle = True
    for value, name in ((np.arange(3), ARRAY), (pd.Series([1]), FRAME), ([1], PICKLE), (np.arange(2), ARRAY)):
        treant.data["x"] = value
        assert [name for name, _ in files_of(treant).list("sprout/x")] == [name]
    assert treant.data["x"].tolist() == [0, 1]


def test_versions_share_what_they_have_in_common(treant):
    array = np.random.default_rng(1).integers(0, 1 << 62, (400_000, 3))
    treant.data["x"] = array
    first = stored(treant)
    treant.commit("first")
    array[200_000:200_010] = 0
    treant.data["x"] = array
    assert stored(treant) - first < array.nbytes / 3


def stored(treant: Treant) -> int:
    segments = Path(treant.place.files.repository) / ".arborfs" / "segments"
    return sum(file.stat().st_size for file in segments.glob("*.log"))


def test_trees_have_data_too(place):
    tree = Tree(place / "plain")
    with pytest.raises(OSError, match="exist"):
        tree.data.keys()
    tree.data["a/b"] = np.arange(3)
    assert tree.data.keys() == ["a/b"] and tree["a/"].data["b"].tolist() == [0, 1, 2]
    assert Tree(place.path).data.keys() == ["plain/a/b"]
    with pytest.raises(KeyError):
        tree.data["c"]


def test_where_it_is_for_programs(tmp_path, repository, mounted):
    treant = Treant(repository / "wood" / "sprout")
    treant.data["a/b"] = np.arange(3)
    with pytest.raises(NotMounted, match=f"arborfs mount {repository} DIRECTORY"):
        treant.data.locate("a/b")
    mount = mounted(repository)
    located = treant.data.locate("a/b")
    assert located == str(mount.main / "wood" / "sprout" / "a" / "b")
    inside = Treant(mount.main / "wood" / "sprout")
    assert inside.data.locate("a/b") == located
    assert inside.data.make_filepath("a/b", "x.png") == f"{located}/x.png"
    with open(inside.data.make_filepath("a/b", "x.png"), "w") as figure:
        figure.write("a figure")
    assert treant.data.keys() == ["a/b"] and place_of(located).files.read("wood/sprout/a/b/x.png") == b"a figure"
    with pytest.raises(ValueError):
        inside.data.make_filepath("a/b", "../x")
    with pytest.raises(NotFound):
        inside.data.locate("nothing")
    with h5py.File(f"{located}/{ARRAY}") as file:
        assert file["main"][()].tolist() == [0, 1, 2]


def test_without_pandas_it_says_what_to_install(tmp_path):
    program = f"""
import sys
sys.modules["pandas"] = sys.modules["tables"] = sys.modules["rapidfuzz"] = None
import numpy as np
from storage.treants.treant import Treant
treant = Treant({str(tmp_path / "new")!r}, tags="elm")
treant.data["x"] = np.arange(3)
assert treant.data["x"].sum() == 3
treant.place.files.write_many({{"t/{FRAME}": b"x"}})
for use in (lambda: treant.data["t"], lambda: treant.tags.fuzzy("elms")):
    try:
        use()
    except ImportError as error:
        assert "pip install arborfs[treants]" in str(error)
    else:
        raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_names_of_errors_are_those_of_the_call(treant):
    with pytest.raises(InvalidName):
        treant.data["../x"] = np.arange(3)


def test_long_arrays_are_packed_where_that_pays(treant):
    treant.data["zeros"] = np.zeros(1 << 18)
    assert stored(treant) < 1 << 20
    random = np.random.default_rng(1).standard_normal(1 << 18)
    treant.data["random"] = random
    assert stored(treant) >= random.nbytes
    assert np.array_equal(treant.data["random"], random) and not treant.data["zeros"].any()
