"""Every format there and back, and what is damaged, forged or would lead elsewhere."""

import csv
import io
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from storage.errors import (
    ArborError,
    InvalidInput,
    InvalidName,
    InvalidSample,
    NameTaken,
    NotFound,
    SchemaMismatch,
    Unsupported,
)
from storage.formats import registry

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = st.one_of(
    arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.floating_dtypes(), arrays.complex_number_dtypes()
)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def fresh(co, folder):
    """Names for another round in the same test: a dataset, and a folder."""
    number = len(list(folder.glob("round*")))
    (folder / f"round{number}").mkdir()
    return f"set{number}", folder / f"round{number}"


# --- npy and npz ----------------------------------------------------------------------------------------------


@QUICK
@given(
    array=arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_dims=3, max_side=4)),
    fortran=st.booleans(),
)
def test_a_npy_file_comes_back_to_the_byte(co, tmp_path, array, fortran):
    name, folder = fresh(co, tmp_path)
    np.save(folder / "x.npy", np.asfortranarray(array) if fortran and array.ndim else array)
    co.import_files(folder / "x.npy", dataset=name)
    assert np.array_equal(co.datasets[name]["x"], array, equal_nan=True)
    co.export(f"{name}/x.npy", folder / "back.npy")
    assert (folder / "back.npy").read_bytes() == (folder / "x.npy").read_bytes()


@QUICK
@given(array=arrays.arrays(DTYPES, arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=14)))
def test_an_array_taken_by_row_is_stacked_again(co, tmp_path, array):
    name, folder = fresh(co, tmp_path)
    np.save(folder / "x.npy", array)
    report = co.import_files(folder / "x.npy", dataset=name, by="row")
    assert report.samples == len(array) == len(co.datasets[name])
    assert np.array_equal(co.datasets[name][len(array) - 1], array[-1], equal_nan=True)
    co.export(name, folder / "back.npy")
    assert (folder / "back.npy").read_bytes() == (folder / "x.npy").read_bytes()


def test_rows_of_another_file_go_on_with_the_next_number(co, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12).reshape(4, 3))
    np.save(tmp_path / "b.npy", np.arange(12, 21).reshape(3, 3))
    co.import_files(tmp_path / "a.npy", dataset="x", by="row")
    co.commit("four rows")
    co.import_files(tmp_path / "b.npy", tmp_path / "a.npy", dataset="x", by="row")
    assert len(co.datasets["x"]) == 11
    co.export("x", tmp_path / "all.npy")
    stacked = np.load(tmp_path / "all.npy")
    assert np.array_equal(stacked, np.concatenate([np.arange(21), np.arange(12)]).reshape(11, 3))


@QUICK
@given(
    members=st.dictionaries(
        st.text(
            st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9
        ),
        arrays.arrays(np.int32, (2, 3)),
        min_size=1,
        max_size=5,
    )
)
def test_a_npz_file_comes_back(co, tmp_path, members):
    members = {name: array for name, array in members.items() if name not in (".", "..", ".arborfs", "file")}
    if not members:
        return
    name, folder = fresh(co, tmp_path)
    np.savez(folder / "x.npz", **members)
    co.import_files(folder / "x.npz", dataset=name)
    assert set(co.datasets[name]) == set(members)
    co.export(name, folder / "back.npz")
    with np.load(folder / "back.npz") as back:
        assert set(back) == set(members)
        assert all(np.array_equal(back[key], array) for key, array in members.items())


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name", ["../x.npy", "/etc/x.npy", "a/b.npy", "..npy", ".npy", ".arborfs.npy", "x" * 241 + ".npy"]
)
def test_members_that_would_lead_elsewhere_are_refused(co, tmp_path, name):
    path = archive(tmp_path / "x.npz", {"good.npy": npy(np.ones(3)), name: npy(np.ones(3))})
    with pytest.raises(InvalidInput) as caught:
        co.import_files(path, dataset="x")
    assert str(path) in str(caught.value) and repr(name) in str(caught.value)
    assert clean(co) and "x" not in co.datasets


def clean(co):
    """Whether nothing is staged."""
    return not co._session.tree.is_dirty()


class Exploding:
    """Makes a directory where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_pickles_are_never_loaded(co, tmp_path, ending):
    raw = npy(np.array([Exploding(tmp_path / "exploded")], object), allow_pickle=True)
    path = tmp_path / f"x.{ending}"
    path.write_bytes(raw) if ending == "npy" else archive(path, {"x.npy": raw})
    with pytest.raises(InvalidSample, match="pickled"):
        co.import_files(path, dataset="x")
    assert clean(co) and not (tmp_path / "exploded").exists()
    path.write_bytes(pickle.dumps(Exploding(tmp_path / "exploded")))
    with pytest.raises(ArborError, match="x.np"):
        co.import_files(path, dataset="x")
    assert not (tmp_path / "exploded").exists()


def test_a_member_that_promises_more_than_there_is_is_refused_at_once(co, tmp_path):
    raw = bytearray(npy(np.zeros(1000)))
    raw = raw.replace(b"(1000,)", b"(9999999999999,)", 1).replace(b" " * 9, b"", 1)
    raw = bytes(raw[:10]) + raw[10:]
    struct.pack_into("<H", raw := bytearray(raw), 8, struct.unpack_from("<H", raw, 8)[0])
    path = archive(tmp_path / "x.npz", {"x.npy": bytes(raw)})
    with pytest.raises(InvalidSample, match="its header promises"):
        co.import_files(path, dataset="x")
    assert clean(co)


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(co, tmp_path):
    small = npy(np.zeros(4))
    path = archive(tmp_path / "x.npz", {"x.npy": small + bytes(50_000_000)})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.rindex(mark) + offset, len(small))
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"x\.npz, member 'x\.npy'"):
        co.import_files(path, dataset="x")
    assert clean(co)


@pytest.mark.parametrize("cut", [0, 1, 60, 200, -30])
def test_an_archive_cut_short_is_refused(co, tmp_path, cut):
    path = archive(tmp_path / "x.npz", {"x.npy": npy(np.random.default_rng(1).random(1000))})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InvalidInput, match=r"x\.npz"):
        co.import_files(path, dataset="x")
    assert clean(co)


def test_a_member_with_a_wrong_checksum_is_refused(co, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.arange(30_000))
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="damaged"):
        co.import_files(path, dataset="x")
    assert clean(co)


def test_a_file_that_does_not_fit_is_named(co, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    np.save(tmp_path / "b.npy", np.zeros((2, 4)))
    np.save(tmp_path / "c.npy", np.zeros((2, 3), np.float32))
    for other, reason in (("b", r"shape \(2, 4\)"), ("c", "float32")):
        with pytest.raises(SchemaMismatch, match=reason) as caught:
            co.import_files(tmp_path / "a.npy", tmp_path / f"{other}.npy", dataset="x")
        assert f"{other}.npy" in str(caught.value) and clean(co)
    co.import_files(tmp_path / "a.npy", tmp_path / "b.npy", dataset="x", variable_shape=True)
    assert co.datasets["x"].shape == (2, 4) and co.datasets["x"]["a"].shape == (2, 3)


# --- HDF5 -----------------------------------------------------------------------------------------------------


def h5_content(path):
    """Everything in an HDF5 file, so that two files with the same answer are the same to who reads them."""
    found = {}

    def plain(value, file):
        if isinstance(value, h5py.Reference):
            return ("ref", file[value].name) if value else "null"
        if isinstance(value, np.void) and value.dtype.names:
            return tuple(plain(value[field], file) for field in value.dtype.names)
        if isinstance(value, np.ndarray):
            return value.shape, [plain(each, file) for each in value.reshape(-1)]
        return repr(value)

    def look(group, file):
        for name in group:
            link = group.get(name, getlink=True)
            full = f"{group.name}/{name}"
            if isinstance(link, h5py.SoftLink):
                found[full] = ("soft", link.path)
                continue
            if isinstance(link, h5py.ExternalLink):
                found[full] = ("external", link.filename, link.path)
                continue
            item = group[name]
            attrs = {key: (plain(item.attrs[key], file), item.attrs.get_id(key).dtype) for key in item.attrs}
            if isinstance(item, h5py.Group):
                found[full] = ("group", attrs)
                look(item, file)
            elif isinstance(item, h5py.Dataset):
                settings = (item.shape, item.dtype, item.maxshape, item.chunks, item.compression, item.shuffle)
                empty = item.shape is None
                found[full] = ("dataset", settings, attrs, None if empty else plain(np.asarray(item[()]), file))
            else:
                found[full] = ("type", item.dtype)

    with h5py.File(path) as file:
        found["/"] = {key: plain(file.attrs[key], file) for key in file.attrs}
        look(file, file)
    return found


def h5_zoo(path):
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "everything"
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["fixed"] = np.bytes_("abc")
        file.attrs["many"] = np.array(["a", "bß"], h5py.string_dtype())
        packed = file.create_dataset(
            "deep/er/packed", data=np.arange(3000.0).reshape(1000, 3), chunks=(64, 3), compression="gzip", shuffle=True
        )
        packed.attrs["unit"] = "m"
        packed.attrs["range"] = np.array([0, 3000], ">i4")
        file.create_dataset("grows", data=np.arange(7, dtype=">u2"), maxshape=(None,), chunks=(4,))
        file["images"] = np.random.default_rng(2).integers(0, 255, (5, 8, 9, 3)).astype(np.uint8)
        file["truth"] = np.array([True, False])
        file["colour"] = np.array([0, 2, 1]).astype(h5py.enum_dtype({"r": 0, "g": 1, "b": 2}, "i1"))
        file["both"] = np.array([(1, 2.5, b"ab")], [("n", "i4"), ("x", "f8"), ("t", "S3")])
        file["none"] = np.empty((0, 4), np.int16)
        file["fixed_text"] = np.array([b"one", b"three"])
        file["text"] = ["one", "three ß"]
        file.create_dataset("words", (3, 2), h5py.string_dtype("ascii"))[1] = ["a", "b c"]
        file["long_text"] = ["x" * 5000, "y"]
        file["a_link"] = file["text"]
        file["text"].attrs["language"] = "en"
        file["single"] = 3.5
        file["null"] = h5py.Empty("i8")
        file["complex"] = np.array([1 + 2j])
        file.create_dataset("ragged", (2,), h5py.vlen_dtype("i4"))[0] = [1, 2, 3]
        file["type"] = np.dtype([("a", "i4")])
        file["deep/er/same"] = file["deep/er/packed"]
        file["soft"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["pointer"] = np.array([file["images"].ref], h5py.ref_dtype)
        file["grows"].make_scale("axis")
        file["deep/er/packed"].dims[1].label = "xyz"
        file.create_dataset("scaled", data=np.zeros((7, 2))).dims[0].attach_scale(file["grows"])
        file.create_group("hollow").attrs["why"] = 1
    return path


def test_everything_in_an_hdf5_file_comes_back(co, tmp_path):
    path = h5_zoo(tmp_path / "zoo.h5")
    co.import_files(path, dataset="zoo")
    packed = co.datasets["zoo/deep/er/packed"]
    assert len(packed) == 1000 and np.array_equal(packed[999], [2997, 2998, 2999])
    assert co.datasets["zoo/images"].shape == (8, 9, 3)
    assert co.datasets["zoo/both"][0]["t"] == b"ab"
    assert len(co.datasets["zoo/none"]) == 0
    assert co.datasets["zoo/a_link"][1].item().decode() == "three ß"
    assert "zoo/text" not in co.datasets and "zoo/long_text" not in co.datasets
    co.export("zoo", tmp_path / "back.h5")
    assert h5_content(tmp_path / "back.h5") == h5_content(path)
    before = co.commit("a zoo")
    co.import_files(path, dataset="zoo")  # all of it is there
    assert clean(co) and co.commit_hash == before


@QUICK
@given(array=arrays.arrays(DTYPES, arrays.array_shapes(min_dims=1, max_dims=3, max_side=14)))
def test_any_array_comes_back_from_an_hdf5_file(co, tmp_path, array):
    if array.dtype.itemsize > 8 and array.dtype.kind == "f":
        return
    name, folder = fresh(co, tmp_path)
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = array
    co.import_files(folder / "x.h5", dataset=name)
    co.export(name, folder / "back.h5")
    with h5py.File(folder / "back.h5") as file:
        assert file["x"].dtype == array.dtype
        assert np.array_equal(file["x"][...], array, equal_nan=True)


def test_all_names_of_a_dataset_lead_to_what_it_has_become(co, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["z"] = np.arange(3)
        file["b/y"] = file["x"] = file["kept"] = file["z"]
        file["gone"] = np.arange(4)
        file["b/gone"] = file["gone"]
        file["words"] = ["a", "bb"]
        file["words.keys"] = ["same", "same"]  # nothing of ours
    co.import_files(tmp_path / "x.h5", dataset="x")
    names = [name for name in co.datasets if len(co.datasets[name]) == 3]
    assert len(names) == 1
    co.datasets[names[0]]["3"] = np.array(3)
    gone = next(name for name in co.datasets if len(co.datasets[name]) == 4 and "gone" in name)
    del co.datasets[gone]
    co.datasets["x/words"]["2"] = np.array(b"c", "S2")
    co.export("x", tmp_path / "back.h5")
    with h5py.File(tmp_path / "back.h5") as file:
        for name in ("x", "z", "b/y", "kept"):
            assert np.array_equal(file[name], np.arange(4))
        assert file["x"] == file["z"] and "gone" not in file and "gone" not in file["b"]
        assert list(file["words"].asstr()) == ["a", "bb", "c"]
        assert h5py.check_string_dtype(file["words"].dtype).length is None


def test_an_export_has_what_changed_since_the_import(co, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("fixed", data=np.arange(12).reshape(4, 3)).attrs["unit"] = "s"
        file.create_dataset("grows", data=np.arange(4), maxshape=(None,), chunks=(2,)).attrs["unit"] = "m"
        file["goes"] = np.arange(3)
    co.import_files(tmp_path / "x.h5", dataset="x")
    co.datasets["x/fixed"]["4"] = np.array([7, 8, 9])
    co.datasets["x/grows"]["4"] = np.array(4)
    del co.datasets["x/goes"]
    co.datasets.init_dataset("x/new", shape=(2,), dtype=np.float32)["0"] = np.ones(2, np.float32)
    co.datasets.init_dataset("x/named", shape=(), dtype=np.float32)["some key"] = np.array(1, np.float32)
    co.export("x", tmp_path / "back.h5")
    with h5py.File(tmp_path / "back.h5") as file:
        assert np.array_equal(file["fixed"][4], [7, 8, 9]) and file["fixed"].attrs["unit"] == "s"
        assert np.array_equal(file["grows"], np.arange(5)) and file["grows"].attrs["unit"] == "m"
        assert file["grows"].chunks == (2,) and "goes" not in file
        assert np.array_equal(file["new"], [[1, 1]])
        assert list(file["named.keys"].asstr()) == ["some key"]
    co.import_files(tmp_path / "back.h5", dataset="y")
    assert list(co.datasets["y/named"]) == ["some key"]


@pytest.mark.parametrize("part", [0, 10, 700, 3000, -1000])
def test_an_hdf5_file_cut_short_is_refused(co, tmp_path, part):
    path = h5_zoo(tmp_path / "zoo.h5")
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(InvalidInput, match=r"zoo\.h5"):
        co.import_files(path, dataset="x")
    assert clean(co)


def test_a_damaged_chunk_is_told_with_its_dataset(co, tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", data=np.arange(10_000), chunks=(1000,), compression="gzip", fletcher32=True)
        place = file["packed"].id.get_chunk_info(3).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="dataset /packed"):
        co.import_files(path, dataset="x")
    assert clean(co)


def test_hdf5_names_that_would_lead_elsewhere_are_refused(co, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        space = h5py.h5s.create_simple((2,))
        h5py.h5d.create(file.id, b"..", h5py.h5t.NATIVE_INT32, space)
    with pytest.raises(ArborError, match=r"x\.h5.*'\.\.'"):
        co.import_files(tmp_path / "x.h5", dataset="x")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/.arborfs"] = [1]
    with pytest.raises(InvalidName, match=r"x\.h5"):
        co.import_files(tmp_path / "x.h5", dataset="x")
    assert clean(co)


def test_hdf5_datasets_that_lie_in_other_files_are_refused(co, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(80))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (10,), "i8", external=[(str(tmp_path / "secret"), 0, 80)])
    with h5py.File(tmp_path / "v.h5", "w") as file:
        layout = h5py.VirtualLayout((10,), "i8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "x.h5"), "x", (10,))
        file.create_virtual_dataset("v", layout)
    for name in ("x", "v"):
        with pytest.raises(InvalidInput, match="other files"):
            co.import_files(tmp_path / f"{name}.h5", dataset="x")
    assert clean(co)


# --- tables ---------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)
CELLS = {
    "<i8": st.integers(-(2**63), 2**63 - 1),
    "<f8": st.floats(allow_nan=False),
    "text": TEXT.map(lambda text: f"t{text}"),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*(CELLS[kind] for kind in kinds)), min_size=1, max_size=20))
    return kinds, rows


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@QUICK
@given(table=tables())
def test_a_table_comes_back(co, tmp_path, ending, table):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    kinds, rows = table
    name, folder = fresh(co, tmp_path)
    columns = list(zip(*rows, strict=True))
    dtype = [
        (f"c{i}", kind if kind != "text" else f"U{max(map(len, column))}")
        for i, (kind, column) in enumerate(zip(kinds, columns, strict=True))
    ]
    wanted = np.array(rows, dtype)
    data = co.datasets.init_dataset(name, shape=(), dtype=np.dtype(dtype))
    for i in range(len(wanted)):
        data[i] = wanted[i : i + 1].reshape(())
    co.export(name, folder / f"x.{ending}")
    co.import_files(folder / f"x.{ending}", dataset=f"{name}-again")
    again = co.datasets[f"{name}-again"]
    assert again.dtype == wanted.dtype
    assert all(again[i] == wanted[i] for i in range(len(wanted)))
    co.export(f"{name}-again", folder / f"again.{ending}")
    assert (folder / f"again.{ending}").read_bytes() == (folder / f"x.{ending}").read_bytes()


def table(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding, newline="")
    return path


def test_what_a_column_holds_is_found_out(co, tmp_path):
    path = table(
        tmp_path / "x.csv", "﻿n,x,gap,code,under,big,none\n1,2,1,007,1_0,9223372036854775808,\n-3,.5e3,,1,2,1,\n"
    )
    co.import_files(path, dataset="x")
    dtype = co.datasets["x"].dtype
    assert [dtype[name].str for name in dtype.names] == ["<i8", "<f8", "<f8", "<U3", "<U3", "<U19", "<U1"]
    assert np.isnan(co.datasets["x"][1]["gap"]) and co.datasets["x"][0]["code"] == "007"


@pytest.mark.parametrize(
    "text, where, reason",
    [
        ("a,b\n1,2\n3\n", "line 3", "1 cells"),
        ("a,b\n1,2,3\n", "line 2", "3 cells"),
        ('a,b\n1,"2\n', "line ", "not a table"),
        ("", "x.csv", "empty"),
        ("a,a\n1,2\n", "x.csv", "twice"),
        ("a,\n1,2\n", "x.csv", "empty"),
        ("a,b\n1,2\0\n", "line 2", "NUL"),
        ("a,b\n1," + "x" * 200_000, "line ", "limit"),
    ],
)
def test_a_bad_table_is_told_with_its_line(co, tmp_path, text, where, reason):
    path = table(tmp_path / "x.csv", text)
    with pytest.raises(InvalidInput) as caught:
        co.import_files(path, dataset="x")
    assert where in str(caught.value) and reason in str(caught.value) and str(path) in str(caught.value)
    assert clean(co)


def test_bytes_that_are_no_text_are_told(co, tmp_path):
    path = table(tmp_path / "x.csv", "a,b\n1,ü\n", "latin-1")
    with pytest.raises(InvalidInput, match="line"):
        co.import_files(path, dataset="x")


def test_a_row_that_does_not_fit_what_is_there_is_refused(co, tmp_path):
    co.import_files(table(tmp_path / "x.csv", "a,b\n1,2\n"), dataset="x")
    co.import_files(table(tmp_path / "y.csv", "a,b\n3,4\n"), dataset="x")
    assert [int(row["a"]) for row in co.datasets["x"].values()] == [1, 3]
    co.commit("two rows")
    with pytest.raises(SchemaMismatch, match=r"z\.csv"):
        co.import_files(table(tmp_path / "z.csv", "a,b\n3,4.5\n"), dataset="x")
    assert clean(co)


def test_keys_from_a_column(co, tmp_path):
    path = table(tmp_path / "x.csv", "who,age\nada,36\ngrace,85\n")
    co.import_files(path, dataset="x", key="who")
    assert list(co.datasets["x"]) == ["ada", "grace"] and co.datasets["x"]["ada"]["age"] == 36
    co.export("x", tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_text() == "key,age\nada,36\ngrace,85\n"
    with pytest.raises(InvalidInput, match="no column 'name'"):
        co.import_files(path, dataset="y", key="name")
    with pytest.raises(InvalidName, match=r"z\.csv, row 2.*`a/b`"):
        co.import_files(table(tmp_path / "z.csv", "who,age\nada,36\na/b,37\n"), dataset="y", key="who")


def test_a_key_that_is_there_already_is_told_with_file_and_row(co, tmp_path):
    co.import_files(table(tmp_path / "one.csv", "who,age\nada,36\ngrace,85\n"), dataset="y", key="who")
    two = table(tmp_path / "two.csv", "who,age\nalan,41\ngrace,86\n")
    with pytest.raises(NameTaken, match=r"two\.csv, row 2: y/grace\.npy is there already, and is not the same"):
        co.import_files(two, dataset="y", key="who")
    assert list(co.datasets["y"]) == ["ada", "grace"]
    co.import_files(two, dataset="y", key="who", overwrite=True)
    assert co.datasets["y"]["grace"]["age"] == 86


def test_a_key_that_comes_twice_is_told_with_both_files_and_rows(co, tmp_path):
    one = table(tmp_path / "one.csv", "who,age\nada,36\ngrace,85\nada,37\n")
    with pytest.raises(NameTaken, match=r"one\.csv, row 3: y/ada\.npy came from .*one\.csv, row 1 already") as caught:
        co.import_files(one, dataset="y", key="who")
    assert caught.value.path == (b"y", b"ada.npy")
    # More rows than are kept in memory at once, so that both are far apart; and in different files.
    many = "".join(f"p{number},1\n" for number in range(60_000))
    two, three = table(tmp_path / "two.csv", f"who,age\n{many}"), table(tmp_path / "three.csv", "who,age\nq,1\np7,1\n")
    with pytest.raises(NameTaken, match=r"three\.csv, row 2: y/p7\.npy came from .*two\.csv, row 8 already"):
        co.import_files(two, three, dataset="y", key="who")
    # Numbered samples, and names of files.
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        np.save(tmp_path / folder / "sub" / "k.npy", np.zeros(3))
    with pytest.raises(NameTaken, match=r"b/sub/k\.npy: y/sub/k\.npy came from .*a/sub/k\.npy already"):
        co.import_files(tmp_path / "a", tmp_path / "b", dataset="y", format="npy")
    with pytest.raises(NameTaken, match=r"b/sub: y/sub came from .*a/sub already"):
        co.import_files(tmp_path / "a", tmp_path / "b", dataset="y")
    np.save(tmp_path / "1.npy", np.array((7,), [("n", "i8")]))
    rows = table(tmp_path / "rows.csv", "n\n5\n6\n")
    with pytest.raises(NameTaken, match=r"rows\.csv, row 2: y/1\.npy came from .*1\.npy already"):
        co.import_files(tmp_path / "1.npy", rows, dataset="y")
    assert co.diff.status() == "CLEAN"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_one_array_a_column(co, tmp_path, ending):
    rows = np.array([(i, i / 2, f"t{i}") for i in range(10_000)], [("n", "i8"), ("x", "f8"), ("t", "U5")])
    if ending == "csv":
        with open(tmp_path / "x.csv", "w", newline="") as file:
            csv.writer(file).writerows([rows.dtype.names, *rows.tolist()])
    else:
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        pyarrow.parquet.write_table(
            arrow.table({name: rows[name].tolist() for name in rows.dtype.names}), tmp_path / "x.parquet"
        )
    report = co.import_files(tmp_path / f"x.{ending}", dataset="x", by="column")
    assert report.samples == 3
    for name in rows.dtype.names:
        assert np.array_equal(co.datasets[f"x/{name}"]["x"], rows[name])


def test_numbers_of_a_sample_are_columns(co, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12).reshape(3, 2, 2))
    co.import_files(tmp_path / "x.npy", dataset="x", by="row")
    co.export("x", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "c0,c1,c2,c3\n0,1,2,3\n4,5,6,7\n8,9,10,11\n"


def test_parquet_of_many_kinds(co, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {
        "truth": arrow.array([True, False]),
        "small": arrow.array([1, 2], arrow.int8()),
        "when": arrow.array([1, 2], arrow.timestamp("us")),
        "raw": arrow.array([b"a", b"\xff\xfe"]),
        "word": arrow.array(["x", "yy"]).dictionary_encode(),
        "vector": arrow.FixedSizeListArray.from_arrays(arrow.array([1.0, 2.0, 3.0, 4.0]), 2),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    co.import_files(tmp_path / "x.parquet", dataset="x")
    row = co.datasets["x"][1]
    assert (bool(row["truth"]), int(row["small"]), row["raw"].item(), str(row["word"])) == (False, 2, b"\xff\xfe", "yy")
    assert np.array_equal(row["vector"], [3, 4])
    co.export("x", tmp_path / "back.parquet")
    back = parquet.read_table(tmp_path / "back.parquet").to_pylist()
    assert back == parquet.read_table(tmp_path / "x.parquet").to_pylist()
    parquet.write_table(arrow.table({"a": arrow.array([1, None])}), tmp_path / "null.parquet")
    with pytest.raises(InvalidInput, match=r"null\.parquet, row 2"):
        co.import_files(tmp_path / "null.parquet", dataset="y")
    parquet.write_table(arrow.table({"a": arrow.array([[1], [2, 3]])}), tmp_path / "list.parquet")
    with pytest.raises(Unsupported, match="column 'a'"):
        co.import_files(tmp_path / "list.parquet", dataset="y")
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidInput, match=r"cut\.parquet"):
        co.import_files(tmp_path / "cut.parquet", dataset="y")


def test_parquet_without_pyarrow_says_what_to_install(co, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(Unsupported, match=r"arborfs\[parquet\]"):
        co.import_files(tmp_path / "x.parquet", dataset="x")


# --- images ---------------------------------------------------------------------------------------------------


@QUICK
@given(pixels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))))
def test_images_come_back(co, tmp_path, pixels):
    name, folder = fresh(co, tmp_path)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(folder / "x.png")
    co.import_files(folder / "x.png", dataset=name)
    assert np.array_equal(co.datasets[name]["x"], pixels)
    co.export(f"{name}/x.npy", folder / "back.png")
    co.import_files(folder / "back.png", dataset=f"{name}-again")
    assert np.array_equal(co.datasets[f"{name}-again"]["back"], pixels)


def test_folders_of_images_become_datasets(co, tmp_path):
    rng = np.random.default_rng(3)
    for place in ("cat/a.png", "cat/b.png", "dog/a.bmp"):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (4, 5, 3)).astype(np.uint8)).save(tmp_path / "in" / place)
    (tmp_path / "in" / "README").write_text("no image")
    (tmp_path / "in" / "link.png").symlink_to("cat/a.png")
    report = co.import_files(tmp_path / "in", dataset="pets", format="image")
    assert (report.samples, report.skipped) == (3, 2)
    assert set(co.datasets) == {"pets/cat", "pets/dog"} and set(co.datasets["pets/cat"]) == {"a", "b"}
    co.export("pets/cat", tmp_path / "cats", format="image")
    assert sorted(os.listdir(tmp_path / "cats")) == ["a.png", "b.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "cats/a.png")), co.datasets["pets/cat"]["a"])


def test_images_of_other_kinds(co, tmp_path):
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000
    Image.fromarray(grey).save(tmp_path / "wide.png")
    co.import_files(tmp_path / "wide.png", dataset="wide")
    assert co.datasets["wide"].dtype == np.uint16 and np.array_equal(co.datasets["wide"]["wide"][..., 0], grey)
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).convert("P").save(tmp_path / "palette.png")
    co.import_files(tmp_path / "palette.png", dataset="palette")
    assert co.datasets["palette"].shape == (4, 4, 3)
    frames = [Image.new("L", (4, 4), n * 90) for n in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidInput, match="3 frames"):
        co.import_files(tmp_path / "moving.gif", dataset="moving")


def test_images_that_cannot_be_read(co, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "x.bmp")
    data = (tmp_path / "x.bmp").read_bytes()
    (tmp_path / "cut.bmp").write_bytes(data[: len(data) // 2])
    (tmp_path / "none.png").write_bytes(b"not an image")
    for name in ("cut.bmp", "none.png"):
        with pytest.raises(InvalidInput, match=name):
            co.import_files(tmp_path / name, dataset="x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InvalidInput, match="exceeds limit"):
        co.import_files(tmp_path / "x.bmp", dataset="x")
    assert clean(co)


def test_what_is_no_image_is_not_written_as_one(co, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    co.import_files(tmp_path / "x.npy", dataset="x")
    with pytest.raises(Unsupported, match="no image"):
        co.export("x/x.npy", tmp_path / "x.png")
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob(".x*"))


# --- trees ----------------------------------------------------------------------------------------------------


def tree(path):
    """Everything in a directory: kinds, contents, permissions, times."""
    found = {}
    for folder, folders, files in os.walk(path):
        for name in [*folders, *files]:
            full = os.path.join(folder, name)
            known = os.lstat(full)
            content = os.readlink(full) if os.path.islink(full) else Path(full).read_bytes() if name in files else None
            found[os.path.relpath(full, path)] = (known.st_mode, known.st_mtime_ns, content)
    return found


def test_a_directory_comes_back(co, tmp_path):
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "deep/er/big").write_bytes(os.urandom(3_000_000))
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o755)
    (source / "secret").write_text("x")
    (source / "secret").chmod(0o600)
    (source / "none").touch()
    (source / "link").symlink_to("/etc/passwd")
    (source / "up").symlink_to("..", target_is_directory=True)
    (source / os.fsdecode(b"odd \xff name")).write_text("y")
    os.utime(source / "script", ns=(1, 1_234_567_891_000_000_123))
    report = co.import_files(source, dataset="notes/all")
    assert report.files == 7 and report.samples == 0
    co.commit("a tree")
    co.export("notes/all", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(source)
    assert not any(
        b"root:" in (content or b"") for _, _, content in tree(tmp_path / "back").values() if isinstance(content, bytes)
    )


def test_a_fifo_is_refused_and_not_waited_for(co, tmp_path):
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe")
    with pytest.raises(InvalidInput, match="pipe"):
        co.import_files(tmp_path / "in", dataset="x")
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(InvalidInput, match=r"x\.npy"):
        co.import_files(tmp_path / "x.npy", dataset="x")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / ".arborfs").mkdir()
    with pytest.raises(InvalidName, match="own/.arborfs"):
        co.import_files(tmp_path / "own", dataset="x")
    assert clean(co)


def test_files_in_a_dataset_are_samples_that_must_fit(co, tmp_path):
    co.datasets.init_dataset("x", shape=(3,), dtype=np.float64)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "good.npy", np.ones(3))
    (tmp_path / "in" / "README").write_text("beside them")
    co.import_files(tmp_path / "in", dataset="x")
    assert np.array_equal(co.datasets["x"]["good"], np.ones(3))
    before = co.commit("good")
    np.save(tmp_path / "in" / "bad.npy", np.ones(4))
    with pytest.raises(SchemaMismatch, match=r"bad\.npy"):
        co.import_files(tmp_path / "in", dataset="x")
    assert clean(co) and co.commit_hash == before


def test_extended_attributes_go_along(co, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    try:
        os.setxattr(tmp_path / "in" / "a", "user.note", b"\0kept")
    except OSError as error:
        pytest.skip(f"no attributes here: {error}")
    co.import_files(tmp_path / "in", dataset="x")
    co.export("x", tmp_path / "back")
    assert os.getxattr(tmp_path / "back" / "a", "user.note") == b"\0kept"


# --- plug-ins -------------------------------------------------------------------------------------------------

PLUGIN = """
import struct
from pathlib import Path
import numpy as np
from storage.formats.base import Samples

class Waves:
    name = "wave"
    suffixes = (".wave",)
    def weigh(self, path, options):
        return Path(path).stat().st_size
    def load(self, path, options):
        yield Samples(np.frombuffer(Path(path).read_bytes(), "<f4")[None], [Path(path).stem], str(path))
        options.meter.advance(Path(path).stat().st_size)
    def save(self, stored, path, options):
        Path(path).write_bytes(stored.array.astype("<f4").tobytes())

waves = Waves()
"""


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """A package with a plug-in, installed as pip would: a module beside the metadata that name its entry points."""

    def install(points, module=PLUGIN):
        folder = tmp_path / "packages"
        (folder / "waves-1.0.dist-info").mkdir(parents=True)
        (folder / "waves_plugin.py").write_text(module)
        (folder / "waves-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
        (folder / "waves-1.0.dist-info" / "entry_points.txt").write_text(f"[arborfs.formats]\n{points}\n")
        monkeypatch.syspath_prepend(folder)
        registry.plugins.cache_clear()

    yield install
    registry.plugins.cache_clear()
    sys.modules.pop("waves_plugin", None)


def test_a_plug_in_loads_and_saves(co, tmp_path, plugged):
    plugged("wave = waves_plugin:waves")
    (tmp_path / "a.wave").write_bytes(np.arange(4, dtype="<f4").tobytes())
    co.import_files(tmp_path / "a.wave", dataset="x")
    assert np.array_equal(co.datasets["x"]["a"], np.arange(4))
    co.export("x/a.npy", tmp_path / "back.wave")
    assert (tmp_path / "back.wave").read_bytes() == (tmp_path / "a.wave").read_bytes()
    assert registry.named("wave").name == "wave"


@pytest.mark.parametrize(
    "points", ["wave = waves_plugin:nothing", "wave = no_such_module:waves", "wave = waves_plugin:struct"]
)
def test_a_plug_in_that_is_broken_is_named(co, tmp_path, plugged, points):
    plugged(points)
    (tmp_path / "a.wave").touch()
    with pytest.raises(Unsupported, match="'wave'"):
        co.import_files(tmp_path / "a.wave", dataset="x")
    np.save(tmp_path / "a.npy", np.ones(2))
    co.import_files(tmp_path / "a.npy", dataset="x")  # what needs no plug-in is not held up by it


def test_formats_that_are_not_known(co, tmp_path):
    (tmp_path / "x.what").touch()
    with pytest.raises(Unsupported, match=r"\.what"):
        co.import_files(tmp_path / "x.what", dataset="x")
    with pytest.raises(NotFound, match="tree, npy"):
        co.import_files(tmp_path / "x.what", dataset="x", format="nothing")
    with pytest.raises(FileNotFoundError):
        co.import_files(tmp_path / "missing.npy", dataset="x")
    assert set(registry.formats()) == set(registry.NAMES)
