"""`kill -9` of the daemon at random moments under load: what was acknowledged is there, the rest is whole or absent.

`scripts/crash-loop` does the same for as many rounds as one likes.
"""

import random
import secrets

from scripts.crash_loop import series

ROUNDS = 20


def test_killed_daemons_keep_their_promises(mounted, tmp_path):
    """`mounted` skips where nothing can be mounted."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    series(tmp_path / "series", ROUNDS, random.Random(seed), lambda told: None)
