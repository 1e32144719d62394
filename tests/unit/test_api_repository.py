"""Repository and checkouts: beginning, locks, branches, tags, history."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from storage.errors import Closed, NothingToCommit, NotMerged, RepositoryExists, WriterLockHeld
from storage.repository import Repository

ONE = np.arange(4, dtype=np.int16)


def committed(repo: Repository, message: str, branch: str = "", **samples: int) -> str:
    """A commit whose dataset `d` holds arrays filled with the given numbers."""
    with repo.checkout(write=True, branch=branch) as co:
        if "d" not in co.datasets:
            co.datasets.init_dataset("d", prototype=ONE)
        co.datasets["d"].update({key: np.full_like(ONE, number) for key, number in samples.items()})
        return co.commit(message)


def test_a_folder_without_a_repository_gives_a_warning_and_stays_untouched(tmp_path):
    place = tmp_path / "deep" / "er"
    with pytest.warns(UserWarning, match=r"please use `repo.init\(\)`"):
        repo = Repository(place)
    assert not repo.initialized
    assert not place.exists()
    for use in (repo.checkout, repo.log, repo.summary, repo.list_branches, lambda: repo.size_nbytes):
        with pytest.raises(RuntimeError, match="has not been initialized"):
            use()


def test_init_makes_the_folders_and_says_where(tmp_path, capsys):
    with pytest.warns(UserWarning):
        repo = Repository(tmp_path / "deep" / "er")
    where = repo.init("Ada", "ada@example.org")
    assert where == str(tmp_path / "deep" / "er" / ".arborfs")
    assert capsys.readouterr().out == f"directory initialized at: {where}\n"
    assert repo.initialized
    assert repo.list_branches() == ["main"]
    repo.close()


def test_a_second_process_sees_the_repository(repository):
    script = "import sys; from storage.repository import Repository; print(Repository(sys.argv[1]).initialized)"
    command = [sys.executable, "-c", script, repository]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


def test_init_never_overwrites_a_repository_unless_told_to(repo, capsys):
    committed(repo, "precious", a=1)
    with pytest.raises(RepositoryExists):
        repo.init("Eve", "eve@example.org")
    assert isinstance(RepositoryExists("x"), OSError)
    assert len(repo.checkout().datasets["d"]) == 1
    repo.init("Eve", "eve@example.org", remove_old=True)
    capsys.readouterr()
    repo.log()
    assert capsys.readouterr().out == "No commits made\n"


@pytest.mark.parametrize("name, email", [("", "e"), ("n", ""), (" ", "e"), (None, "e"), ("n", 3)])
def test_init_wants_name_and_email(tmp_path, name, email):
    with pytest.warns(UserWarning):
        repo = Repository(tmp_path)
    with pytest.raises(ValueError):
        repo.init(name, email)
    assert not repo.initialized


def test_what_a_checkout_cannot_be_is_a_value_error(repo):
    commit = committed(repo, "one", a=1)
    wrong = [
        {"write": 1},
        {"write": True, "commit": commit},
        {"write": True, "tag": "v1"},
        {"write": True, "branch": "nope"},
        {"branch": "nope"},
        {"commit": "nope"},
        {"commit": "0123456789abcdef"},
        {"tag": "nope"},
        {"branch": "main", "commit": commit},
    ]
    for arguments in wrong:
        with pytest.raises(ValueError):
            repo.checkout(**arguments)
    assert not repo.writer_lock_held


def test_readers_need_a_first_commit(repo):
    with pytest.raises(ValueError, match="No commit exists with the hash: "):
        repo.checkout()
    with pytest.raises(ValueError, match="No commit exists with the hash: "):
        repo.create_tag("v1")


def test_readers_of_branch_tag_and_any_revision(repo):
    first = committed(repo, "one", a=1)
    repo.create_tag("v1")
    repo.create_branch("old", first[:20])
    second = committed(repo, "two", a=2)
    for arguments, commit in [
        ({}, second),
        ({"branch": "main"}, second),
        ({"branch": "old"}, first),
        ({"tag": "v1"}, first),
        ({"commit": first}, first),
        ({"commit": first[:12]}, first),
        ({"commit": "main~1"}, first),
        ({"commit": "HEAD"}, second),
    ]:
        with repo.checkout(**arguments) as co:
            assert co.commit_hash == commit
            assert co.datasets["d"]["a"][0] == (1 if commit == first else 2)
            assert repr(co) == f"Arborfs ReaderCheckout\n    Writer       : False\n    Commit Hash  : {commit}"


def test_a_reader_never_changes_and_refuses_to(repo):
    committed(repo, "one", a=1)
    with repo.checkout() as co:
        dataset = co.datasets["d"]
        committed(repo, "two", a=2, b=3)
        assert {key: array[0] for key, array in dataset.items()} == {"a": 1}
        for change in (
            lambda: dataset.__setitem__("a", ONE),
            lambda: dataset.__delitem__("a"),
            lambda: dataset.add(ONE, "b"),
            lambda: dataset.update(b=ONE),
            lambda: dataset.remove("a"),
            lambda: dataset.pop("a"),
            lambda: co.datasets.init_dataset("e", prototype=ONE),
            lambda: co.datasets.remove_dset("d"),
            lambda: co.metadata.add("k", "v"),
            lambda: co.metadata.__delitem__("k"),
        ):
            with pytest.raises(PermissionError, match="read-only"):
                change()
        assert "Access Mode      : r" in repr(dataset)
        assert repr(co.metadata).endswith("Access Mode    : r")
        assert "Writeable: False" in repr(co.datasets)


def test_commit_returns_its_hash_and_leaves_the_checkout_open(repo):
    with repo.checkout(write=True) as co:
        assert co.commit_hash == ""
        co.datasets.init_dataset("d", prototype=ONE)
        first = co.commit("one")
        assert re.fullmatch("[0-9a-f]{64}", first)
        assert (co.commit_hash, co.branch_name) == (first, "main")
        with pytest.raises(NothingToCommit):
            co.commit("nothing")
        assert isinstance(NothingToCommit("x"), RuntimeError)
        co.datasets["d"]["a"] = ONE
        second = co.commit("two")
    assert repo.log(return_contents=True)["order"] == [second, first]


def test_staged_work_waits_for_the_next_writer_of_its_branch(repo):
    committed(repo, "one", a=1)
    repo.create_branch("other")
    with repo.checkout(write=True) as co:
        co.datasets["d"]["b"] = ONE
        co.metadata["k"] = "v"
    assert (repo.status(), repo.status("other")) == ("DIRTY", "CLEAN")
    with repo.checkout(write=True, branch="other") as other, repo.checkout(write=True) as co:
        assert list(other.datasets["d"]) == ["a"]
        assert list(co.datasets["d"]) == ["a", "b"]
        assert dict(co.metadata) == {"k": "v"}


def test_everything_of_a_closed_checkout_refuses(repo):
    committed(repo, "one", a=1)
    for co in (repo.checkout(write=True), repo.checkout()):
        datasets, metadata, dataset = co.datasets, co.metadata, co.datasets["d"]
        assert co.close() is True
        uses = [
            co.close, co.__enter__, lambda: co.datasets, lambda: co.metadata, lambda: co.commit_hash,
            lambda: list(datasets), lambda: datasets["d"], lambda: "d" in datasets, lambda: len(datasets),
            lambda: list(metadata), lambda: metadata["k"], lambda: len(metadata), lambda: "k" in metadata,
            lambda: dataset["a"], lambda: dataset.get("a"), lambda: "a" in dataset, lambda: list(dataset),
            lambda: list(dataset.items()), lambda: len(dataset), dataset.__enter__,
            lambda: dataset.__setitem__("b", ONE), lambda: dataset.add(ONE, "b"), lambda: dataset.remove("a"),
            lambda: datasets.init_dataset("e", prototype=ONE), lambda: metadata.__setitem__("k", "v"),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(PermissionError):
                use()
        with pytest.raises(Closed, match="Unable to operate on past checkout objects which have been closed"):
            list(dataset)
    assert repo.status() == "CLEAN"


def test_one_writer_for_each_branch(repo):
    committed(repo, "one", a=1)
    repo.create_branch("other")
    co = repo.checkout(write=True)
    assert repo.writer_lock_held
    with pytest.raises(WriterLockHeld, match="Cannot acquire the writer lock. Only one instance"):
        repo.checkout(write=True)
    with repo.checkout(write=True, branch="other"):
        pass
    co.close()
    assert not repo.writer_lock_held
    repo.checkout(write=True).close()


def test_a_writer_that_cannot_be_made_leaves_no_lock(repo, monkeypatch):
    monkeypatch.setattr("storage.repository.WriterCheckout", None)
    with pytest.raises(TypeError):
        repo.checkout(write=True)
    assert not repo.writer_lock_held


def test_a_killed_writer_loses_the_lock_and_nothing_else(repository):
    script = """
import os, signal, sys
import numpy as np
from storage.repository import Repository
co = Repository(sys.argv[1]).checkout(write=True)
d = co.datasets.init_dataset("d", shape=3, dtype="i4")
d["committed"] = np.zeros(3, "i4")
co.commit("one")
d["staged"] = np.ones(3, "i4")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, repository], check=False)
    assert done.returncode == -9
    with Repository(repository) as repo:
        with pytest.warns(UserWarning, match="taken over"):
            co = repo.checkout(write=True)
        assert {key: array.tolist() for key, array in co.datasets["d"].items()} == {
            "committed": [0, 0, 0],
            "staged": [1, 1, 1],
        }


def test_branches(repo):
    first = committed(repo, "one", a=1)
    assert repo.create_branch("dev") == ("dev", first)
    second = committed(repo, "two", branch="dev", b=2)
    assert repo.create_branch("from-dev", second[:16]) == ("from-dev", second)
    assert repo.list_branches() == ["dev", "from-dev", "main"]
    assert repo.remove_branch("from-dev") == ("from-dev", second)
    with pytest.raises(NotMerged):
        repo.remove_branch("dev")
    repo.remove_branch("dev", force_delete=True)
    assert repo.list_branches() == ["main"]
    for wrong in (
        lambda: repo.create_branch("a/b"),
        lambda: repo.create_branch(""),
        lambda: repo.create_branch("x", "nope"),
        lambda: repo.remove_branch("nope"),
        lambda: repo.remove_branch(""),
        lambda: repo.create_tag("v 1"),
        lambda: repo.create_tag("v1", "nope"),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_tags_are_for_ever(repo):
    first = committed(repo, "one", a=1)
    assert repo.create_tag("v1", message="first light") == first
    second = committed(repo, "two", a=2)
    assert repo.create_tag("v2", "main") == second
    assert repo.list_tags() == ["v1", "v2"]
    with pytest.raises(FileExistsError):
        repo.create_tag("v1", second)
    with repo.checkout(tag="v1") as co:
        assert co.commit_hash == first


def test_log_and_summary_before_the_first_commit(repo, capsys):
    repo.log()
    repo.summary()
    assert capsys.readouterr().out == "No commits made\nNo commits made\n"
    assert repo.log(return_contents=True) == {
        "head": "", "ancestors": {}, "specs": {}, "order": [], "branch_heads": {},
    }  # fmt: skip


def test_log_tells_history_newest_first(repo, capsys):
    first = committed(repo, "one\n\nwith a body", a=1)
    repo.create_branch("old")
    second = committed(repo, "two", a=2)
    capsys.readouterr()
    repo.log()
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\(\d\d[A-Z][a-z]{2}\d{4} \d\d:\d\d:\d\d\)", "(TIME)", line) for line in lines] == [
        f"* {second[:16]} (TIME) (Ada Lovelace): two",
        f"* {first[:16]} (TIME) (Ada Lovelace): one",
    ]
    repo.log("old", show_time=False, show_user=False)
    repo.log(commit=first[:10], show_time=False, show_user=False)
    assert capsys.readouterr().out == f"* {first[:16]}: one\n" * 2
    told = repo.log(return_contents=True)
    assert (told["head"], told["order"]) == (second, [second, first])
    assert told["ancestors"] == {second: [first], first: []}
    assert told["branch_heads"] == {second: ["main"], first: ["old"]}
    spec = told["specs"][first]
    assert (spec["commit_user"], spec["commit_email"]) == ("Ada Lovelace", "ada@example.org")
    assert spec["commit_message"] == "one\n\nwith a body"
    for wrong in ({"branch": "nope"}, {"commit": "nope"}, {"branch": "old", "commit": first}):
        with pytest.raises(ValueError):
            repo.log(**wrong)
        with pytest.raises(ValueError):
            repo.summary(**wrong)


def test_summary_of_branch_and_commit(repo, capsys):
    first = committed(repo, "it's one", a=1)
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("d/inside", shape=(2, 3), dtype=float, variable_shape=True)
        co.metadata["k"] = "v"
        co.commit("two")
    capsys.readouterr()
    repo.summary(branch="main")
    text = capsys.readouterr().out
    assert "|  * Dataset Name: d\n|    Num Arrays: 1\n" in text
    assert "|  * Dataset Name: d/inside\n|    Num Arrays: 0\n" in text
    assert "|    - schema_dtype: 12\n|    - schema_is_var: True\n|    - schema_max_shape: [2, 3]\n" in text
    assert text.endswith("|  Number of Keys: 1\n")
    repo.summary(commit=first)
    text = capsys.readouterr().out
    assert "Number of Named Datasets: 1\n" in text
    assert '|  Message: "it\'s one"\n' in text


def test_properties(repo, repository):
    assert repo.path == repository
    assert re.fullmatch(r"\d+(\.\d+)*", repo.version)
    assert repo.size_nbytes > 0
    assert re.fullmatch(r"\d+\.\d\d [kMGT]?B", repo.size_human)
    assert repr(repo) == f"Arborfs Repository\n    Repository Path  : {repository}\n    Default Branch   : main"


def test_closing_the_repository_closes_its_checkouts(repository):
    repo = Repository(repository)
    co = repo.checkout(write=True)
    co.datasets.init_dataset("d", prototype=ONE)["a"] = ONE
    repo.close()
    repo.close()
    assert not co.is_open
    with pytest.raises(Closed):
        co.commit("late")
    with pytest.raises(Closed):
        repo.checkout()
    with Repository(repository) as again, again.checkout(write=True) as writer:
        assert list(writer.datasets["d"]) == ["a"]


def test_flush_syncs_what_a_batch_holds(repo, monkeypatch):
    synced = []
    with repo.checkout(write=True) as co:
        dataset = co.datasets.init_dataset("d", prototype=ONE)
        monkeypatch.setattr(repo._engine, "sync", lambda: synced.append(repo.status()))
        co.commit("empty")
        with dataset:
            dataset["a"] = ONE
            assert repo.status() == "CLEAN"
            co.flush()
    assert synced == ["DIRTY"]


def test_reading_while_another_process_writes_and_commits(repo, repository):
    script = """
import sys
import numpy as np
from storage.repository import Repository
co = Repository(sys.argv[1]).checkout(write=True, branch="main")
small, large = co.datasets["small"], co.datasets["large"]
for i in range(60):
    small.update({str(k): np.full(300, i) for k in range(5)})
    large["0"] = np.full(3000, i)
    if i % 3 == 0:
        co.commit(str(i))
"""
    with repo.checkout(write=True) as co:
        small = co.datasets.init_dataset("small", shape=300, dtype=int)
        large = co.datasets.init_dataset("large", shape=3000, dtype=int)
        small.update({str(k): np.full(300, -1) for k in range(5)})
        large["0"] = np.full(3000, -1)
        co.commit("start")
        with pytest.warns(UserWarning, match="force released"):
            repo.force_release_writer_lock()
        with subprocess.Popen([sys.executable, "-c", script, repository], stdin=subprocess.DEVNULL) as other:
            seen, ended = [-1], False
            while not ended:
                ended = other.poll() is not None
                for array in (small["3"], large["0"], *small.values()):
                    assert (array == array[0]).all()
                assert len(small) == 5
                seen.append(int(small["0"][0]))
    assert other.returncode == 0
    assert seen == sorted(seen)
    assert seen[-1] == 59
    assert len(set(seen)) > 2
