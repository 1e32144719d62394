"""Content digests: BLAKE3-256 (https://github.com/BLAKE3-team/BLAKE3-specs) of an object's uncompressed bytes."""

from __future__ import annotations

from typing import NewType

from blake3 import blake3

Digest = NewType("Digest", bytes)

DIGEST_SIZE = 32
NO_DIGEST = Digest(bytes(DIGEST_SIZE))


def blake(data: bytes | bytearray | memoryview) -> Digest:
    """The 32-byte digest of `data`."""
    return Digest(blake3(data).digest())


def hexed(digest: Digest) -> str:
    """A digest as 64 hexadecimal digits."""
    return digest.hex()
