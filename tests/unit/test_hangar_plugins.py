"""Plug-ins that load, save and show single arrays (HG-90)."""

import base64
import io
import sys

import numpy as np
import pytest
from PIL import Image

from storage import Repository
from storage.external import BasePlugin, board_show, load, save, show
from storage.formats import registry

WAVES = """
import numpy as np
from storage.external import BasePlugin


class Waves(BasePlugin):
    def __init__(self):
        super().__init__(["load", "save", "show"], [".wav32"])

    def load(self, path, scale=1):
        whole = np.fromfile(path, "<f4") * np.float32(scale)
        for number, part in enumerate(whole.reshape(-1, 4)):
            yield part, f"{self.sample_name(path)}-{number}"

    def save(self, array, folder, name, extension):
        path = folder / (name + extension)
        array.tofile(path)
        return path

    def show(self, array, **options):
        return f"a wave of {len(array)}"


waves = Waves()
loader = BasePlugin(["load"], ["only"])
"""


@pytest.fixture
def waves(tmp_path, monkeypatch):
    folder = tmp_path / "packages"
    (folder / "waves-1.0.dist-info").mkdir(parents=True)
    (folder / "array_waves.py").write_text(WAVES)
    (folder / "waves-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
    (folder / "waves-1.0.dist-info" / "entry_points.txt").write_text(
        "[arborfs.formats]\nwaves = array_waves:waves\nonly = array_waves:loader\nnumpy = array_waves:waves\n"
    )
    monkeypatch.syspath_prepend(folder)
    registry.plugins.cache_clear()
    yield
    registry.plugins.cache_clear()
    sys.modules.pop("array_waves", None)


def image(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


TABLE = np.array([(36, "ada"), (85, "grace <x>")], [("age", "<i8"), ("name", "<U9")])


@pytest.mark.parametrize(
    "name, extension, array",
    [
        ("numpy", ".npy", np.arange(6.0).reshape(2, 3)),
        ("numpy", ".npy", np.array("2026-11-01", "datetime64[D]")),
        ("image", ".png", image(5, 4, 3)),
        ("image", ".tiff", image(5, 4, 1)),
        ("image", ".bmp", image(5, 4, 3)),
        ("csv", ".csv", TABLE),
    ],
)
def test_hg90_what_is_saved_is_loaded(tmp_path, name, extension, array):
    for chosen in ({"plugin": name, "extension": extension}, {"extension": extension.removeprefix(".").upper()}):
        file = save(array, tmp_path, "7", **chosen)
        assert file == tmp_path / f"7{'.' + chosen['extension'].removeprefix('.')}"
        ((found, key),) = load(file)
        assert key == "7" and found.dtype == array.dtype and np.array_equal(found, array)
        ((again, _),) = load(file, plugin=name)
        assert np.array_equal(again, array)
        with pytest.raises(FileExistsError):
            save(array, tmp_path, "7", **chosen)
        file.unlink()


def test_hg90_a_plugins_first_ending_is_the_usual_one(tmp_path):
    assert save(image(2, 2, 3), tmp_path, "a", plugin="image").name == "a.png"


def test_hg90_arrays_shown_as_text():
    assert show(np.arange(3, dtype=np.int16), plugin="numpy") == "int16 (3,)\n[0 1 2]"
    long = show(np.arange(100_000), extension=".npy", width=40)
    assert len(long) < 200 and max(map(len, long.splitlines())) <= 40
    ramp = np.repeat(np.linspace(0, 255, 10).astype(np.uint8)[None], 4, axis=0)
    assert show(ramp, plugin="image") == " .:-=+*#%@\n .:-=+*#%@"
    assert [len(line) for line in show(image(100, 300, 3), plugin="image", width=60).splitlines()] == pytest.approx(
        [60] * 10, abs=4
    )
    assert show(np.zeros((2, 2), np.uint8), plugin="image").strip() == ""
    assert show(TABLE, plugin="csv") == "age  name\n36   ada\n85   grace <x>"
    assert show(np.zeros((25, 2)), plugin="csv").splitlines()[-1] == "… 5 rows more"


def test_hg90_arrays_shown_on_a_page():
    pixels = image(5, 4, 3)
    shown = board_show(pixels, plugin="image")
    data = shown.partition("base64,")[2].partition('"')[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels)
    assert "<th>age</th>" in board_show(TABLE, extension="csv") and "grace &lt;x&gt;" in board_show(TABLE, plugin="csv")
    assert board_show(np.array(["<b>"]), plugin="numpy") == "<pre>&lt;U3 (1,)\n[&#x27;&lt;b&gt;&#x27;]</pre>"


@pytest.mark.parametrize("call", [show, board_show])
def test_hg90_what_cannot_be_shown_so(call):
    for plugin in ("image", "csv"):
        with pytest.raises(ValueError, match="is no (image|table)"):
            call(np.zeros((2, 2, 2, 2)), plugin=plugin)


def test_hg90_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        list(load(tmp_path / "a.npy"))
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save(np.array([{}], object), tmp_path, "b", plugin="numpy")


def test_hg90_neither_name_nor_ending_or_unknown_ones(tmp_path):
    for call in (
        lambda **chosen: show(np.ones(1), **chosen),
        lambda **chosen: board_show(np.ones(1), **chosen),
        lambda **chosen: save(np.ones(1), tmp_path, "a", **chosen),
        lambda **chosen: load(tmp_path / "a", **chosen),
    ):
        with pytest.raises(ValueError, match="name a plug-in, or an ending"):
            call()
        with pytest.raises(ValueError, match="no plug-in 'other': there are numpy, image, csv"):
            call(plugin="other")
        with pytest.raises(ValueError, match=r"no plug-in takes files that end in '\.other'"):
            call(extension="other")


def test_hg90_what_a_plugin_provides_and_accepts():
    for wrong in ([], ["look"], ["load", "look"], "load"):
        with pytest.raises(ValueError, match="provides some of"):
            BasePlugin(wrong, [".x"])
    with pytest.raises(ValueError, match="endings"):
        BasePlugin(["load"], ".x")
    plugin = BasePlugin(["load"], ["X", ".y"])
    assert plugin.provides == {"load"} and plugin.accepts == (".x", ".y")
    for method, arguments in (("show", [1]), ("board_show", [1]), ("save", [1, "", "", ""])):
        with pytest.raises(RuntimeError, match=f"has no {method}: it provides load"):
            getattr(plugin, method)(*arguments)


def test_hg90_plugins_of_other_packages(waves, tmp_path):
    np.arange(8, dtype="<f4").tofile(tmp_path / "a.wav32")
    assert [(key, part.tolist()) for part, key in load(tmp_path / "a.wav32", scale=2)] == [
        ("a-0", [0, 2, 4, 6]),
        ("a-1", [8, 10, 12, 14]),
    ]
    assert show(np.zeros(4), plugin="waves") == "a wave of 4"
    assert show(np.zeros(1), plugin="numpy") == "float64 (1,)\n[0.]"  # nobody takes the place of ours
    assert save(np.zeros(4, "<f4"), tmp_path, "b", plugin="waves").read_bytes() == bytes(16)
    with pytest.raises(RuntimeError, match="Waves has no board_show: it provides load, save, show"):
        board_show(np.zeros(4), extension=".wav32")
    with pytest.raises(RuntimeError, match="has no save"):
        save(np.zeros(4), tmp_path, "c", plugin="only")


def test_hg90_import_and_export_take_such_plugins(waves, repository, tmp_path):
    np.arange(8, dtype="<f4").tofile(tmp_path / "a.wav32")
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        co.import_files(tmp_path / "a.wav32", dataset="x")
        assert {key: value.tolist() for key, value in co.datasets["x"].items()} == {
            "a-0": [0, 1, 2, 3],
            "a-1": [4, 5, 6, 7],
        }
        co.export("x/a-1.npy", tmp_path / "back.wav32")
        assert (tmp_path / "back.wav32").read_bytes() == np.arange(4, 8, dtype="<f4").tobytes()
        with pytest.raises(ValueError, match="saves single ones"):
            co.export("x", tmp_path / "all.wav32")


def test_hg90_what_is_saved_stays_in_its_folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("../out", "/etc/out", "", True):
        with pytest.raises(ValueError):
            save(np.zeros(3), tmp_path / "in", name, extension=".npy")
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]
