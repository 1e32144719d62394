"""What every reader and writer of stored bytes agrees on."""

from __future__ import annotations

import msgspec

FORMAT_VERSION = 1
"""That of repositories, and of the segments in them."""

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it cannot decode: the second for text that is no UTF-8, the third for lists in
lists without end.
"""
