"""Inputs that claim more than there is, in a process whose memory and time are bounded: refused, and soon.

One process takes them all and says of each what came of it, so that a crash or an end by the kernel names the guilty one.
"""

from __future__ import annotations

import json
import subprocess
import sys

ADDRESSES = 2 << 30
SECONDS = 30.0
REFUSED = ("Corrupt", "BadNode", "InvalidSample", "SchemaMismatch", "NewerFormat", "InvalidName", "NotFound", "Usage")

CASES = r"""
import json, resource, struct, sys, time
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(float(sys.argv[2])),) * 2)
import numpy as np
from pathlib import Path
from storage.disk.segments import SegmentKind, file_header, scan
from storage.config import read_config
from storage.model.chunking import decode_chunks, pack, unpack
from storage.model.history import parse_revision
from storage.model.records import (Attributes, Schema, decode_attributes, decode_commit, decode_entry, decode_refs_record,
    decode_stage_record, encode_attributes)
from storage.model.samples import BytesSource, array_from, make_schema, parse_header, read_file_form
from storage.stores.replaying import read_stage_payload
from storage.stores.refs import decode_tag
from storage.tree.node import decode

SCHEMA = make_schema(np.dtype("<f4"), (2, 3), uuid="u")
DEEP = 1_000_000

def npy(text):
    raw = text.encode()
    return b"\x93NUMPY\x02\x00" + len(raw).to_bytes(4, "little") + raw

def header(shape, descr="'<f4'"):
    return npy("{'descr': %s, 'fortran_order': False, 'shape': %s, }\n" % (descr, shape))

def zstd(size):
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"

def zstd_bomb(blocks):
    # A frame that does not say its size, of blocks that repeat one byte 128 KiB times.
    heads = [(131072 << 3 | 1 << 1 | (number == blocks - 1)).to_bytes(3, "little") for number in range(blocks)]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(head + b"x" for head in heads)

def blosc(plain, block, packed=None, flags=0x21):
    body = bytes(64)
    return struct.pack("<BBBBIII", 2, 1, flags, 4, plain, block, 16 + len(body) if packed is None else packed) + body

def thrifty(act):
    # For what is refused in the end: not before it took 500 MB.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return act()
    finally:
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > before + (64 << 10):
            raise MemoryError

def segment():
    return memoryview(file_header(SegmentKind.LOG, 1, 0) + b"arb\x01" * 10_000)

CASES = {
    "npy of 2**60": lambda: read_file_form(SCHEMA, BytesSource(header("(1152921504606846976,)")), "x"),
    "npy product": lambda: read_file_form(SCHEMA, BytesSource(header("(4294967296,) * 2")), "x"),
    "npy product of many": lambda: read_file_form(SCHEMA, BytesSource(header("(" + "1000000000, " * 60 + ")")), "x"),
    "npy zero times 2**60": lambda: read_file_form(SCHEMA, BytesSource(header("(0, 1152921504606846976)")), "x"),
    "npy 10**4000": lambda: parse_header(header("(1" + "0" * 4000 + ",)")) and parse_header(b""),
    "npy parentheses": lambda: parse_header(header("(" * 30_000)),
    "npy minus signs": lambda: parse_header(header("-" * 60_000 + "1")),
    "npy dtype of 2**40": lambda: read_file_form(SCHEMA, BytesSource(header("(2, 3)", "'V1099511627776'")), "x"),
    "npy text of 2**30": lambda: read_file_form(SCHEMA, BytesSource(header("(2, 3)", "'U1073741824'")), "x"),
    "npy nested dtype": lambda: parse_header(header("(1,)", "[('a', " * 3000 + "'<f4'" + ")]" * 3000)),
    "npy many fields": lambda: read_file_form(
        SCHEMA, BytesSource(header("(2, 3)", "[" + ",".join("('f%d','<f4')" % i for i in range(3000)) + "]")), "x"),
    "npy length of 4 GiB": lambda: parse_header(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
    "zstd of 2**33": lambda: unpack(1, zstd(1 << 33), 4000),
    "zstd of 2**40": lambda: unpack(1, zstd(1 << 40), 4000),
    "zstd of 2**60": lambda: unpack(1, zstd(1 << 60), 4000),
    "zstd of 2**64 - 2": lambda: unpack(1, zstd((1 << 64) - 2), 4000),
    "zstd bomb": lambda: thrifty(lambda: unpack(1, zstd_bomb(4_000), 4000)),
    "blosc of 2**31": lambda: unpack(2, blosc((1 << 31) - 1, 1 << 20), (1 << 31) - 1),
    "blosc of 2**32 - 1": lambda: unpack(2, blosc((1 << 32) - 1, 1 << 20), (1 << 32) - 1),
    "blosc copy of 2**31": lambda: unpack(2, blosc((1 << 31) - 1, 1 << 20, flags=0x02), (1 << 31) - 1),
    "blosc block of 0": lambda: unpack(2, blosc(4000, 0), 4000),
    "blosc block of 1": lambda: unpack(2, blosc(4000, 1), 4000),
    "leaf of 2**32 - 1": lambda: decode(b"L\x01\0\0\xff\xff\xff\xff" + bytes(100)),
    "inner of 2**32 - 1": lambda: decode(b"N\x01\x01\0\xff\xff\xff\xff" + bytes(100)),
    "list of 2**32 - 1": lambda: decode_refs_record(b"\x96\x01\xa0\xa0\xdd\xff\xff\xff\xff"),
    "map of 2**32 - 1": lambda: decode_attributes(b"\xdf\xff\xff\xff\xff"),
    "bytes of 2**32 - 1": lambda: decode_attributes(b"\x81\xa1h\xc6\xff\xff\xff\xff"),
    "text of 2**32 - 1": lambda: decode_tag(b"\x93\xc4\x00\xdb\xff\xff\xff\xff"),
    "lists in lists": lambda: decode_stage_record(b"\x91" * DEEP),
    "lists in a commit": lambda: decode_commit(b"\x91" * DEEP),
    "lists in a tag": lambda: decode_tag(b"\x93" * DEEP),
    "unknown attribute": lambda: decode_attributes(b"\x81\xa1z" + b"\x91" * DEEP + b"\xc0"),
    "head of 4 GiB": lambda: decode_entry(struct.pack("<BBHIQq", 2, 0, 0, 0xFFFFFFFF, 1, 1), b""),
    "staging of 4 GiB": lambda: read_stage_payload(b"\xff\xff\xff\xff" + b"\x91" * 100, 0),
    "chunks in half": lambda: decode_chunks(bytes(36 * 100_000 + 1)),
    "segment of headers": lambda: list(scan(segment(), Path("x"))) or decode(b""),
    "revision": lambda: parse_revision("main" + "~1" * 5_000_000),
    "revision date": lambda: parse_revision("main@{" + "1" * 5_000_000 + "}"),
    "json lists": lambda: config(b"[" * DEEP),
    "json objects": lambda: config(b'{"format":' * DEEP),
    "json number": lambda: config(b'{"format":' + b"9" * 5_000_000 + b"}"),
    "json text": lambda: config(b'{"format":"' + b"9" * 50_000_000),
    "schema of objects": lambda: array_from(b"\x01" * 16, Schema("array", "|O", (2,)), Attributes())[0].__class__,
    "schema of 2**60": lambda: array_from(b"", Schema("array", "<f4", (1 << 60,)), Attributes()),
}

def config(data):
    home = Path(sys.argv[3]) / ".arborfs"
    home.mkdir(exist_ok=True)
    (home / "config.json").write_bytes(data)
    return read_config(home.parent)

for name in json.loads(sys.argv[4]):
    started = time.monotonic()
    print(json.dumps([name, "begun", 0]), flush=True)
    try:
        CASES[name]()
        what = "accepted"
    except BaseException as error:
        what = type(error).__name__
    print(json.dumps([name, what, time.monotonic() - started]), flush=True)
"""


def outcome(tmp_path, *names: str) -> tuple[dict[str, tuple[str, float]], int]:
    """What came of each case and in how many seconds, and how the process ended."""
    command = [sys.executable, "-c", CASES, str(ADDRESSES), str(SECONDS), str(tmp_path), json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return {name: (what, seconds) for name, what, seconds in lines}, done.returncode


def all_names() -> list[str]:
    begun = CASES.index("CASES = {")
    lines = CASES[begun : CASES.index("\n}\n", begun)].splitlines()
    return [line.split('"')[1] for line in lines if line.startswith('    "')]


def test_whatever_claims_too_much_is_refused(tmp_path):
    names = all_names()
    assert len(names) > 30
    found, code = outcome(tmp_path, *names)
    assert code == 0, f"died of {list(found)[-1]!r}"
    assert {name: what for name, (what, _) in found.items() if what not in REFUSED} == {}
    assert {name: seconds for name, (_, seconds) in found.items() if seconds > 5} == {}
    assert list(found) == names
