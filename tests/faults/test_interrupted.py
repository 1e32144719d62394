"""Ctrl-C at the worst moment: the transaction has been made, and the call is not over."""

from __future__ import annotations

import pytest

from storage.disk.index import Writing
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource


@pytest.mark.parametrize("size", [10, 200_000])
def test_what_is_acknowledged_stays(engine, monkeypatch, size):
    tree = engine.working_tree("main")
    tree.put_file((b"before",), BytesSource(bytes(10)))
    real = Writing.__exit__

    def interrupted(self, *error):
        real(self, *error)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writing, "__exit__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tree.put_file((b"f",), BytesSource(bytes(range(256)) * (size // 256 + 1)))
    assert not verify(engine)
    tree.put_file((b"after",), BytesSource(b"after"))
    assert not verify(engine)
    assert tree.open((b"after",))[1].read(0, 5) == b"after"
