"""Bytes that nobody meant: real ones with some changed, cut out, doubled or put in."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

ON_DISK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # An example is a repository of its own and takes 20 ms or more: to make it smaller again and again takes minutes.
    phases=[phase for phase in Phase if phase is not Phase.shrink],
)

NESTED = 100_000
"""Deeper than any parser may follow."""


def mutated(*seeds: bytes, noise: int = 200) -> st.SearchStrategy[bytes]:
    """Real bytes with a few edits, sometimes `noise` bytes at most of nothing in particular."""
    edit = st.tuples(
        st.sampled_from(["set", "cut", "double", "insert", "end"]), st.floats(0, 1), st.binary(min_size=1, max_size=9)
    )

    def apply(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
        for what, where, new in edits:
            at = int(where * len(data))
            if what == "set":
                data = data[:at] + new + data[at + len(new) :]
            elif what == "cut":
                data = data[:at] + data[at + len(new) * 3 :]
            elif what == "double":
                data = data[:at] + data[max(at - 20, 0) :]
            elif what == "end":
                data = data[:at]
            else:
                data = data[:at] + new + data[at:]
        return data

    real = st.builds(apply, st.sampled_from(seeds), st.lists(edit, max_size=4))
    return st.one_of(real, st.binary(max_size=noise))
