"""The project's one kind of progress bar: title, count, rate, time left.

On a terminal a bar that moves; elsewhere (a file, a pipe, a notebook's log) a line now and then.
"""

import sys
from typing import TextIO

import tqdm

_SECONDS_BETWEEN_LINES = 5.0  # where there is no terminal
_COUNT_AND_RATE = "{n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left"


class ProgressBar:
    """Shows how far a long loop has come.

    Args:
      title: what is being done, shown first.
      total: how many units there are; None if nobody knows.
      unit: their name, plural.
      done: units that were ready before the start; they do not count for the rate.
      stream: where to write; stderr by default.
    """

    def __init__(
        self, title: str, total: int | None, unit: str, done: int = 0, stream: TextIO | None = None
    ) -> None:
        stream = stream or sys.stderr
        is_terminal = stream.isatty()
        before = "{l_bar}{bar}| " if is_terminal else "{desc} "
        self._bar = tqdm.tqdm(
            desc=title,
            total=total,
            unit=f" {unit}",
            initial=done,
            file=stream if is_terminal else _Lines(stream),
            mininterval=0.2 if is_terminal else _SECONDS_BETWEEN_LINES,
            miniters=1,
            dynamic_ncols=is_terminal,
            bar_format=before + _COUNT_AND_RATE,
        )

    def add(self, count: int = 1) -> None:
        """Count `count` more units, and draw if the last drawing is old enough."""
        self._bar.update(count)

    def close(self) -> None:
        """Draw the last state and end the line."""
        self._bar.close()


class _Lines:
    """A stream that turns each drawing of a bar into a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        """Write one drawing, unless it is the last one once more."""
        line = text.strip()
        if line and line != self._last:
            self._last = line
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """Hand on what was written."""
        self._stream.flush()
