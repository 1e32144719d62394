"""The log of a daemon or its supervisor: one line a message, to a file or to standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Interrupted(logging.Filter):
    """Drops what pyfuse3 logs when a request was interrupted before its reply: that is no error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        return "No such file or directory" not in record.getMessage()


@contextmanager
def logging_to(path: Path | None, *, debug: bool) -> Iterator[None]:
    """Log to a file, or to standard error, in one line a message."""
    target: logging.Handler = logging.StreamHandler(sys.stderr) if path is None else logging.FileHandler(path)
    target.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    interrupted = _Interrupted()
    loggers = [logging.getLogger(name) for name in ("fusefs", "arborfs", "pyfuse3")]
    for logger in loggers:
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
        logger.addHandler(target)
        logger.propagate = False
    loggers[-1].addFilter(interrupted)
    try:
        yield
    finally:
        loggers[-1].removeFilter(interrupted)
        for logger in loggers:
            logger.removeHandler(target)
            logger.propagate = True
        target.close()
