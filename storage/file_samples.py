"""Many samples of a dataset as rows to be staged, for Files.write_samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from storage.errors import Unsupported
from storage.model.chunking import INLINE_MAX
from storage.model.names import check_name
from storage.model.records import HEAD, Attributes, Kind, Schema, encode_attributes
from storage.model.samples import BytesSource
from storage.model.values import check_file, is_json
from storage.stores.contents import store_payload
from storage.stores.staging import LeafRow
from storage.worktree import WorkingTree


def value_rows(
    tree: WorkingTree, schema: Schema, samples: Mapping[str, bytes], extra: Callable[[str], bytes]
) -> Iterator[LeafRow]:
    """Samples for WorkingTree.put_values, their contents stored where they are long."""
    suffix, json, now, kind = schema.suffix, schema.holds == "json", time.time_ns(), int(Kind.SAMPLE)
    for name, data in samples.items():
        encoded = check_name(name.encode("utf-8", "surrogateescape"))
        if not encoded.endswith(suffix):
            raise Unsupported(f"{name!r} is no name of a sample here: those end with {suffix.decode()}")
        if not (json and is_json(data)):
            check_file(schema.holds, BytesSource(data), name)
        size, flags, value, attributes = len(data), 0, data, extra(name)
        if size > INLINE_MAX:
            flags, value = store_payload(tree.objects, BytesSource(data), 0, 1, (), schema.compression)
        yield encoded, HEAD.pack(kind, flags, 0, len(attributes), size, now) + attributes, value


def birth_attributes(attribute: bytes, births: Mapping[str, int]) -> Callable[[str], bytes]:
    """What encodes the attributes of a new file."""
    usual = encode_attributes(Attributes(xattrs=((attribute, b"1" * 19),)))[:-19]

    def extra(name: str) -> bytes:
        """The attributes of a new file of that name."""
        if name not in births:
            return b""
        digits = b"%d" % births[name]
        if len(digits) == 19:  # from 2001 to 2286: the length is part of what stands before
            return usual + digits
        return encode_attributes(Attributes(xattrs=((attribute, digits),)))

    return extra
