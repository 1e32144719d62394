"""The thread that syncs what was staged."""

from __future__ import annotations

import threading

from storage.stores.syncer import Syncer


def test_a_sync_under_way_has_ended_when_no_more_are_wanted():
    """What it needs may be closed from then on."""
    begun, released, told = threading.Event(), threading.Event(), []

    def sync():
        begun.set()
        released.wait()
        told.append("synced")

    def stop():
        syncer.stop()
        told.append("stopped")

    syncer = Syncer(sync, interval=0)
    syncer.notice()
    begun.wait()
    stopping = threading.Thread(target=stop)
    stopping.start()
    stopping.join(0.1)
    released.set()
    stopping.join()
    assert told == ["synced", "stopped"]


def test_nothing_is_synced_any_more_once_it_is_stopped():
    calls = []
    syncer = Syncer(lambda: calls.append(1), interval=3600)
    syncer.notice()
    syncer.stop()
    syncer.notice()
    assert calls == []
