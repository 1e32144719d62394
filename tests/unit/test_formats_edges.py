"""What formats do with the unusual: nothing in it, nothing said, other things than the first time they looked."""

import h5py
import numpy as np
import pytest

from storage.errors import InvalidInput
from storage.formats import tables


def clean(co):
    return co.diff.status() == "CLEAN"


def test_a_null_in_a_list_is_refused_with_its_row(co, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lists = arrow.array([[1, 2], [3, None]], arrow.list_(arrow.int32(), 2))
    parquet.write_table(arrow.table({"a": lists}), tmp_path / "x.parquet")
    with pytest.raises(InvalidInput, match=r"x\.parquet, row 2: column 'a' has no value"):
        co.import_files(tmp_path / "x.parquet", dataset="x")


def test_dates_and_durations_come_back(co, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "day": arrow.array([0, 20000], arrow.date32()),
        "long": arrow.array([1, 2], arrow.duration("ms")),
        "times": arrow.array([[-(1 << 62), 2], [3, 4]], arrow.list_(arrow.timestamp("us"), 2)),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    co.import_files(tmp_path / "x.parquet", dataset="x")
    assert co.datasets["x"].dtype == [("day", "M8[D]"), ("long", "m8[ms]"), ("times", "M8[us]", (2,))]
    co.export("x", tmp_path / "back.parquet")
    assert parquet.read_table(tmp_path / "back.parquet").equals(parquet.read_table(tmp_path / "x.parquet"))


def test_tables_and_arrays_without_rows_make_empty_datasets(co, tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n")
    np.save(tmp_path / "x.npy", np.empty((0, 3), ">i2"))
    co.import_files(tmp_path / "x.csv", dataset="table")
    co.import_files(tmp_path / "x.npy", dataset="rows", by="row")
    assert len(co.datasets["table"]) == 0 and co.datasets["table"].dtype.names == ("a", "b")
    co.export("table", tmp_path / "back.csv")
    co.export("rows", tmp_path / "back.npy")
    for name in ("csv", "npy"):
        assert (tmp_path / f"back.{name}").read_bytes() == (tmp_path / f"x.{name}").read_bytes()


@pytest.mark.parametrize(
    "second", ["a,b\n1,xxxx\n", "a,b\nz,x\n", "b,a\n1,x\n", "a\n1\n", "", "a,b\n" + "9" * 30 + ",x\n"]
)
def test_a_table_that_changes_between_the_two_readings_is_refused(co, tmp_path, monkeypatch, second):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,x\n")
    found_out = tables._found_out

    def then_changed(*arguments):
        answer = found_out(*arguments)
        path.write_text(second)
        return answer

    monkeypatch.setattr(tables, "_found_out", then_changed)
    with pytest.raises(InvalidInput, match="the file changed while it was read"):
        co.import_files(path, dataset="x")
    assert clean(co)


def test_text_of_one_length_in_utf8_goes_back_into_its_hdf5_file(co, tmp_path):
    kind = h5py.string_dtype("utf-8", 4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["text"] = np.array([b"\xc3\xa9", b"ab"], kind)
        file.create_dataset("both", data=np.array([(b"\xc3\xa9", 1)], [("t", kind), ("n", "i4")]))
    co.import_files(tmp_path / "x.h5", dataset="x")
    co.export("x", tmp_path / "back.h5")
    with h5py.File(tmp_path / "back.h5") as file:
        for dtype in (file["text"].dtype, file["both"].dtype["t"]):
            assert tuple(h5py.check_string_dtype(dtype)) == ("utf-8", 4)
        assert list(file["text"][...]) == [b"\xc3\xa9", b"ab"]
        assert file["both"][0].item() == (b"\xc3\xa9", 1)


def test_the_order_in_an_hdf5_file_is_kept_where_the_file_keeps_it(co, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", track_order=True) as file:
        for name in ("b", "c", "a"):
            file[name] = [1.0]
            file.attrs[name] = 1
    co.import_files(tmp_path / "x.h5", dataset="x")
    co.export("x", tmp_path / "back.h5")
    with h5py.File(tmp_path / "back.h5") as file:
        assert list(file) == list(file.attrs) == ["b", "c", "a"]


def test_members_of_an_archive_that_differ_become_datasets(co, tmp_path):
    images, labels = np.arange(24.0).reshape(4, 2, 3), np.arange(4, dtype=">i4")
    np.savez(tmp_path / "x.npz", **{"train/images": images, "train/labels": labels})
    assert co.import_files(tmp_path / "x.npz", dataset="rows", by="row").samples == 8
    assert np.array_equal(co.datasets["rows/train/images"][3], images[3])
    co.export("rows/train/labels", tmp_path / "labels.npy")
    back = np.load(tmp_path / "labels.npy")
    assert back.dtype == labels.dtype and np.array_equal(back, labels)


def test_members_of_any_shape_and_order_are_kept_whole_by_column(co, tmp_path):
    whole, single = np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(2.5)
    np.savez(tmp_path / "x.npz", whole=whole, single=single)
    co.import_files(tmp_path / "x.npz", dataset="x", by="column")
    assert np.array_equal(co.datasets["x/whole"]["x"], whole) and co.datasets["x/single"]["x"] == 2.5


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a//x"])
def test_members_that_would_lead_elsewhere_are_refused_as_datasets_too(co, tmp_path, name):
    np.savez(tmp_path / "x.npz", **{name: np.arange(3)})
    for by in ("row", "column"):
        with pytest.raises(InvalidInput, match="not suitable"):
            co.import_files(tmp_path / "x.npz", dataset="x", by=by)
    assert clean(co)


def test_an_export_never_writes_through_a_link_in_an_hdf5_file(co, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["rows"] = np.zeros(3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/rows")
        file["y"] = h5py.SoftLink("/z")
        file["z"] = np.zeros(3)
        file["group"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        file["dangling"] = h5py.SoftLink("/nowhere")
    co.import_files(tmp_path / "x.h5", dataset="d")
    for name in ("x", "y", "dangling", "group/new"):
        dataset = co.datasets.init_dataset(f"d/{name}", shape=(), dtype=np.float64)
        for number in range(3):
            dataset[str(number)] = np.array(7.0)
    before = (tmp_path / "other.h5").read_bytes()
    co.export("d", tmp_path / "back.h5")
    assert (tmp_path / "other.h5").read_bytes() == before
    with h5py.File(tmp_path / "back.h5") as file:
        assert [list(file[name]) for name in "xyz"] == [[7, 7, 7], [7, 7, 7], [0, 0, 0]]
        assert [list(file[name]) for name in ("dangling", "group/new")] == [[7, 7, 7]] * 2
