"""The daemon of one mount: from the checks before it to the last staged byte after it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyfuse3
import trio

from fusefs.invalidate import Notifier, Watch
from fusefs.lanes import Lanes
from fusefs.layout import Owner
from fusefs.logs import logging_to
from fusefs.memory import keep_freed_memory
from fusefs.mountinfo import MountError, is_dead, mounted_at, resolved, source_name
from fusefs.operations import Operations
from fusefs.options import MountOptions
from fusefs.preflight import check
from fusefs.view import View
from storage.engine import Engine

log = logging.getLogger("fusefs")

READ_AHEAD_KIB = 4096
"""The kernel asks for that much ahead of a sequential reader, in requests of 1 MiB that are decoded side by side."""
PATIENCE = 2.0
IDLE_TASKS = 20


def serve(options: MountOptions) -> None:
    """Mount, and serve until unmounted or told to end by SIGTERM or SIGINT; then everything written is staged.

    MountError where the mount cannot be made; NotARepository and its kin where the repository cannot be opened.
    """
    keep_freed_memory()
    with logging_to(options.log, debug=options.debug):
        if not is_dead(options.mountpoint):
            check(options)
        with Engine.open(options.repository) as engine:
            if engine.rebuilt is not None:
                log.info("the index of %s was rebuilt", options.repository)
                for problem in engine.rebuilt.problems:
                    log.warning("%s: %s at %s. %s", problem.what, problem.digest, problem.where, problem.advice)
            # A dead mount keeps programs from writing into the folder below it: it goes now that ours is ready.
            check(options)
            view = View(engine, Owner(os.getuid(), os.getgid()), ref=options.ref, branch=options.branch)
            _mount(options, view)


def _mount(options: MountOptions, view: View) -> None:
    notifier = Notifier(pyfuse3.invalidate_entry, pyfuse3.invalidate_inode)
    lanes = Lanes()
    started = trio.Event()
    operations = Operations(view, lanes, notifier, read_only=read_only(options), on_start=started.set)
    try:
        pyfuse3.init(operations, str(resolved(options.mountpoint)), mount_options(options))
    except RuntimeError as error:
        notifier.stop(PATIENCE)
        raise MountError(f"{options.mountpoint} cannot be mounted: {error} (the lines above say more)") from error
    log.info("serving %s at %s", options.repository, options.mountpoint)
    unmount = True

    async def tune() -> None:
        """Raise the mount's read-ahead once the kernel has answered."""
        # Not before: the kernel sets its own value when it takes in the answer to its hello.
        await started.wait()
        raise_read_ahead(options.mountpoint)

    try:
        unmount = trio.run(_serve, view, lanes, notifier, operations, tune)
    finally:
        notifier.stop(PATIENCE)
        pyfuse3.close(unmount=unmount)
        log.info("unmounted %s", options.mountpoint)


async def _serve(
    view: View, lanes: Lanes, notifier: Notifier, operations: Operations, tune: Callable[[], Awaitable[None]]
) -> bool:
    """Answer requests until the mount ends; whether it is still to be unmounted."""
    signalled = False

    async def end_on_signal() -> None:
        """Stage what is open and end the mount at the first SIGTERM or SIGINT."""
        nonlocal signalled
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.info("%s: finishing", signal.Signals(number).name)
                signalled = True
                await operations.stage_all()
                pyfuse3.terminate()

    async with trio.open_nursery() as nursery:
        lanes.start(nursery)
        nursery.start_soon(Watch(view, notifier).run)
        nursery.start_soon(end_on_signal)
        nursery.start_soon(tune)
        await pyfuse3.main(min_tasks=IDLE_TASKS)
        # What was written between the signal and the last request, or what a forced unmount left open.
        await operations.stage_all()
        nursery.cancel_scope.cancel()
    return signalled


def read_only(options: MountOptions) -> bool:
    """Whether nothing can be written through the mount."""
    return options.read_only or options.ref is not None


def mount_options(options: MountOptions) -> set[str]:
    """The options that the kernel and libfuse are given."""
    found = {f"fsname={source_name(options.repository)}", "subtype=arborfs", "default_permissions"}
    if options.allow_other:
        found.add("allow_other")
    if read_only(options):
        found.add("ro")
    return found


def raise_read_ahead(mountpoint: Path) -> None:
    """Let the kernel read far ahead, where we may: 1 MiB requests halve the CPU of large reads.

    The device number comes from the list of mounts: a stat of our own mount would wait for ourselves.
    """
    mount = mounted_at(mountpoint)
    if mount is None:
        return
    try:
        Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
    except OSError:
        log.debug("read-ahead stays as it is: only root may raise it")
