"""A label before every line that a process prints, where several processes share one log."""

import sys
import threading
from typing import Any, TextIO


class LabelledLines:
    """A stream that puts a label before each line, and hands on whole lines.

    Args:
      stream: what is really written to.
      label: put before each line.
    """

    def __init__(self, stream: TextIO, label: str):
        self._stream = stream
        self._label = label
        self._waiting = ""
        self._is_at_start = True
        self._lock = threading.RLock()  # progress is shown by threads

    def write(self, text: str) -> int:
        """Take text; write the lines that are ended."""
        with self._lock:
            self._waiting += text
            end = max(self._waiting.rfind("\n"), self._waiting.rfind("\r")) + 1
            if end:
                self._write(end)
        return len(text)

    def flush(self) -> None:
        """Write what there is, a line without an end too."""
        with self._lock:
            if self._waiting:
                self._write(len(self._waiting))
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Be the stream in everything else."""
        return getattr(self._stream, name)

    def _write(self, end: int) -> None:
        text, self._waiting = self._waiting[:end], self._waiting[end:]
        labelled = ""
        for line in text.splitlines(keepends=True):
            labelled += (self._label if self._is_at_start else "") + line
            self._is_at_start = line.endswith(("\n", "\r"))
        self._stream.write(labelled)


def label_output(label: str) -> None:
    """Label all that this process prints from now on, on both its streams."""
    sys.stdout, sys.stderr = (
        LabelledLines(stream, label)  # type: ignore[assignment]
        for stream in (sys.stdout, sys.stderr)
    )
