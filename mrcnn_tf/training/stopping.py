"""SIGTERM and SIGINT: a run that is told to stop saves a checkpoint first.

A step runs inside TensorFlow, where Python cannot be interrupted, so a run notices the signal
between two loops. A thread answers at once, and ends the process at the second signal.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818, no error
    """The run was told to stop and did.

    Attributes:
      exit_code: 128 and the signal's number, as shells have it.
    """

    def __init__(self, number: int, text: str):
        super().__init__(f"stopped by {signal.Signals(number).name}{text}")
        self.exit_code = 128 + number


class StopRequest:
    """Whether this process was told to stop.

    Attributes:
      number: the signal; None if there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def check(self, text: str = "") -> None:
        """Raise if there was a signal.

        Args:
          text: what to say of it, after "stopped by SIGTERM".

        Raises:
          Stopped: there was.
        """
        if self.number is not None:
            raise Stopped(self.number, text)

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
