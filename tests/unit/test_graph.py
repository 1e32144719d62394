"""The drawn history, read back: whatever the history, the text says who is whose parent."""

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.model.graph import draw


def text(history) -> list[str]:
    lines = []
    for drawn in draw(history):
        lines += [*drawn.above, f"{drawn.line} {drawn.key}", *drawn.below]
    return lines


def test_a_straight_line():
    assert text([("c", "b"), ("b", "a"), ("a", "")]) == ["* c", "* b", "* a"]


def test_a_merge():
    assert text([("m", "ab"), ("b", "r"), ("a", "r"), ("r", "")]) == [
        "* m",
        "|\\",
        "| * b",
        "* | a",
        "|/",
        "* r",
    ]


def test_a_line_is_passed_over():
    history = [("m", "ab"), ("n", "r"), ("a", "r"), ("b", "s"), ("r", "s"), ("s", "")]
    assert text(history) == [
        "* m",
        "|\\",
        "| | * n",
        "* | | a",
        "| * | b",
        "+-|-'",
        "* | r",
        "|/",
        "* s",
    ]


def test_a_commit_with_many_parents():
    assert text([("o", "abc"), ("c", ""), ("b", ""), ("a", "")]) == ["* o", "|\\", "+-|-.", "| | * c", "| * b", "* a"]


def test_two_histories_share_nothing():
    assert text([("b", ""), ("a", "")]) == ["* b", "  * a"]


def read_back(lines) -> dict:
    """Parents by commit, from the text alone: columns are followed down to the next star."""
    parents: dict = {}
    columns: dict[int, list] = {}  # column → commits above that wait for what comes there
    last = 0
    for line in lines:
        if "*" in line:
            here, name = line.rsplit(" ", 1)
            last = at = here.index("*")
            for child in columns.pop(at, []):
                parents[child].append(name)
            parents[name] = []
            columns[at] = [name]
            columns = {i: who for i, who in columns.items() if i == at or (i < len(here) and here[i] == "|")}
        elif "/" in line:
            i = line.index("/")
            columns[i - 1] += columns.pop(i + 1)
        elif "'" in line:
            columns[line.index("+")] += columns.pop(line.index("'"))
        elif "\\" in line:
            columns[line.index("\\") + 1] = [columns[last][0]]
        elif "." in line:
            columns[line.index(".")] = [columns[last][0]]
    return parents


@st.composite
def histories(draw_from):
    """Random graphs, children first: commit n has parents among the higher numbers."""
    size = draw_from(st.integers(1, 14))
    history = []
    for number in range(size):
        later = list(range(number + 1, size))
        many = draw_from(st.lists(st.sampled_from(later), max_size=3, unique=True)) if later else []
        history.append((number, many))
    return history


@given(histories())
@settings(max_examples=300, deadline=None)
def test_the_text_says_who_is_whose_parent(history):
    lines = text(history)
    found = read_back(lines)
    assert {int(child): sorted(map(int, who)) for child, who in found.items()} == {c: sorted(p) for c, p in history}
