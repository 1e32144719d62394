"""SEMANTICS.md names a test for each promise: they must be there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_every_named_test_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "fusefs" / "SEMANTICS.md").read_text()))
    files = (ROOT / "tests").rglob("test_*.py")
    defined = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert len(named) > 50
    assert named - defined == set()
