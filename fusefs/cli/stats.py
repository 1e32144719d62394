"""`stats`: what a mount is doing, as its daemon counts it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fusefs import mountinfo
from fusefs.cli.location import mount_around
from fusefs.cli.output import counted, json_option, local_time, print_json, printable, size_text
from fusefs.layout import CONTROL
from storage.errors import NotFound

REPORT = "stats.json"


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path), default=".")
@json_option
def stats(mountpoint: Path, as_json: bool) -> None:
    """Show what the mount at MOUNTPOINT has done. Requests and how long they took, bytes, staged work, errors.

    A latency is what at least that share of the requests took at most, in microseconds, from the arrival at the
    daemon to the answer. MOUNTPOINT may be any folder in the mount. `.arborfs/stats.json` holds the same.

    \b
    Example:
      arborfs stats /mnt/data
    """
    mount = mountinfo.mounted_at(mountpoint) or mount_around(mountpoint.absolute())
    if mount is None:
        raise NotFound(f"no arborfs mount at {mountpoint}")
    if mountinfo.is_dead(mount.mountpoint):
        raise mountinfo.MountError(f"the daemon of {mount.mountpoint} is dead: mount again, or umount clears it")
    report = json.loads((mount.mountpoint / CONTROL.decode() / REPORT).read_text())
    if as_json:
        print_json(report)
        return
    for line in _lines(mount, report):
        click.echo(line)


def _lines(mount: mountinfo.Mount, report: dict[str, Any]) -> Iterator[str]:
    opened, bytes_, reads = report["open"], report["bytes"], report["reads"]
    yield f"{printable(str(mount.repository))} on {printable(str(mount.mountpoint))}, process {report['pid']}"
    yield f"since {local_time(report['since'])}"
    yield ""
    yield f"{'request':12} {'count':>12} {'mean':>10} {'50 %':>10} {'90 %':>10} {'99 %':>10}  µs"
    for name, row in report["requests"].items():
        latencies = " ".join(f"{row[key]:>10,.1f}" for key in ("mean_us", "p50_us", "p90_us", "p99_us"))
        yield f"{name:12} {row['count']:>12,} {latencies}"
    yield ""
    yield f"read        {size_text(bytes_['read'])}, {reads['from_memory']:,} requests answered from memory, " + (
        f"{reads['from_disk']:,} from the disk"
    )
    yield f"written     {size_text(bytes_['written'])}"
    yield (
        f"open        {counted(opened['files'], 'file')}, {counted(opened['directories'], 'directory', 'directories')}, "
        + (f"{opened['unstaged_files']:,} with unstaged writes")
    )
    yield f"inodes      {opened['inodes']:,} known to the kernel in working trees"
    yield from _repository_lines(report["repository"])
    refused = ", ".join(f"{name} {count:,}" for name, count in report["refusals"].items())
    yield f"refusals    {refused or 'none'}"
    yield f"errors      {len(report['last_errors']) or 'none'}"
    for error in report["last_errors"]:
        yield f"  {local_time(error['time'])}  {error['request']}: {error['errno']}: {printable(error['error'])}"


def _repository_lines(figures: dict[str, Any]) -> Iterator[str]:
    dirty = f" on {', '.join(figures['dirty'])}" if figures["dirty"] else ""
    log, journals = figures["log"], figures["journals"]
    yield (
        f"holds       {counted(figures['branches'], 'branch', 'branches')}, {counted(figures['commits'], 'commit')}, "
        + (f"{counted(figures['objects'], 'object')}")
    )
    yield f"staged      {counted(figures['staged_rows'], 'row')}{dirty}"
    yield f"segments    {counted(log['files'], 'log')} of {size_text(log['bytes'])}, " + (
        f"{counted(journals['files'], 'journal')} of {size_text(journals['bytes'])}, "
        f"index {size_text(figures['index_bytes'])}"
    )
    yield f"not synced  {size_text(figures['unsynced_bytes'])}" + (
        f"; could not be synced: {', '.join(figures['failed_segments'])}" if figures["failed_segments"] else ""
    )
