"""How objects show themselves: at the prompt in the layout of the tutorial, in notebooks, and to completion."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from storage import Repository, notebook
from storage.errors import Corrupt
from storage.model.pictures import SIDE, curve, is_curve, is_image, thumbnail
from storage.model.samples import BytesSource
from storage.reprs import COMPLETIONS, LISTED, value_text

HOSTILE = """<script>alert("x")<|script> 'q' & \x1b[31m\n"""
ONE = np.array(1, np.int8)
PAGE_MAX = 200_000
"""Bytes of HTML that one object may take at most."""


class Page(HTMLParser):
    """The tags, attributes and texts of a piece of HTML; fails for tags that do not fit together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value)
        if tag != "img":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


ALLOWED = {"div", "span", "b", "table", "tr", "td", "th", "img", "svg", "title", "polyline", "pre"}


def page(thing) -> Page:
    """An object as a notebook shows it: bounded, without anything that runs or that changes the page around it."""
    text = thing._repr_html_()
    text.encode()
    assert len(text) < PAGE_MAX
    found = Page(text)
    assert set(found.tags) <= ALLOWED
    assert not any(name.startswith("on") or name in ("class", "id", "href") for name in found.attributes)
    assert not re.search(r"color:#|color:(black|white)|background:(#|white|black)", text)
    return found


def pictures(found: Page) -> list[Image.Image]:
    uris = found.attributes.get("src", [])
    assert all(uri.startswith("data:image/png;base64,") for uri in uris)
    return [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]


# At the prompt


def test_hg_03_the_layout_is_that_of_the_tutorial(repo, co):
    assert repr(co) == "Arborfs WriterCheckout\n    Writer       : True\n    Base Branch  : main"
    assert repr(co.datasets) == "Arborfs Datasets\n    Writeable: True\n    Dataset Names:\n        -"
    assert repr(co.metadata) == "Arborfs Metadata\n    Number of Keys : 0\n    Access Mode    : a"
    made = co.datasets.init_dataset("images", shape=(784,), dtype=np.uint8)
    made["0"] = np.zeros(784, np.uint8)
    lines = [line.partition(" : ")[::2] for line in repr(made).splitlines()[1:]]
    assert repr(made).startswith("Arborfs DatasetDataWriter\n")
    assert {len(line.partition(" : ")[0]) for line in repr(made).splitlines()[1:]} == {20}
    assert [label.strip() for label, _ in lines] == [
        "Dataset Name", "Schema UUID", "Schema Hash", "Variable Shape", "(max) Shape", "Datatype", "Named Samples",
        "Access Mode", "Num Samples",
    ]  # fmt: skip
    values = {label.strip(): value for label, value in lines}
    assert re.fullmatch("[0-9a-f]{32}", values["Schema UUID"])
    assert values["Schema Hash"] == made.schema.hash
    told = [values[label] for label in ("Dataset Name", "Variable Shape", "(max) Shape", "Datatype", "Named Samples")]
    assert told == ["images", "False", "(784,)", "<class 'numpy.uint8'>", "True"]
    assert (values["Access Mode"], values["Num Samples"]) == ("a", "1")


def test_hg_03_read_only(repo, co):
    co.datasets.init_dataset("images", shape=(2,), dtype=np.uint8)
    commit = co.commit("one")
    reader = repo.checkout()
    assert repr(reader) == f"Arborfs ReaderCheckout\n    Writer       : False\n    Commit Hash  : {commit}"
    assert repr(reader.datasets["images"]).startswith("Arborfs DatasetDataReader\n")
    assert "\n    Access Mode      : r\n" in repr(reader.datasets["images"])
    assert repr(reader.datasets) == "Arborfs Datasets\n    Writeable: False\n    Dataset Names:\n        - images"
    assert repr(reader.diff) == f"Arborfs Differ\n    Commit Hash : {commit}"


def test_hg_03_closed_objects_say_so(repo):
    co = repo.checkout(write=True)
    dataset = co.datasets.init_dataset("images", shape=(2,), dtype=np.uint8)
    co.commit("one")
    reader = repo.checkout()
    things = [
        co,
        co.datasets,
        co.metadata,
        dataset,
        co.diff,
        reader,
        reader.datasets,
        reader.datasets["images"],
        reader.diff,
    ]
    repo.close()
    for thing in [*things, repo]:
        assert re.search(r"\n    Closed *: True$", repr(thing))
        assert "Base Branch" not in repr(thing)
        if not repr(thing).startswith(("Arborfs Differ", "Arborfs WriterDiffer")):
            assert "Closed True" in re.sub(r"\s+", " ", page(thing).text)
    assert "\n    Dataset Name     : images\n" in repr(dataset)
    assert dataset._ipython_key_completions_() == []


def test_hg_03_a_dataset_that_was_removed_says_so(co):
    dataset = co.datasets.init_dataset("images", shape=(2,), dtype=np.uint8)
    del co.datasets["images"]
    assert repr(dataset).endswith("\n    Num Samples      : none: it was removed")
    assert "none: it was removed" in page(dataset).text
    assert dataset._ipython_key_completions_() == []


def test_hg_03_before_init_and_without_a_checkout(tmp_path):
    with pytest.warns(UserWarning, match="init"):
        empty = Repository(tmp_path / "nothing")
    assert repr(empty).endswith("\n    Initialized      : False")
    assert "False" in page(empty).text


def test_hg_03_rows_are_one_short_line_each(repo, co):
    co.datasets.init_dataset("d", shape=(1,), dtype=np.uint8)
    commit = co.commit("one\n" * 10_000)
    assert repr(repo.create_branch("other")) == f"BranchHead(name='other', digest='{commit}')"
    repo.create_tag("v1", message="x" * 100_000 + "\n")
    told = repr(repo.tag("v1"))
    assert (
        told.startswith(f"Tag(name='v1', digest='{commit}', message='xxx") and "…', time=" in told and len(told) < 400
    )
    row = repo.operations(1)[0]
    assert repr(row).startswith(f"OperationRow(number={row.number}, time={row.time}, author='Ada Lovelace")
    assert "moved=(('tag/v1', ''," in repr(row) and "\n" not in repr(row)


def test_hg_03_staged_state_is_told(co):
    assert repr(co.diff) == "Arborfs WriterDiffer\n    Base Branch : main\n    Status      : CLEAN"
    co.metadata["a"] = "b"
    assert repr(co.diff).endswith("Status      : DIRTY")


def test_hg_03_no_sample_is_read_for_a_repr(co, monkeypatch):
    dataset = co.datasets.init_dataset("d", shape=(8, 8), dtype=np.uint8)
    dataset["a"] = np.zeros((8, 8), np.uint8)
    monkeypatch.setattr(type(co._session.tree), "payload", lambda *_: pytest.fail("a sample was read"))
    for thing in (co, co.datasets, co.metadata, dataset):
        repr(thing)
    assert dataset._ipython_key_completions_() == ["a"]


def test_hg_03_many_datasets_are_cut_short(co):
    for number in range(LISTED + 5):
        co.datasets.init_dataset(f"d{number:03}", shape=(1,), dtype=np.uint8)
    lines = repr(co.datasets).splitlines()
    assert lines[-1] == "        - … and more" and len(lines) == LISTED + 4
    assert "… and more" in page(co).text


def test_hg_03_hostile_names_stay_on_their_line(co):
    co.datasets.init_dataset(HOSTILE, shape=(1,), dtype=np.uint8)
    told = repr(co.datasets) + repr(co.datasets[HOSTILE])
    assert "\x1b" not in told and "\\x1b[31m\\n" in told


# In a notebook


def test_schema_counts_and_size(repo, co):
    dataset = co.datasets.init_dataset("d", shape=(3, 4), dtype=np.float64)
    for number in range(30):
        dataset[number] = np.full((3, 4), number, float)
    text = re.sub(r"\s+", " ", page(dataset).text)
    assert text.startswith("d Arborfs DatasetDataWriter Samples float64 (3, 4) Number of Samples 30 Size 2.88 kB ")
    assert text.endswith(" … and 24 more")
    assert dataset.schema.hash in text and "to read and write" in text
    co.commit("one")
    reader = repo.checkout()
    assert "to read and write" not in page(reader.datasets["d"]).text
    assert "float64 (3, 4)" in page(reader).text and "30" in page(reader.datasets).texts


def test_images_are_shown_as_they_are(co):
    dataset = co.datasets.init_dataset("photos", shape=(400, 300, 3), dtype=np.uint8, variable_shape=True)
    red = np.zeros((400, 300, 3), np.uint8)
    red[..., 0] = 255
    dataset["red"] = red
    dataset["grey"] = np.full((16, 16, 3), 128, np.uint8)
    found = page(dataset)
    grey, first = pictures(found)  # in the order of keys
    assert grey.size == (16, 16) and grey.convert("RGB").getpixel((3, 3)) == (128, 128, 128)
    assert first.size == (54, 72) and first.convert("RGB").getpixel((9, 9)) == (255, 0, 0)
    assert found.attributes["width"] == ["72", "54"]
    assert "(400, 300, 3)" in found.text


@pytest.mark.parametrize(
    "dtype, shape, expected",
    [
        (np.uint8, (28, 28), True), (np.uint8, (28, 28, 3), True), (np.uint8, (28, 28, 4), True), (bool, (9, 9), True),
        (np.uint8, (28, 28, 1), True), (np.float32, (3, 32, 32), True), (np.uint16, (64, 64), True),
        (np.uint8, (28, 28, 5), False), (np.uint8, (784,), False), (np.float64, (3, 4), False),
        (np.uint8, (8, 100_000), False), (np.complex64, (28, 28), False), ("M8[s]", (28, 28), False), (np.uint8, (), False),
    ],
)  # fmt: skip
def test_what_is_taken_for_an_image(dtype, shape, expected):
    assert is_image(np.dtype(dtype), shape) is expected
    if expected:
        uri, width, height = thumbnail(np.zeros(shape, dtype))
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert max(width, height) == SIDE and picture.width / picture.height == pytest.approx(width / height, rel=0.1)


def test_numbers_become_brightness():
    ramp = np.linspace(-1e300, 1e308, 64).reshape(8, 8)
    ramp[0, 0], ramp[0, 1] = np.nan, np.inf
    uri, _, _ = thumbnail(ramp)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert picture[0, 0] == picture[0, 1] == 0 and picture[-1, -1] == 255
    assert (np.diff(picture.ravel()[2:].astype(int)) >= 0).all()
    assert thumbnail(np.full((8, 8), np.nan))[0]


def points(svg: str) -> np.ndarray:
    (told,) = Page(svg).attributes["points"]
    return np.array([[float(number) for number in pair.split(",")] for pair in told.split()])


def test_curves_go_through_the_numbers():
    x, y = points(curve(np.array([0, 10, 5], np.int16))).T
    assert list(x) == [1, 80, 159] and list(y) == [27, 1, 14]
    x, y = points(curve(np.array([1.0, np.nan, np.inf, 3.0]))).T
    assert list(x) == [1, 159] and list(y) == [27, 1]
    for flat in (np.zeros(3), np.zeros(3, bool)):
        assert set(points(curve(flat))[:, 1]) == {14}
    assert curve(np.array([np.nan, 1.0])) == ""
    assert (
        not is_curve(np.dtype("U3"), (5,)) and not is_curve(np.dtype("f4"), (1,)) and not is_curve(np.dtype("c8"), (5,))
    )


def test_a_long_curve_keeps_its_peaks():
    long = np.zeros(1_000_000, np.float32)
    long[123_456], long[777_777] = 5, -5
    svg = curve(long)
    _, y = points(svg).T
    assert (y.min(), y.max()) == (1, 27) and len(svg) < 3000


def test_curves_and_values_stand_in_the_table(co):
    rows = co.datasets.init_dataset("rows", shape=(50,), dtype=np.float32)
    rows["a"] = np.arange(50, dtype=np.float32)
    assert page(rows).tags.count("polyline") == 1
    numbers = co.datasets.init_dataset("numbers", shape=(), dtype=np.int64)
    for number in range(10):
        numbers[number] = np.array(number * 7)
    found = page(numbers)
    assert len(points("".join(re.findall("<svg.*</svg>", numbers._repr_html_())))) == 10
    assert re.search("0 0 1 7 2 14 3 21 4 28 5 35", found.text)
    words = co.datasets.init_dataset("words", shape=(2,), dtype="U9")
    words["a"] = np.array(["<i>", "y"], "U9")
    assert "['<i>' 'y']" in page(words).text


def test_texts_bytes_and_json(co):
    for kind, value, shown in (
        ("str", "<i>é\n", "<i>é\\n"),
        ("bytes", b"\0<", "b'\\x00<'"),
        ("json", {"a": [1]}, "{'a': [1]}"),
    ):
        dataset = co.datasets.init_dataset(kind, kind=kind)
        dataset["k"] = value
        found = page(dataset)
        assert shown in found.texts and "svg" not in found.tags
        assert f"\n    (max) Shape      : none\n    Datatype         : {kind}\n" in repr(dataset)
    assert len(value_text([[[[[[[[[0]]]]]]]]] * 1000)) < 200
    long = co.datasets.init_dataset("long", kind="str")
    long["k"] = "<" * 1_000_000
    assert "1.00 MB" in page(long).text
    assert re.search("str +1", page(co).text)


def test_hg_03_nested_samples(repo, co, capsys):
    pairs = co.datasets.init_dataset("pairs", shape=(16, 16), dtype=np.uint8, contains_subsamples=True)
    values = {side: np.full((16, 16), number, np.uint8) for number, side in enumerate(("left", "<right>"))}
    pairs.update(dict.fromkeys(("a", "b"), values))
    assert repr(pairs).startswith("Arborfs NestedDatasetWriter\n    Dataset Name     : pairs\n")
    assert repr(pairs).endswith("    Subsamples       : True\n    Access Mode      : a\n    Num Samples      : 2")
    assert "a dict of uint8 (16, 16)" in page(pairs).text and "<right>, left" in page(pairs).text
    sample = pairs["a"]
    assert repr(sample).startswith("Arborfs SubsampleWriter\n    Dataset Name     : pairs/a\n")
    assert repr(sample).endswith("Num Samples      : 2")
    assert len(pictures(page(sample))) == 2
    assert sample._ipython_key_completions_() == ["<right>", "left"] and pairs._ipython_key_completions_() == ["a", "b"]
    assert "a dict of uint8 (16, 16)" in page(co).text and list(co.datasets) == ["pairs"]
    co.commit("one")
    reader = repo.checkout()
    assert len(pictures(page(reader.datasets["pairs"]["b"]))) == 2
    assert repr(reader["pairs", "b"]).startswith("Arborfs SubsampleReader\n")
    capsys.readouterr()
    repo.summary()
    told = capsys.readouterr().out
    assert "|    Num Arrays: 4\n" in told and "|    - schema_is_nested: True\n" in told
    reader.close()
    assert repr(reader) == "Arborfs ReaderCheckout\n    Closed       : True"


def test_everything_is_escaped(repo, co):
    dataset = co.datasets.init_dataset(HOSTILE, shape=(2,), dtype="U40")
    dataset['"><img src=x onerror=alert(1)>'] = np.array(["<script>", "'\">"], "U40")
    co.metadata["<b>"] = "<iframe src='x'>\udcff"[:-1]
    tree = co._session.working_tree
    tree.put_file((HOSTILE.encode(), b"\xff\xfe<i>.npy"), BytesSource(_npy(np.array(["a", "b"], "U40"))))
    co.commit("<script>alert(1)</script>")
    staged = co.datasets[HOSTILE]
    staged["'; drop"] = np.array(["a", "b"], "U40")
    for thing in (repo, co, co.datasets, dataset, co.metadata, co.diff.staged(), co.diff.staged().diff):
        found = page(thing)
        assert "script" not in found.tags and found.tags.count("img") == 0
    assert "<script>alert(1)</script>" in page(repo).text
    assert "'\"><img" not in page(dataset).text and '"><img src=x onerror=alert(1)>' in page(dataset).text
    assert "\\udcff\\udcfe<i>" in page(dataset).text


def _npy(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_huge_samples_are_not_read(co, monkeypatch):
    dataset = co.datasets.init_dataset("huge", shape=(3000, 3000), dtype=np.uint8)
    dataset["a"] = np.zeros((3000, 3000), np.uint8)
    monkeypatch.setattr(type(co._session.tree), "payload", lambda *_: pytest.fail("a huge sample was read"))
    found = page(dataset)
    assert "9.00 MB: too large to be shown here" in found.text and not pictures(found)


def test_damage_is_told_in_place_of_the_sample(co, monkeypatch):
    dataset = co.datasets.init_dataset("d", shape=(8, 8), dtype=np.uint8)
    dataset["a"] = np.zeros((8, 8), np.uint8)

    def broken(*_):
        raise Corrupt("its bytes have <changed>")

    monkeypatch.setattr(type(co._session.tree), "payload", broken)
    assert "cannot be read: its bytes have <changed>" in page(dataset).text


def test_many_long_keys_and_values_stay_bounded(co):
    dataset = co.datasets.init_dataset("d", shape=(64, 64, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    dataset.update({f"{i:04}" + "&" * 200: rng.integers(0, 255, (64, 64, 3), np.uint8) for i in range(300)})
    for number in range(20):
        co.metadata["&" * 200 + str(number)] = "&" * 100_000
    assert len(pictures(page(dataset))) == notebook.KEYS
    assert "… and 294 more" in page(dataset).text
    assert "… and more" in page(co.metadata).text
    page(co)


def test_the_repository_shows_branches_and_history(repo, co):
    page(repo)
    co.metadata["a"] = "1"
    first = co.commit("one")
    repo.create_branch("side")
    repo.create_tag("v1.0")
    co.metadata["a"] = "2"
    text = page(repo).text
    assert "staged changes" in text and f"* {first[:16]}" in text and "1: v1.0" in text and "side" in text


def test_parts_of_a_checkout_can_only_be_read(co):
    with pytest.raises(AttributeError):
        co.datasets = {}
    assert "Closed after" in type(co).datasets.__doc__


# Completion


def test_hg_05_keys_complete_in_ipython(repo, co, tmp_path, monkeypatch):
    pytest.importorskip("IPython")
    from IPython.core.completer import provisionalcompleter
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    dataset = co.datasets.init_dataset("training/images", shape=(), dtype=np.int8)
    dataset.update(dict.fromkeys(("alpha", "alps", "beta", "it's"), ONE))
    co.datasets.init_dataset("validation", shape=(), dtype=np.int8)
    co.metadata["camera"] = "none"
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.Completer.use_jedi = False
    shell = InteractiveShell(config=settings)
    shell.push({"co": co, "dataset": dataset})

    def offered(line: str) -> set[str]:
        with provisionalcompleter():
            return {found.text for found in shell.Completer.completions(line, len(line))}

    assert {text.strip("'[]") for text in offered("co.datasets[")} >= {"training/images", "validation"}
    assert any("training/images" in text for text in offered("co.datasets['tr"))
    assert not any("validation" in text for text in offered("co.datasets['tr"))
    assert {text.strip("'[]") for text in offered("dataset['al")} == {"alpha", "alps"}
    assert any("camera" in text for text in offered("co.metadata['c"))
    assert any("training/images" in text for text in offered("co['tr"))
    assert {text.strip("'[]") for text in offered("co['training/images', 'al")} == {"alpha", "alps"}
    assert co._ipython_key_completions_()[:3] == ["training/images", "validation", ("training/images", "alpha")]
    formatted = shell.display_formatter.format(dataset)[0]
    assert formatted["text/plain"] == repr(dataset) and formatted["text/html"] == dataset._repr_html_()


def test_hg_05_many_keys_are_offered_in_part(co):
    dataset = co.datasets.init_dataset("d", shape=(), dtype=np.int8)
    dataset.update({f"{key:05}": ONE for key in range(COMPLETIONS + 100)})
    offered = dataset._ipython_key_completions_()
    assert offered == [f"{key:05}" for key in range(COMPLETIONS)]
    dataset["\x1b[31m"] = ONE
    assert "\x1b[31m" not in dataset._ipython_key_completions_()
