"""A repository's configuration and the state of its index, changed, cut off, of other types, or huge: opened, or refused
with a documented error. The state is never believed where it contradicts the index: then the index is made anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.config import Config, read_config
from storage.engine import Engine
from storage.errors import ArborError, Corrupt, NewerFormat, NotARepository
from storage.model.format import FORMAT_VERSION
from storage.model.samples import BytesSource
from tests.conftest import ADA
from tests.fuzz.mutations import FUZZ, NESTED, ON_DISK, mutated

CONFIG = msgspec.json.format(msgspec.json.encode(Config(FORMAT_VERSION, "0" * 32, "Ada", "ada@example.org")))
STATE = b'{"boot":"b7ad4b52-9b4a-4c4f-9a07-3a4a2b3c1d2e","clean":true,"stamp":"0123456789abcdef"}'


def home_with(tmp_path: Path, config: bytes) -> Path:
    (tmp_path / ".arborfs").mkdir(exist_ok=True)
    (tmp_path / ".arborfs" / "config.json").write_bytes(config)
    return tmp_path


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
KEYS = ["format", "id", "name", "email", "more"]
# Texts only of what UTF-8 can say: other bytes have a test of their own.
objects = st.dictionaries(st.sampled_from(KEYS), json_values).map(lambda value: msgspec.json.encode(value, order=None))


def test_configurations(tmp_path):
    @FUZZ
    @given(st.one_of(mutated(CONFIG, CONFIG.replace(b"1", b"2")), objects))
    def examine(data: bytes) -> None:
        try:
            data.decode()
        except UnicodeDecodeError:
            return
        try:
            config = read_config(home_with(tmp_path, data))
        except (Corrupt, NewerFormat):
            return
        assert type(config.format) is int
        assert config.format <= FORMAT_VERSION
        assert all(type(value) is str for value in (config.id, config.name, config.email))

    examine()
    assert read_config(home_with(tmp_path, CONFIG)).name == "Ada"


REFUSED = {
    "empty": b"",
    "one byte": b"{",
    "no object": b"[]",
    "null": b"null",
    "a number": b"1",
    "a number without end": b'{"format":1' + b"0" * 100_000 + b"}",
    "a text for the format": CONFIG.replace(b"1,", b'"1",'),
    "a float for the format": CONFIG.replace(b"1,", b"1.5,"),
    "true for the format": CONFIG.replace(b"1,", b"true,"),
    "no name": b'{"format":1,"id":"x","email":"e"}',
    "a list for the name": CONFIG.replace(b'"Ada"', b'["Ada"]'),
    "half a surrogate": CONFIG.replace(b"Ada", b"\\ud800"),
    "twice": CONFIG + CONFIG,
    "NUL": bytes(4096),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_configurations_that_are_none(tmp_path, data):
    with pytest.raises(Corrupt, match="config.json"):
        read_config(home_with(tmp_path, data))


@pytest.mark.parametrize(
    "data",
    [
        CONFIG.replace(b"Ada", b"\xff"),
        b"[" * NESTED,
        b'{"a":' * NESTED,
        CONFIG.replace(b"{", b'{"more":' + b"[" * NESTED + b"]" * NESTED + b",", 1),
        CONFIG.replace(b"1,", b"0,"),
        CONFIG.replace(b"1,", b"-1,"),
    ],
    ids=["no UTF-8", "lists too deep", "objects too deep", "an unknown field too deep", "format 0", "format -1"],
)
def test_configurations_that_are_none_either(tmp_path, data):
    with pytest.raises(Corrupt, match="config.json"):
        read_config(home_with(tmp_path, data))


def test_newer_ones(tmp_path):
    for number in (FORMAT_VERSION + 1, 2**63 - 1, 2**64 - 1):
        with pytest.raises(NewerFormat):
            read_config(home_with(tmp_path, b'{"format":%d,"anything":[{}]}' % number))


def test_huge_ones(tmp_path):
    """50 MB of a name are a name."""
    data = CONFIG.replace(b"Ada", b"A" * 50_000_000)
    assert len(read_config(home_with(tmp_path, data)).name) == 50_000_000
    with pytest.raises(Corrupt):
        read_config(home_with(tmp_path, data[:-5]))


@pytest.mark.parametrize("what", ["missing", "a file for the folder", "a dangling link"])
def test_folders_that_hold_none(tmp_path, what):
    home = tmp_path / ".arborfs"
    if what == "a file for the folder":
        home.write_bytes(CONFIG)
    elif what == "a dangling link":
        home.mkdir()
        (home / "config.json").symlink_to("nowhere")
    with pytest.raises(NotARepository):
        Engine.open(tmp_path)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("home") / "template"
    with Engine.create(path, ADA) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"f",), BytesSource(b"committed" * 20))
        tree.commit("one")
        tree.put_file((b"g",), BytesSource(b"staged"))
    return path


def reads_right(path: Path) -> bool:
    """Whether everything that was in the template is there; whether the index had to be made anew is its answer."""
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        found = {name: bytes(tree.open((name,))[1].read(0, 1000)) for name, _ in tree.entries(())}
        assert found == {b"f": b"committed" * 20, b"g": b"staged"}
        return engine.rebuilt


def with_state(template: Path, place: Path, data: bytes) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    (place / ".arborfs" / "state.json").write_bytes(data)
    return place


def test_states(template, memory):
    real = (template / ".arborfs" / "state.json").read_bytes()

    @ON_DISK
    @given(st.one_of(mutated(real, STATE), objects))
    def examine(data: bytes) -> None:
        try:
            data.decode()
        except UnicodeDecodeError:
            return
        reads_right(with_state(template, memory / "r", data))

    assert not reads_right(with_state(template, memory / "r", real))
    assert reads_right(with_state(template, memory / "r", STATE)), "the stamp of another index"
    examine()


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b"[]", bytes(4096), b"{" * 50], ids=repr)
def test_states_that_are_none(template, memory, data):
    assert reads_right(with_state(template, memory / "r", data))


@pytest.mark.parametrize(
    "data",
    [STATE.replace(b"b7", b"\xff"), STATE.replace(b"{", b'{"more":' + b"[" * NESTED + b"]" * NESTED + b",", 1)],
    ids=["no UTF-8", "too deep"],
)
def test_states_that_are_none_either(template, memory, data):
    assert reads_right(with_state(template, memory / "r", data))


def test_configurations_of_a_real_repository(template, memory):
    """Opened through the front door, used, and closed."""
    real = (template / ".arborfs" / "config.json").read_bytes()

    @ON_DISK
    @given(mutated(real))
    def examine(data: bytes) -> None:
        try:
            data.decode()
        except UnicodeDecodeError:
            return
        path = memory / "r"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        (path / ".arborfs" / "config.json").write_bytes(data)
        try:
            engine = Engine.open(path)
        except ArborError:
            return
        with engine:
            tip = engine.working_tree("main").commit("two")
            assert engine.commit_record(tip).author == engine.author

    examine()
