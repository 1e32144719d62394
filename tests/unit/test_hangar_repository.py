"""The repository by Python, point by point as the checklist of the API numbers them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from storage import Repository
from storage.errors import (
    BranchInUse,
    DatasetExists,
    IntegrityFault,
    NotARepository,
    NothingToCommit,
    NotMerged,
    RepositoryExists,
    UnknownRevision,
    WriterLockHeld,
)
from storage.rows import BranchHead

IMAGE = np.arange(784, dtype=np.uint8)
LABEL = np.array([5])


def committed(repo, message: str, branch: str = "", **samples: int) -> str:
    """Commit samples of the dataset `d` on a branch."""
    with repo.checkout(write=True, branch=branch) as co:
        if "d" not in co.datasets:
            co.datasets.init_dataset("d", shape=(1,), dtype=np.int64)
        for key, value in samples.items():
            co.datasets["d"][key] = np.array([value])
        return co.commit(message)


def test_hg_01_a_repository_that_is_there_and_one_that_is_not(tmp_path, capsys):
    with pytest.warns(UserWarning, match="init"):
        repo = Repository(path=tmp_path / "new")
    assert not repo.initialized
    made = repo.init(user_name="Rick Izzo", user_email="foo@email.com")
    assert capsys.readouterr().out == f"directory initialized at: {made}\n"
    assert made == str(tmp_path / "new" / ".arborfs") and Path(made).is_dir()
    repo.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Repository(path=str(tmp_path / "new")) as again:
            assert again.initialized


def test_hg_02_one_writer_any_number_of_readers(repo):
    commit = committed(repo, "one", a=1)
    readers = [
        repo.checkout(),
        repo.checkout(branch="main"),
        repo.checkout(commit=commit),
        repo.checkout(commit=commit[:8]),
    ]
    assert {reader.commit_hash for reader in readers} == {commit}
    with repo.checkout(write=True) as co:
        assert co.branch_name == "main"
        with pytest.raises(WriterLockHeld):
            repo.checkout(write=True)


def test_hg_12_the_lock_can_be_forced(repo):
    writer = repo.checkout(write=True)
    assert repo.writer_lock_held and writer.is_open
    with pytest.warns(UserWarning, match="USER WARNING: Writer lock force released."):
        assert repo.force_release_writer_lock() is True
    assert not repo.writer_lock_held
    repo.checkout(write=True).close()


SUMMARY = """\
Summary of Contents Contained in Data Repository

==================
| Repository Info
|-----------------
|  Directory: DIRECTORY
|  Disk Usage: SIZE

===================
| Commit Details
-------------------
|  Commit: COMMIT
|  Created: CREATED
|  By: Ada Lovelace
|  Email: ada@example.org
|  Message: 'hello world, this is my first commit'

==================
| DataSets
|-----------------
|  Number of Named Datasets: 2
|
|  * Dataset Name: train_images
|    Num Arrays: 3
|    Details:
|    - schema_uuid: UUID
|    - schema_hash: HASH
|    - schema_dtype: 2
|    - schema_is_var: False
|    - schema_max_shape: [784]
|    - schema_is_named: True
|
|  * Dataset Name: train_labels
|    Num Arrays: 2
|    Details:
|    - schema_uuid: UUID
|    - schema_hash: HASH
|    - schema_dtype: 7
|    - schema_is_var: False
|    - schema_max_shape: [1]
|    - schema_is_named: True

==================
| Metadata:
|-----------------
|  Number of Keys: 1
"""


def test_hg_13_the_summary_has_all_fields(repo, repository, capsys):
    with repo.checkout(write=True) as co:
        images = co.datasets.init_dataset("train_images", prototype=IMAGE)
        labels = co.datasets.init_dataset("train_labels", prototype=LABEL)
        images.update({"0": IMAGE, "1": IMAGE, "51": IMAGE})
        labels.update({"0": LABEL, "1": LABEL})
        co.metadata["camera"] = "none"
        commit = co.commit("hello world, this is my first commit")
        schemas = [images.schema, labels.schema]
    capsys.readouterr()
    repo.summary()
    told = capsys.readouterr().out
    told = told.replace(f"{repository}/.arborfs", "DIRECTORY").replace(commit[:16], "COMMIT")
    for schema in schemas:
        told = told.replace(schema.uuid, "UUID").replace(schema.hash, "HASH")
    told = re.sub(r"Usage: \d+\.\d\d [kM]?B\n", "Usage: SIZE\n", told)
    told = re.sub(r"Created: [A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\n", "Created: CREATED\n", told)
    assert told == SUMMARY


def test_hg_13_hostile_texts_stay_on_their_line(repo, capsys):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("evil\n|  Number of Keys: 9\x1b[2J", shape=(1,), dtype=np.uint8)
        co.commit("two\nlines \x1b[31m")
    capsys.readouterr()
    repo.summary()
    repo.log()
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\n|  Number of Keys: 9" not in told
    assert told.rstrip().endswith(": two")


LINE = r"\* [0-9a-f]{16} \(\d\d[A-Z][a-z]{2}\d{4} \d\d:\d\d:\d\d\) \(Ada Lovelace\): "


def test_hg_14_the_log_is_a_graph(repo, capsys):
    first = committed(repo, "hello world, first commit", a=1)
    capsys.readouterr()
    repo.log()
    assert re.fullmatch(LINE + "hello world, first commit\n", capsys.readouterr().out)
    repo.create_branch("dev")
    ours, theirs = committed(repo, "ours", b=2), committed(repo, "theirs", "dev", c=3)
    merged = repo.merge("both", "main", "dev")
    capsys.readouterr()
    repo.log(show_time=False, show_user=False)
    assert capsys.readouterr().out.splitlines() == [
        f"* {merged[:16]}: both",
        "|\\",
        f"| * {theirs[:16]}: theirs",
        f"* | {ours[:16]}: ours",
        "|/",
        f"* {first[:16]}: hello world, first commit",
    ]


def test_hg_15_what_later_versions_added(repo):
    commit = committed(repo, "one", a=1)
    with repo.checkout(write=True) as co:
        assert (repo.status(), co.diff.status()) == ("CLEAN", "CLEAN")
        co.datasets["d"]["b"] = LABEL
        assert (repo.status(), co.diff.status()) == ("DIRTY", "DIRTY")
        assert co.reset_staging_area() == commit
        assert repo.status() == "CLEAN" and list(co.datasets["d"]) == ["a"]
        assert co.datasets["d"].remove("a") == "a"
        assert co.datasets.remove_dset("d") == "d"
        assert len(co.datasets) == 0
        co.commit("nothing left")
    # Removing takes nothing from older commits.
    assert int(repo.checkout(commit=commit).datasets["d"]["a"][0]) == 1


def test_hg_15_samples_of_several_datasets_under_one_key(repo):
    with repo.checkout(write=True) as co:
        for name in ("images", "labels"):
            co.datasets.init_dataset(name, shape=(1,), dtype=np.int64, samples_are_named=False)
        co.datasets.init_dataset("named", shape=(1,), dtype=np.int64)
        key = co.datasets.add({"images": LABEL, "labels": LABEL + 1})
        assert list(co.datasets["images"]) == list(co.datasets["labels"]) == [key]
        assert int(co.datasets["labels"][key][0]) == 6
        assert co.datasets.add({"images": LABEL}) != key
        before = [list(dataset) for dataset in co.datasets.values()]
        for wrong in (
            {},
            {"images": LABEL, "labels": np.zeros(3)},
            {"images": LABEL, "named": LABEL},
            {"nowhere": LABEL},
        ):
            with pytest.raises((ValueError, KeyError)):
                co.datasets.add(wrong)
            with pytest.raises((ValueError, KeyError)), co.datasets["images"], co.datasets["labels"]:
                co.datasets.add(wrong)
        assert [list(dataset) for dataset in co.datasets.values()] == before
        co.commit("one")
    with pytest.raises(PermissionError):
        repo.checkout().datasets.add({"images": LABEL})


def test_hg_20_the_folder_and_the_properties(tmp_path, repo, repository):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        Repository(tmp_path / "file")
    with pytest.raises(TypeError):
        Repository(3)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="init"):
        empty = Repository(tmp_path)
    for use in (
        empty.log,
        empty.summary,
        empty.status,
        empty.checkout,
        empty.list_branches,
        empty.verify_repo_integrity,
    ):
        with pytest.raises(NotARepository, match=f"Repository at path: {tmp_path} has not been initialized"):
            use()
    assert (repo.path, repo.initialized, repo.writer_lock_held) == (repository, True, False)
    assert repo.size_nbytes > 0 and re.fullmatch(r"\d+\.\d\d [kM]?B", repo.size_human)


def test_hg_20_the_folder_can_be_asked_to_exist(tmp_path, repository):
    with pytest.raises(FileNotFoundError, match="make it first"):
        Repository(tmp_path / "nowhere", exists=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        Repository(tmp_path / "file", exists=True)
    Repository(repository, exists=True).close()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody, whom a folder refuses")
def test_hg_20_a_folder_that_takes_no_files():
    script = (
        "import os, sys\n"
        "from storage import Repository\n"
        "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "try: Repository(sys.argv[1], exists=True)\n"
        "except PermissionError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # whose parents let anybody through, unlike those of tmp_path
        Path(folder).chmod(0o755)
        done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    assert "takes no files of yours" in done.stdout and folder in done.stdout


def test_hg_20_a_newer_format_is_refused(repo, repository):
    repo.close()
    config = repository / ".arborfs" / "config.json"
    config.write_text(re.sub(r'"format": ?1', '"format":99', config.read_text()))
    with pytest.raises(RuntimeError, match="format 99, .* install a newer arborfs"):
        Repository(repository)


def test_hg_20_a_python_of_32_bits_is_refused(repository, monkeypatch):
    monkeypatch.setattr("sys.maxsize", 2**31 - 1)
    with pytest.raises(OSError, match="64 bits"):
        Repository(repository)


def test_hg_20_there_are_no_remotes_yet(repo):
    with pytest.raises(NotImplementedError, match="no remotes"):
        repo.remote.push("origin", "main")
    assert not hasattr(repo, "remote")


def test_hg_22_a_revision_or_branch_that_is_no_text(repo):
    committed(repo, "one", a=1)
    for wrong in (3, b"main", 1.5):
        for use in (
            lambda w: repo.checkout(commit=w),
            lambda w: repo.checkout(branch=w),
            lambda w: repo.checkout(tag=w),
            lambda w: repo.log(commit=w),
            lambda w: repo.summary(commit=w),
            lambda w: repo.diff("main", w),
            lambda w: repo.checkout().diff.commit(w),
            lambda w: repo.checkout().diff.branch(w),
            lambda w: repo.create_branch("new", base_commit=w),
            lambda w: repo.merge("m", "main", w),
            lambda w: repo.status(w),
        ):
            with pytest.raises(ValueError):
                use(wrong)
    assert repo.list_branches() == ["main"]


def test_hg_21_init(repo, repository):
    committed(repo, "one", a=1)
    with pytest.raises(RepositoryExists) as caught:
        repo.init("Ada Lovelace", "ada@example.org")
    assert isinstance(caught.value, OSError)
    assert repo.init("Grace Hopper", "grace@example.org", remove_old=True) == str(repository / ".arborfs")
    assert repo.list_branches() == ["main"] and repo.log(return_contents=True)["order"] == []


def test_hg_22_checkout(repo):
    with pytest.raises(ValueError, match="No commit exists with the hash: "):
        repo.checkout()
    commit = committed(repo, "one", a=1)
    for wrong in ({"write": 1}, {"write": True, "commit": commit}, {"branch": "nowhere"}, {"commit": "ffff"}):
        with pytest.raises(ValueError):
            repo.checkout(**wrong)
    # Each branch has staged work of its own: that of one is not in the way of another.
    repo.create_branch("dev")
    with repo.checkout(write=True) as co:
        co.datasets["d"]["b"] = LABEL
    with repo.checkout(write=True, branch="dev") as co:
        assert list(co.datasets["d"]) == ["a"] and co.diff.status() == "CLEAN"
    assert (repo.status("main"), repo.status("dev")) == ("DIRTY", "CLEAN")


def test_hg_24_the_log_for_programs(repo):
    first = committed(repo, "one", a=1)
    repo.create_branch("dev")
    ours, theirs = committed(repo, "ours", b=2), committed(repo, "theirs", "dev", c=3)
    merged = repo.merge("both", "main", "dev")
    told = repo.log(return_contents=True)
    assert set(told) == {"head", "ancestors", "specs", "order", "branch_heads"}
    assert told["head"] == merged and told["order"] == [merged, theirs, ours, first]
    assert told["ancestors"] == {merged: [ours, theirs], ours: [first], theirs: [first], first: []}
    assert told["branch_heads"] == {merged: ["main"], theirs: ["dev"]}
    spec = told["specs"][ours]
    assert spec.pop("commit_time") > 0
    assert spec.pop("commit_metadata") == {}
    assert spec == {"commit_message": "ours", "commit_user": "Ada Lovelace", "commit_email": "ada@example.org"}
    assert repo.log("dev", return_contents=True)["order"] == [theirs, first]
    assert repo.log(commit=ours[:9], return_contents=True)["head"] == ours


def test_hg_24_metadata_of_a_commit_stays_on_its_line(repo, capsys):
    with repo.checkout(write=True) as co:
        co.metadata["a"] = "b"
        co.commit("one", metadata={"seed\x1b": "4\n2"})
    assert next(iter(repo.log(return_contents=True)["specs"].values()))["commit_metadata"] == {"seed\x1b": "4\n2"}
    capsys.readouterr()
    repo.log()
    assert capsys.readouterr().out.endswith(": one {seed\\x1b=4}\n")


def test_hg_24_what_the_log_shows_can_be_chosen(repo, capsys):
    first = committed(repo, "one", a=1)
    capsys.readouterr()
    assert repo.log(show_time=False) is None
    repo.log(show_user=False)
    first_line, second_line = capsys.readouterr().out.splitlines()
    assert first_line == f"* {first[:16]} (Ada Lovelace): one"
    assert re.fullmatch(r"\* [0-9a-f]{16} \(\d\d[A-Z][a-z]{2}\d{4} [\d:]{8}\): one", second_line)


def test_hg_25_summary_of_what(repo, capsys):
    assert repo.summary() is None
    assert capsys.readouterr().out == "No commits made\n"
    first = committed(repo, "one", a=1)
    repo.create_branch("dev")
    committed(repo, "two", "dev", b=2, c=3)
    for arguments, count in (({}, 1), ({"branch": "dev"}, 3), ({"commit": first}, 1), ({"commit": first[:7]}, 1)):
        capsys.readouterr()
        repo.summary(**arguments)
        assert f"|    Num Arrays: {count}\n" in capsys.readouterr().out


def test_hg_28_branches(repo):
    # Before the first commit a branch is one without commits, rather than an error.
    assert repo.create_branch("early") == BranchHead("early", "")
    first = committed(repo, "one", a=1)
    second = committed(repo, "two", a=2)
    assert repo.create_branch("dev") == ("dev", second)
    assert repo.create_branch("old", base_commit=first) == ("old", first)
    assert repo.create_branch("older", base_commit=first[:8]).digest == first
    assert repo.list_branches() == ["dev", "early", "main", "old", "older"]
    for name in ("dev", "a b", "", "x" * 65, "a/b"):
        with pytest.raises(ValueError):
            repo.create_branch(name)
    with pytest.raises(UnknownRevision):
        repo.create_branch("new", base_commit="ffff")
    third = committed(repo, "three", "dev", b=3)
    with pytest.raises(NotMerged):
        repo.remove_branch("dev")
    with repo.checkout(write=True, branch="dev"), pytest.raises(BranchInUse):
        repo.remove_branch("dev", force_delete=True)
    assert repo.remove_branch("dev", force_delete=True) == ("dev", third)
    assert repo.remove_branch("old") == ("old", first)
    with pytest.raises(ValueError):
        repo.remove_branch("old")
    with pytest.raises(PermissionError):
        repo.remove_branch("main")


def test_hg_29_verify_a_sound_repository(repo):
    assert repo.verify_repo_integrity() is True
    committed(repo, "one", a=1)
    with repo.checkout(write=True) as co:
        big = co.datasets.init_dataset("big", shape=(100_000,), dtype=np.uint8)
        big["0"] = np.random.default_rng(0).integers(0, 255, 100_000, np.uint8)
    assert repo.verify_repo_integrity() is True


def test_hg_29_verify_tells_a_byte_that_changed(repo, repository):
    values = np.random.default_rng(0).integers(0, 255, 100_000, np.uint8)
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("big", prototype=values)["0"] = values
        co.commit("one")
    repo.close()
    (segment,) = [
        path for path in (repository / ".arborfs" / "segments").iterdir() if bytes(values[:64]) in path.read_bytes()
    ]
    data = bytearray(segment.read_bytes())
    data[data.index(bytes(values[:64])) + 10] ^= 1
    segment.write_bytes(data)
    with Repository(repository) as damaged:
        with pytest.raises(RuntimeError) as caught:
            damaged.verify_repo_integrity()
        assert isinstance(caught.value, IntegrityFault) and caught.value.problems
        assert caught.value.problems[0].where in str(caught.value)


def test_hg_30_releasing_says_whether_it_worked(repo):
    with pytest.warns(UserWarning, match="force released"):
        assert repo.force_release_writer_lock() is True


def test_hg_42_reset_needs_something_to_reset(repo):
    commit = committed(repo, "one", a=1)
    with repo.checkout(write=True) as co:
        with pytest.raises(NothingToCommit, match="No changes made in staging area"):
            co.reset_staging_area()
        assert co.reset_staging_area(force=True) == commit
        with pytest.raises(DatasetExists):
            co.datasets.init_dataset("d", shape=(1,), dtype=np.int64)
