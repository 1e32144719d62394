"""Calls that may end the process which makes them, or leave it with locks that it never gives back."""

import faulthandler
import os
import pickle
import signal
from collections.abc import Callable

from storage.errors import ArborError


def elsewhere(call: Callable[[], object]) -> object:
    """What a call gives in a process of its own, or the documented error that it raises, as an ArborError.

    A number where the process ended otherwise: 1 with another exception, a signal's, negative, by that.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(30)
        try:
            try:
                answer = call()
            except ArborError as error:
                answer = ArborError(str(error))
            with os.fdopen(writing, "wb") as file:
                file.write(pickle.dumps(answer))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return pickle.loads(data) if status == 0 else status
