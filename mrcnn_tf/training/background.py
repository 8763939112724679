"""Work that is done on a thread while the caller goes on."""

import threading
from collections.abc import Callable


class Background:
    """Does one piece of work at a time; the next one waits for it.

    The thread ends with its work, so that nothing is left over when a caller gives up half-way, and
    no more than one piece is ever held in memory beside the caller's own.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Begin to do `work`, once what was begun before is done.

        Raises:
          Exception: what the work begun before has raised; `work` is then not begun.
        """
        self.wait()
        self._thread = threading.Thread(target=self._do, args=(work,), name="background")
        self._thread.start()

    def wait(self) -> None:
        """Return when everything is done.

        Raises:
          Exception: what the work has raised.
        """
        self._join()
        error, self._error = self._error, None
        if error:
            raise error

    def abandon(self) -> None:
        """Return when everything is done, and forget what it has raised."""
        self._join()
        self._error = None

    def _join(self) -> None:
        if self._thread:
            self._thread.join()
            self._thread = None

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._error = error
