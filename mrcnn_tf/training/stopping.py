"""SIGTERM and SIGINT: a run that is told to stop saves a checkpoint first.

A step runs inside TensorFlow, where Python cannot be interrupted, so a run notices the signal
between two loops. A thread answers at once, and ends the process at the second signal.

Of several workers often one alone gets it. They tell each other before each loop, and all leave at
the same step. TensorFlow has a `PreemptionCheckpointHandler` for that; here Ctrl-C, evaluations and
a run of one process go the same way, and one sum of a few bytes per loop is all that it takes.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which imports TensorFlow
    from mrcnn_tf.training.workers import Workers

RESTART = 42  # exit code: nothing is wrong, the same command on all machines goes on
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818, no error
    """The run was told to stop and did.

    Attributes:
      exit_code: 128 and the signal's number, as shells have it; where several workers were told
        to stop by SIGTERM, `RESTART`.
    """

    def __init__(self, number: int, text: str, exit_code: int | None = None):
        super().__init__(f"stopped by {signal.Signals(number).name}{text}")
        self.exit_code = 128 + number if exit_code is None else exit_code


class StopRequest:
    """Whether this process, or another worker of its run, was told to stop.

    Args:
      workers: who trains this run; None for this process alone.

    Attributes:
      number: the signal that this process got; None if there was none.
    """

    def __init__(self, workers: "Workers | None" = None) -> None:
        self.number: int | None = None
        self._workers = workers
        self._signals: list[int] = []  # of each worker, 0 for none, once there was one

    def is_there(self) -> bool:
        """Whether any worker got a signal; all of them ask at the same place."""
        if not self._signals:
            mine = self.number or 0
            signals = self._workers.numbers(mine) if self._workers else [mine]
            self._signals = signals if any(signals) else []
        return bool(self._signals)

    def check(self, text: str = "") -> None:
        """Raise if there was a signal; all workers ask at the same place.

        Args:
          text: what to say of it, after "stopped by SIGTERM".

        Raises:
          Stopped: there was.
        """
        if not self.is_there():
            return
        number = max(self._signals)
        if not self._workers or self._workers.count == 1:
            raise Stopped(number, text)
        told = [self._workers.name(k) for k, signal_ in enumerate(self._signals) if signal_]
        exit_code = RESTART if number == signal.SIGTERM else None
        raise Stopped(number, f" to {' and '.join(told)}{text}", exit_code)

    @contextlib.contextmanager
    def listen(self, answer: str) -> Iterator[None]:
        """Take the signals while the context lasts.

        Args:
          answer: what to print at the first.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return
        here, there = socket.socketpair()
        there.setblocking(False)
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        fd_before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._answer, args=(here, answer), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            there.close()  # which ends the thread
            thread.join()
            here.close()

    def _note(self, number: int, _: object) -> None:
        self.number = self.number or number

    def _answer(self, here: socket.socket, answer: str) -> None:
        seen = 0
        while received := here.recv(1):
            if received[0] not in _SIGNALS:
                continue
            seen += 1
            if seen > 1:
                os._exit(128 + received[0])
            print(f"{signal.Signals(received[0]).name}: {answer}", flush=True)
