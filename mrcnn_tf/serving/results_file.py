"""A JSON list that grows row by row in a file."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from mrcnn_tf.images import storage


class ResultsFile:
    """A JSON list that grows row by row and gets its name when it is complete; a context manager.

    Attributes:
      num_rows: rows so far.
    """

    def __init__(self, path: str, head: bytes = b"[", tail: Callable[[], bytes] = lambda: b"\n]\n"):
        """Name the file.

        Args:
          path: of the file.
          head: what stands before the first row.
          tail: returns what stands behind the last one.
        """
        self._path = path
        self._incomplete = path + ".incomplete"
        self._head = head
        self._tail = tail
        self.num_rows = 0

    def __enter__(self) -> "ResultsFile":
        opener: Any = storage.gfile().GFile if storage.is_remote(self._path) else open
        self._file = opener(self._incomplete, "wb")
        self._file.write(self._head)
        return self

    def add(self, row: dict) -> None:
        """Append one row.

        Raises:
          OSError: there is no room, which names the file.
        """
        # File names need not be UTF-8: such bytes go out as they came in.
        text = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape")
        with self._named():
            self._file.write((b",\n" if self.num_rows else b"\n") + text)
        self.num_rows += 1

    def __exit__(self, error_type: type | None, *unused: object) -> None:
        if error_type is not None:
            with contextlib.suppress(OSError):  # another error is on its way
                self._end()
            return
        self._end()
        if storage.is_remote(self._path):
            storage.gfile().rename(self._incomplete, self._path, overwrite=True)
        else:
            os.replace(self._incomplete, self._path)

    def _end(self) -> None:
        with self._named():
            try:
                self._file.write(self._tail())
            finally:
                self._file.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of writing do not say into which file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._incomplete) from error
