"""Changes by other processes: taking them in goes on whatever happens."""

from __future__ import annotations

import logging

import trio

from fusefs import invalidate
from fusefs.invalidate import Watch
from fusefs.layout import Owner
from fusefs.view import View
from storage.engine import Engine
from storage.model.samples import BytesSource


class Sent(list):
    """Stands in for the notifier, whose notices go to the kernel."""

    def send(self, notice, *, contents=False):
        self.append(notice)


def test_what_fails_is_logged_and_made_up_for(engine, monkeypatch, caplog):
    monkeypatch.setattr(invalidate, "AGAIN", 0.01)
    tree = engine.working_tree("main")
    tree.put_file((b"f",), BytesSource(b"1"))
    view = View(engine, Owner(0, 0), branch="main")
    known = view.root.child(b"f")
    view.root.ino, known.ino = 1, 7
    known.attach()
    sent = Sent()
    watch = Watch(view, sent)
    real, failures = view.rechecked, []

    def failing(changes):
        if not failures:
            failures.append(changes)
            raise ZeroDivisionError("a bug")
        return real(changes)

    monkeypatch.setattr(view, "rechecked", failing)

    async def run() -> None:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run)
                other = await trio.to_thread.run_sync(Engine.open, engine.path)
                try:
                    other.working_tree("main").put_file((b"f",), BytesSource(b"22"))
                    while not sent:
                        await trio.sleep(0.01)
                finally:
                    other.close()
                nursery.cancel_scope.cancel()

    with caplog.at_level(logging.ERROR, "fusefs"):
        trio.run(run)
    assert failures and [record.getMessage() for record in caplog.records] == ["take_in_changes: failed unexpectedly"]
    assert any(notice.name == b"f" for notice in sent)
