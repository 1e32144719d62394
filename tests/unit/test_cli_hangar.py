"""Every command that a hangar user looks for, run as a process of its own on a real repository."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fusefs.cli.commands import COMMANDS
from storage import Repository
from tests.command_line import Cli
from tests.conftest import arborfs


class Command:
    """Runs commands on one repository, each in a process of its own."""

    def __init__(self, repository):
        self.repository = repository

    def __call__(self, *words, code=0, **options):
        done = arborfs("-C", self.repository, *words, check=False, **options)
        assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def json(self, *words):
        return json.loads(self(*words, "--json"))


@pytest.fixture
def run(repository):
    return Command(repository)


@pytest.fixture
def images(run):
    """The command on a repository with the dataset `images` of three samples, committed."""
    with Repository(run.repository) as repo, repo.checkout(write=True) as checkout:
        images = checkout.datasets.init_dataset("images", (8, 10), np.uint8)
        for key in range(3):
            images[str(key)] = np.full((8, 10), 100 * key, np.uint8)
        checkout.commit("three images")
    return run


def test_hg_cli_init(tmp_path):
    words = ("init", tmp_path / "new", "--name", "Ada", "--email", "ada@example.org")
    assert arborfs(*words).stdout == f"Repository made at {tmp_path}/new/.arborfs\n"
    with Repository(tmp_path / "new") as repo:
        assert repo.initialized
    assert arborfs(*words, check=False).returncode == 4


def test_init_can_begin_anew_but_not_under_those_who_have_the_repository_open(images):
    words = ("init", images.repository, "--name", "Grace", "--email", "grace@example.org", "--overwrite")
    with Repository(images.repository) as repo:
        assert "open elsewhere" in arborfs(*words, check=False).stderr
        assert repo.list_branches() == ["main"] and len(images.json("log")) == 1
    arborfs(*words)
    assert images.json("log") == [] and images.json("op")[0]["author"] == "Grace <grace@example.org>"
    assert list(images.repository.iterdir()) == [images.repository / ".arborfs"]


def test_hg_cli_writer_lock(run):
    assert run("writer-lock") == "Writer lock is available.\n"
    assert run.json("writer-lock") == {"held": [], "released": []}
    with Repository(run.repository) as repo:
        writer = repo.checkout(write=True)
        held = run("writer-lock")
        assert held.startswith("Writer lock is held.\n") and re.search(r"^  main +process \d+$", held, re.MULTILINE)
        assert [row["branch"] for row in run.json("writer-lock")["held"]] == ["main"]
        with pytest.raises(PermissionError):
            repo.checkout(write=True)
        assert run("writer-lock", "--force-release") == "Success force release of writer lock.\n"
        assert run("writer-lock") == "Writer lock is available.\n"
        with repo.checkout(write=True):
            pass
        writer.close()


def test_a_writer_lock_can_be_released_on_one_branch_alone(images):
    images("branch", "create", "side")
    with Repository(images.repository) as repo, repo.checkout(write=True), repo.checkout(write=True, branch="side"):
        assert images.json("writer-lock", "--force-release", "--branch", "side")["released"][0]["branch"] == "side"
        assert [row["branch"] for row in images.json("writer-lock")["held"]] == ["main"]
    images("writer-lock", "--branch", "nowhere", code=3)


def test_hg_cli_checkout(images):
    images("branch", "create", "side")
    assert images("checkout", "side") == "Writer checkout head set to branch: side\n"
    assert images("status").startswith("On branch side,")
    assert [row["name"] for row in images.json("branch", "list") if row["default"]] == ["side"]
    assert "nowhere" in images("checkout", "nowhere", code=3)


def test_checking_out_another_branch_leaves_staged_work_where_it_is_and_says_so(images):
    images("branch", "create", "side")
    images("dataset", "create", "masks", "bool", "8")
    assert "1 change staged on main stay there.\n" in images("checkout", "side")
    assert images("status") == "On branch side, nothing staged.\n"
    images("checkout", "main")
    assert "masks" in images("status")


def test_hg_cli_commit(run):
    run("dataset", "create", "images", "UINT8", "28", "28")
    printed = run("commit", "-m", "first line", "-m", "second line")
    assert re.fullmatch(r"\[main [0-9a-f]{16,}\] first line\n", printed)
    assert run.json("log")[0]["message"] == "first line\nsecond line"
    run("commit", "-m", "again", code=4)
    run("commit", "-m", "", code=2)


def test_hg_cli_dataset_create(run):
    assert run("dataset", "create", "images", "UINT8", "28", "28") == "Initialized Dataset: images\n"
    run("dataset", "create", "lidar/points", "float32", "1000", "3", "--variable-shape")
    made = run.json("dataset", "create", "labels", "INT64")
    assert (made["branch"], made["name"], made["samples"]) == ("main", "labels", 0)
    assert (made["dtype"], made["shape"], made["variable"]) == ("<i8", [], False)
    with Repository(run.repository) as repo, repo.checkout(write=True) as checkout:
        images, points = checkout.datasets["images"], checkout.datasets["lidar/points"]
        assert (images.dtype, images.shape, images.variable_shape) == (np.uint8, (28, 28), False)
        assert (points.dtype, points.shape, points.variable_shape) == (np.float32, (1000, 3), True)


@pytest.mark.parametrize(
    "words, code",
    [
        (["images", "nonsense", "3"], 2),
        (["images", "object", "3"], 2),
        (["images", "U", "3"], 2),  # texts of no length
        (["images", "uint8", "0"], 2),
        (["images", "uint8", "three"], 2),
        (["a b/..", "uint8", "3"], 2),
        (["taken", "uint8", "3"], 4),
    ],
)
def test_a_dataset_that_cannot_be_made_is_refused_with_the_reason(run, words, code):
    run("dataset", "create", "taken", "uint8", "3")
    assert "Error: " in run("dataset", "create", *words, code=code)
    assert [row["name"] for row in run.json("dataset", "list")] == ["taken"]


def test_every_dtype_of_the_api_can_be_named(repository):
    cli = Cli(repository)  # in this process: there are many
    names = "UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FLOAT16 FLOAT32 FLOAT64 bool complex128 U10 S4"
    for name in [*names.split(), "datetime64[ns]", "i4,f8"]:
        cli("dataset", "create", f"of {name}", name, "2")
    assert len(cli.json("dataset", "list")) == 17


def test_hg_cli_dataset_remove(images):
    assert images("dataset", "remove", "images") == "Successfully removed dataset: images\n"
    assert images.json("dataset", "list") == []
    assert images.json("dataset", "list", "main")[0]["samples"] == 3, "the commit keeps it"
    assert "images" in images("dataset", "remove", "images", code=3)


def test_a_dataset_can_be_renamed_with_all_that_is_in_it(images):
    images("dataset", "rename", "images", "camera/left")
    (row,) = images.json("dataset", "list")
    assert (row["name"], row["samples"], row["dtype"], row["shape"]) == ("camera/left", 3, "|u1", [8, 10])
    images("commit", "-m", "renamed")
    assert "100" in images("view", "camera/left", "1", "--numbers")
    assert "there are camera/left" in images("dataset", "rename", "images", "other", code=3)
    images("dataset", "create", "other", "uint8", "2")
    images("dataset", "rename", "camera/left", "other", code=4)
    images("dataset", "rename", "other", "other/below", code=2)


def test_datasets_are_listed_as_a_table(images):
    assert images("dataset").splitlines() == ["dataset  schema      samples", "images   |u1 8 x 10  3"]
    images("dataset", "list", "nowhere", code=3)


def test_hg_cli_branch_list(images):
    head = images.json("log")[0]["commit"]
    images("branch", "create", "side")
    assert images("branch", "list") == f"* main  {head[:16]} three images\n  side  {head[:16]} three images\n"
    assert images.json("branch", "list")[1] == {"name": "side", "commit": head, "default": False}


def test_hg_cli_branch_create(images):
    head = images.json("log")[0]["commit"]
    assert images("branch", "create", "side", head[:8]) == f"Created BRANCH: side HEAD: {head[:16]}\n"
    images("branch", "create", "side", code=4)


def test_hg_cli_branch_delete(images):
    head = images.json("log")[0]["commit"]
    images("branch", "create", "side")
    assert images("branch", "delete", "side") == f"Deleted BRANCH: side HEAD: {head[:16]}\n"
    images("branch", "create", "other")
    images("dataset", "create", "masks", "bool", "8", "--branch", "other")
    images("branch", "delete", "other", code=4)
    images("branch", "delete", "other", "-f")
    images("branch", "delete", "main", "-f", code=5)


def test_hg_cli_status(images):
    images("dataset", "create", "masks", "bool", "8")
    images("dataset", "remove", "images")
    printed = images("status")
    assert printed.startswith("On branch main, 2 changes staged.\n")
    assert "  removed  images/\n" in printed and "  added    masks/\n" in printed
    assert {row["change"] for row in images.json("status")["changes"]} == {"added", "removed"}


def test_hg_cli_log(images):
    head = images.json("log")[0]["commit"]
    assert "three images" in images("log", head[:8]) and "None" not in images("log")
    assert images("log", "main", "--oneline") == f"{head[:16]} (HEAD -> main) three images\n"


def test_hg_cli_summary(images):
    printed = images("summary", "main")
    assert "|  * Dataset Name: images\n|    Num Arrays: 3\n" in printed and "None" not in printed
    told = images.json("summary")
    (row,) = told["datasets"]
    assert (row["name"], row["samples"], row["dtype"], row["shape"]) == ("images", 3, "|u1", [8, 10])
    assert told["commit"]["message"] == "three images" and told["disk_usage"] > 0
    images("summary", "nowhere", code=3)


def test_a_summary_before_the_first_commit_says_so(run):
    assert run("summary") == "No commits made\n"
    assert run.json("summary")["commit"] is None


def test_hg_cli_diff(images):
    images("branch", "create", "side")
    images("dataset", "create", "masks", "bool", "8", "--branch", "side")
    images("commit", "-m", "masks", "--branch", "side")
    assert "added    masks/" in images("diff", "main", "side")
    assert images.json("diff", "main", "side")["changes"][0]["change"] == "added"


def test_hg_cli_import(images, tmp_path):
    np.save(tmp_path / "1.npy", np.full((8, 10), 7, np.uint8))
    np.save(tmp_path / "9.npy", np.full((8, 10), 9, np.uint8))
    head = images.json("log")[0]["commit"]
    images("branch", "create", "side")
    files = (tmp_path / "1.npy", tmp_path / "9.npy")
    images("import", *files, "images", "--branch", "side", "--by", "file", code=4)
    assert images.json("status", "side")["changes"] == [], "a key that is taken: nothing is replaced, nothing added"
    images("import", *files, "images", "--branch", "side", "--by", "file", "--overwrite")
    assert [row["change"] for row in images.json("status", "side")["changes"]] == ["changed", "added"]
    assert images.json("log", "side")[0]["commit"] == head, "an import is staged, not committed"
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    images("import", tmp_path / "wrong.npy", "images", "--by", "file", code=2)


def test_hg_cli_export(images, tmp_path):
    images("export", ":images", tmp_path / "one.npy", "-s", "2")
    assert np.array_equal(np.load(tmp_path / "one.npy"), np.full((8, 10), 200))
    images("export", "main:images", tmp_path / "one", "--sample", "1", "-f", "image")
    assert np.asarray(Image.open(tmp_path / "one"))[0, 0] == 100
    assert "there already" in images("export", ":images", tmp_path / "one.npy", "-s", "1", code=4)
    images("export", ":images", tmp_path / "one.npy", "-s", "1", "--force")
    assert np.load(tmp_path / "one.npy")[0, 0] == 100
    images("export", ":images", tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["0.npy", "1.npy", "2.npy"]
    images("export", ":images", tmp_path / "none.npy", "-s", "7", code=3)
    images("export", ":nowhere", tmp_path / "none.npy", "-s", "1", code=3)


def test_hg_cli_view(images):
    lines = images("view", "images", "1").splitlines()
    assert lines[0] == "uint8 8 x 10" and lines[1].split()[1:3] == ["100", "100"]
    assert images.json("view", "images", "1", "main") == {
        "dataset": "images",
        "sample": "1",
        "dtype": "|u1",
        "shape": [8, 10],
        "value": [[100] * 10] * 8,
    }
    assert "'7'" in images("view", "images", "7", code=3)
    assert "there are images" in images("view", "masks", "7", code=3)


def test_viewing_shows_what_is_staged_unless_a_revision_is_named(images):
    with Repository(images.repository) as repo, repo.checkout(write=True) as checkout:
        checkout.datasets["images"]["1"] = np.full((8, 10), 42, np.uint8)
    assert " 42 " in images("view", "images", "1") and " 42 " in images("view", "images", "1", "main+")
    assert " 100 " in images("view", "images", "1", "main")


def test_a_picture_is_as_bright_as_the_image(run):
    with Repository(run.repository) as repo, repo.checkout(write=True) as checkout:
        half = np.zeros((16, 32), np.uint8)
        half[:, 16:] = 255
        checkout.datasets.init_dataset("images", prototype=half)["half"] = half
        colours = np.zeros((16, 32, 3), np.uint8)
        colours[:8] = (255, 255, 255)
        checkout.datasets.init_dataset("colours", prototype=colours)["top"] = colours
        ramp = np.linspace(-1, 1, 40).reshape(2, 20)
        checkout.datasets.init_dataset("ramps", prototype=ramp)["ramp"] = ramp
        checkout.datasets.init_dataset("cubes", (2, 2, 2), np.int8)["c"] = np.zeros((2, 2, 2), np.int8)
    assert run("view", "images", "half", "--picture").splitlines() == ["uint8 16 x 32", *[" " * 32 + "@" * 32] * 16]
    lines = run("view", "colours", "top", "--picture").splitlines()
    assert lines[1:] == ["@" * 64] * 8 + [""] * 8
    lines = run("view", "ramps", "ramp", "--picture").splitlines()
    assert lines[1].startswith(" ") and lines[-1].endswith("@")
    assert "no picture" in run("view", "cubes", "c", "--picture", code=2)


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.array([1.5, np.nan, -np.inf]), [1.5, "NaN", "-Infinity"]),
        (np.array([1 + 2j]), ["(1+2j)"]),
        (np.array(["2026-11-01"], "datetime64[D]"), ["2026-11-01"]),
        (np.array(["größe"]), ["größe"]),
        (np.array([b"\xe9"]), ["é"]),
        (np.array([(1, 2.5)], "i4,f8"), [[1, 2.5]]),
        (np.array(3, np.int64), 3),
    ],
)
def test_json_has_a_value_for_every_dtype(run, array, expected):
    with Repository(run.repository) as repo, repo.checkout(write=True) as checkout:
        checkout.datasets.init_dataset("values", prototype=array)["a"] = array
    told = run("view", "values", "a", "--json")
    assert json.loads(told, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["value"] == expected
    assert run("view", "values", "a").splitlines()[0].startswith(str(array.dtype))


def test_hg_cli_version():
    assert arborfs("--version").stdout.startswith("arborfs, version ")


def test_hg_cli_help():
    printed = arborfs("--help").stdout
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", printed, re.MULTILINE)


def test_what_a_group_lists_it_lists_as_json_too(images):
    for group, listing in (("branch", "list"), ("tag", "list"), ("dataset", "list"), ("op", "log")):
        assert images.json(group) == images.json(group, listing)
    assert "behind list" in images("branch", "--json", "list", code=2)


def test_what_changes_a_ref_reports_it_as_json(images, tmp_path):
    head = images.json("log")[0]["commit"]
    assert images.json("branch", "create", "side") == {"name": "side", "commit": head}
    assert images.json("branch", "delete", "side") == {"name": "side", "commit": head}
    told = images.json("undo")
    assert told["undone"]["description"] == "branch removed: side"
    assert told["made"]["moved"][0]["ref"] == "branch/side"
    assert images.json("op", "restore", "2")["number"] == told["made"]["number"] + 1
    tag = images.json("tag", "create", "v1.0", "-m", "why")
    assert (tag["name"], tag["commit"], tag["message"]) == ("v1.0", head, "why")
    images("dataset", "create", "masks", "bool", "8")
    assert images.json("reset", "--hard") == {"branch": "main", "commit": head, "staged": 0}
    assert images.json("export", ":images", tmp_path / "x.npy") == {"path": str(tmp_path / "x.npy")}
