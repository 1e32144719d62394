"""The worked examples of the API's checklist, each under its number."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import storage
from storage import Repository
from storage.disk.segments import RECORD_SIZE
from storage.errors import IntegrityFault

IMAGE = np.arange(784, dtype=np.uint8)


def test_hg_04_what_cannot_be_a_dataset_is_an_error(repo, capsys):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="a", prototype=IMAGE)
        co.datasets.init_dataset(name="b", shape=(784,), dtype=np.uint8)
        co.datasets.init_dataset(name="c", prototype=IMAGE, variable_shape=True)
        assert capsys.readouterr().out.splitlines() == [
            "Dataset prototype shape: (784,), dtype: uint8",
            "Dataset provided shape: (784,), dtype: uint8",
            "Dataset prototype shape: (784,), dtype: uint8 + variable_shape",
        ]
        for wrong in (
            {"name": "a/../b", "prototype": IMAGE},
            {"name": "d"},
            {"name": "d", "shape": (784,)},
            {"name": "d", "prototype": IMAGE, "variable_shape": True, "max_shape": (783,)},
        ):
            with pytest.raises(ValueError):
                co.datasets.init_dataset(**wrong)
        with pytest.raises(LookupError):
            co.datasets.init_dataset(name="a", prototype=IMAGE)
        assert list(co.datasets) == ["a", "b", "c"]


def test_hg_05_a_dataset_is_a_dict(repo):
    with repo.checkout(write=True) as co:
        dataset = co.datasets.init_dataset(name="images", prototype=IMAGE)
        for key in ("0", "1", "51"):
            dataset[key] = IMAGE + int(key)
        assert co.datasets.get("nothing") is None and dataset.get("nothing") is None
        assert "images" in co.datasets and "0" in dataset and "hi" not in dataset
        assert len(co.datasets) == 1 and len(dataset) == 3
        assert list(dataset) == list(dataset.keys()) == ["0", "1", "51"]
        assert [int(value[0]) for value in dataset.values()] == [0, 1, 51]
        assert {key: int(value[0]) for key, value in dataset.items()} == {"0": 0, "1": 1, "51": 51}


def test_hg_07_a_batch_of_several_datasets(repo):
    with repo.checkout(write=True) as co:
        images = co.datasets.init_dataset(name="images", prototype=IMAGE)
        labels = co.datasets.init_dataset(name="labels", shape=(1,), dtype=np.int64)
        with images, labels:
            for number in range(500):
                images[number] = IMAGE
                labels[number] = np.array([number])
        assert len(images) == len(labels) == 500 and labels["499"].tolist() == [499]


def test_hg_08_metadata_are_texts_by_key_and_versioned(repo):
    with repo.checkout(write=True) as co:
        co.metadata["camera"] = "first"
        first = co.commit("one")
        co.metadata["camera"] = "second"
        co.commit("two")
        assert list(co.metadata.items()) == [("camera", "second")]
        for key, value in (("a/b", "x"), ("", "x"), ("a", 5)):
            with pytest.raises((ValueError, TypeError)):
                co.metadata[key] = value
    with repo.checkout(commit=first) as old:
        assert old.metadata["camera"] == "first"


def test_hg_09_a_commit_is_named_by_a_digest_and_leaves_the_checkout_open(repo):
    with repo.checkout(write=True) as co:
        with pytest.raises(RuntimeError, match="No changes made in staging area"):
            co.commit("nothing")
        co.datasets.init_dataset(name="images", prototype=IMAGE)["0"] = IMAGE
        assert re.fullmatch("[0-9a-f]{64}", co.commit("hello world"))
        co.datasets["images"]["1"] = IMAGE


def test_hg_09_what_is_no_text_is_no_message(repo):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="images", prototype=IMAGE)["0"] = IMAGE
        for message in (3, None, b"bytes", ["list"]):
            with pytest.raises(ValueError, match="must be text"):
                co.commit(message)
        for metadata in (3, "text", {"a": 1}, {1: "a"}, [("a", "b")]):
            with pytest.raises(ValueError):
                co.commit("m", metadata=metadata)
        assert co.diff.status() == "DIRTY" and co.commit_hash == ""
        co.commit("one")
        with pytest.raises(ValueError):
            co.amend(3)
    assert repo.verify_repo_integrity()


def test_hg_10_closing_gives_the_lock_back(repo):
    co = repo.checkout(write=True)
    assert repo.writer_lock_held
    assert co.close() is True
    assert not repo.writer_lock_held
    assert repo.checkout(write=True).close() is True


def test_hg_11_a_second_writer_is_refused(repo):
    with (
        repo.checkout(write=True),
        pytest.raises(PermissionError, match="Only one instance of a writer checkout can be active at a time"),
    ):
        repo.checkout(write=True)


WRITER = """
import sys, time
import numpy as np
import storage
from storage import Repository

co = Repository(sys.argv[1]).checkout(write=True)
images = co.datasets.init_dataset(name="images", shape=(784,), dtype=np.uint8)
images["committed"] = np.zeros(784, np.uint8)
co.commit("before")
images["staged"] = np.ones(784, np.uint8)
print("ready", flush=True)
time.sleep(60)
"""


def test_hg_01e_another_process_sees_what_was_made(tmp_path, capsys):
    with pytest.warns(UserWarning, match="init"):
        repo = Repository(path=tmp_path)
    made = repo.init("Rick Izzo", "foo@email.com")
    assert made == str(tmp_path / ".arborfs") and made in capsys.readouterr().out
    script = "import sys; from storage import Repository; print(Repository(sys.argv[1]).initialized)"
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
    repo.close()


def test_hg_02e_03e_04e_06e_09e_the_tutorial_from_beginning_to_end(repo, capsys):
    co = repo.checkout(write=True)
    assert repr(co) == "Arborfs WriterCheckout\n    Writer       : True\n    Base Branch  : main"
    assert repr(co.datasets) == "Arborfs Datasets\n    Writeable: True\n    Dataset Names:\n        -"
    assert repr(co.metadata) == "Arborfs Metadata\n    Number of Keys : 0\n    Access Mode    : a"
    images = co.datasets.init_dataset(name="mnist_training_images", prototype=IMAGE)
    assert capsys.readouterr().out == "Dataset prototype shape: (784,), dtype: uint8\n"
    assert repr(images).splitlines()[-1].split() == ["Num", "Samples", ":", "0"]
    images["0"] = IMAGE
    assert images.add(data=IMAGE + 1, name="1") == "1"
    images["51"] = IMAGE + 51
    assert len(images) == 3 and "hi" not in images and "0" in images
    assert (images["0"] == IMAGE).all() and images["0"].dtype == np.uint8
    assert images["0"].reshape(28, 28).shape == (28, 28)
    assert [len(list(loop)) for loop in (images.keys(), images.values(), images.items())] == [3, 3, 3]
    commit = co.commit("hello world, this is my first hangar commit")
    assert re.fullmatch("[0-9a-f]{64}", commit)
    assert co.close() is True
    assert repo.checkout(write=True).close() is True
    capsys.readouterr()
    repo.log()
    assert re.fullmatch(
        r"\* [0-9a-f]+ \(\d\d[A-Z][a-z]{2}\d{4} \d\d:\d\d:\d\d\) \(Ada Lovelace\): hello world, this is .*\n",
        capsys.readouterr().out,
    )


def test_hg_05e_08e_fifty_thousand_images_and_labels(repo, capsys):
    count = 50_000
    images = np.random.default_rng(4).integers(
        0, 256, (count, 784), np.uint8
    )  # nothing to compress: the worst there is
    labels = np.arange(count).reshape(count, 1) % 10
    with repo.checkout(write=True) as co:
        first = co.datasets.init_dataset(name="train_images", prototype=images[0])
        second = co.datasets.init_dataset(name="train_labels", prototype=labels[0])
        with first, second:
            for number in range(count):
                first[str(number)] = images[number]
                second[str(number)] = labels[number]
        co.commit("fifty thousand")
    with repo.checkout() as reader:
        order = [int(key) for key in reader["train_images"]]
        assert sorted(order) == list(range(count))
        assert (reader["train_images"].stack() == images[order]).all()
        assert (reader["train_labels"].stack() == labels[order]).all()
    capsys.readouterr()
    repo.summary()
    told = capsys.readouterr().out
    assert told.count("Num Arrays: 50000") == 2
    for said in ("schema_dtype: 2", "schema_dtype: 7", "schema_max_shape: [784]", "schema_max_shape: [1]"):
        assert said in told
    assert repo.size_nbytes < 46_130_000


def test_hg_07e_a_writer_that_is_killed_leaves_everything_and_its_lock_heals(repo, repository):
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(repository)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        while writer.stdout.readline() != "ready\n":  # before it: what a notebook wants to see
            assert writer.poll() is None
        with pytest.raises(PermissionError):
            repo.checkout(write=True)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    with pytest.warns(UserWarning, match="taken over"):
        co = repo.checkout(write=True)
    assert list(co.datasets["images"]) == ["committed", "staged"]
    assert co.diff.staged().diff.added.samples == (("images", "staged"),)
    co.close()
    with repo.checkout() as reader:
        assert list(reader.datasets["images"]) == ["committed"]


def test_hg_10e_two_branches_one_key(repo):
    def write(branch, key, value):
        with repo.checkout(write=True, branch=branch) as co:
            co.datasets["images"][key] = np.full(784, value, np.uint8)
            return co.commit(f"{key} on {branch}")

    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="images", prototype=IMAGE)["0"] = IMAGE
        co.commit("first")
    repo.create_branch("testbranch")
    ahead = write("testbranch", "1", 1)
    assert repo.merge("fast forward", "main", "testbranch") == ahead, "no new commit"
    ours = write("main", "7177", 7)
    write("testbranch", "7177", 9)
    found = repo.diff("main", "testbranch").conflict
    assert found.conflict and found.t1.samples == (("images", "7177"),)
    with pytest.raises(ValueError, match="ABORTED with conflict"):
        repo.merge("both", "main", "testbranch")
    with repo.checkout(branch="main") as co:
        assert co.commit_hash == ours and co.datasets["images"]["7177"][0] == 7, "nothing changed"
    write("testbranch", "7177", 7)
    merged = repo.merge("both", "main", "testbranch")
    assert merged not in (ours, ahead)
    with repo.checkout(branch="main") as co:
        assert list(co.datasets["images"]) == ["0", "1", "7177"]


def test_hg_12e_a_flipped_byte_is_an_error_and_never_data(repo, repository):
    """RuntimeError at the read, and from verify_repo_integrity."""
    rng = np.random.default_rng(1)
    large = rng.integers(0, 256, 1_000_000, np.uint8)
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="large", prototype=large)["0"] = large
        co.commit("one")
    assert repo.verify_repo_integrity()
    repo.close()
    (path,) = (repository / ".arborfs" / "segments").glob("*.log")
    data = path.read_bytes()
    at = data.index(large[500_000:500_064].tobytes())
    assert at > RECORD_SIZE
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with Repository(repository) as again:
        with again.checkout() as co, pytest.raises(RuntimeError, match="damaged"):
            co.datasets["large"]["0"]
        with pytest.raises(RuntimeError):
            again.verify_repo_integrity()


FEW = np.random.default_rng(3).integers(0, 256, 1000, np.uint8)


def flipped(repository, pattern, ending):
    """Flip one bit where `pattern` stands, once, in the segments with that ending."""
    (path,) = (p for p in (repository / ".arborfs" / "segments").glob(f"*.{ending}") if pattern in p.read_bytes())
    data = path.read_bytes()
    assert data.count(pattern) == 1
    at = data.index(pattern)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_hg_62_a_sample_in_a_leaf_is_checked_when_it_is_read(repo, repository):
    with repo.checkout(write=True) as co:
        few = co.datasets.init_dataset(name="few", prototype=FEW)
        few["0"] = FEW
        few["1"] = FEW + 1
        co.commit("one")
    repo.close()
    flipped(repository, FEW[100:200].tobytes(), "log")
    with Repository(repository) as again:
        for read in (lambda d: d["0"], lambda d: d.stack(), lambda d: list(d.values()), lambda d: d[["0", "1"]]):
            with again.checkout() as co, pytest.raises(RuntimeError, match="damaged"):
                read(co.datasets["few"])
        with pytest.raises(RuntimeError):
            again.verify_repo_integrity()


def test_hg_62_what_changes_between_two_reads_is_found_at_the_second(repo, repository):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="few", prototype=FEW)["0"] = FEW
        co.commit("one")
    with Repository(repository) as first, first.checkout() as co:
        assert (co["few", "0"] == FEW).all()
    flipped(repository, FEW[100:200].tobytes(), "log")
    with Repository(repository) as second, second.checkout() as co, pytest.raises(RuntimeError, match="damaged"):
        co["few", "0"]


def test_hg_62_staged_samples_are_checked_too(repo, repository):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="few", prototype=FEW)["0"] = FEW
    repo.close()
    flipped(repository, FEW[100:200].tobytes(), "journal")
    with Repository(repository) as again, again.checkout(write=True) as co:
        with pytest.raises(RuntimeError):
            co["few", "0"]
        with pytest.raises(RuntimeError):
            co.commit("damaged")


def test_hg_63_the_folder_holds_what_the_format_says(repo, repository):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="few", prototype=FEW)["0"] = FEW
        folder = repository / ".arborfs"
        found = {path.name for path in folder.iterdir()}
        assert {path.suffix for path in (folder / "segments").iterdir()} == {".log", ".journal"}
    format_ = (Path(storage.__file__).parent / "FORMAT.md").read_text()
    said = set(re.findall(r"^      ([a-z.]+)/?(?=[ N])", format_, re.MULTILINE))
    assert found <= said and {"config.json", "segments", "index", "lock"} <= found


def test_hg_64_a_commit_is_checked_when_it_is_checked_out(repo, repository):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset(name="few", prototype=FEW)["0"] = FEW
        co.commit("first line\n\nsecond line")
    repo.close()
    flipped(repository, b"second line", "log")
    with Repository(repository) as again:
        for use in (again.checkout, again.log, again.summary, again.verify_repo_integrity):
            with pytest.raises(RuntimeError) as caught:
                use()
            assert isinstance(caught.value, IntegrityFault if use == again.verify_repo_integrity else OSError)


def test_hg_60_the_same_contents_are_stored_once(repo):
    large = np.random.default_rng(2).integers(0, 256, 1_000_000, np.uint8)
    with repo.checkout(write=True) as co:
        one = co.datasets.init_dataset(name="one", prototype=large)
        other = co.datasets.init_dataset(name="other", prototype=large)
        one["0"] = large
        co.flush()
        before = repo.size_nbytes
        for key in ("1", "2"):
            one[key] = large
            other[key] = large
        co.commit("five times the same")
        assert repo.size_nbytes - before < 200_000
