"""What bulk imports call in the tests: worker processes import this module."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np

from storage.bulk import UDF_Return
from storage.maintenance.gc import Policy, gc


def numbers(first, count):
    for number in range(first, first + count):
        yield UDF_Return("images", f"{number}", np.full((20, 30), number, np.float32))
        yield UDF_Return("labels", number, np.array([number]))
        yield UDF_Return("ragged", f"r{number}", np.full(number % 7 + 1, number, np.int16))


def same(key):
    yield UDF_Return("images", key, np.zeros((20, 30), np.float32))


def same_pixels(key):
    yield UDF_Return("pixels", key, np.random.default_rng(1).random((64, 64)))


def big(first, count):
    for number in range(first, first + count):
        yield UDF_Return("pixels", str(number), np.random.default_rng(number).random((512, 512)))


def process(key):
    yield UDF_Return("labels", key, np.array([os.getpid()]))


def by_chance(key):
    yield UDF_Return("labels", key, np.array([random.getrandbits(62)]))


def sometimes_more(folder):
    yield UDF_Return("labels", "1", np.array([1]))
    if len(list(Path(folder).iterdir())) > 0:
        yield UDF_Return("labels", "2", np.array([2]))
    (Path(folder) / "called").touch()


def failing(number):
    yield UDF_Return("labels", number, np.array([number]))
    if number == 7:
        raise ZeroDivisionError("seven")


def killed(number):
    yield UDF_Return("labels", number, np.array([number]))
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)


def yielding(what):
    yield what


def one(column, key, data):
    yield UDF_Return(column, key, data)


def waiting(number, folder):
    """Stores something, says so in the folder, and then takes for ever; without a folder it is done."""
    yield UDF_Return("labels", number, np.array([number]))
    if not folder:
        return
    (Path(folder) / f"{number}-{os.getpid()}").touch()
    while True:
        time.sleep(0.01)


def collecting(number, repository):
    """Stores something large; the last call then collects garbage, twice and without any grace."""
    yield UDF_Return("images", str(number), np.random.default_rng(number).random((20, 30)).astype(np.float32))
    yield UDF_Return("pixels", str(number), np.random.default_rng(number).random((64, 64)))
    if number == 9:
        for _ in range(2):
            gc(repository, Policy(grace=0))


def no_generator(key):
    return [UDF_Return("labels", key, np.array([1]))]
