"""A progress bar with rate and time left; a line now and then where there is no terminal."""

import sys
import time
from typing import TextIO

_BAR_WIDTH = 30
_TERMINAL_PERIOD, _FILE_PERIOD = 0.2, 5.0  # seconds between two drawings


class Progress:
    """Shows how far a long loop has come.

    Args:
      title: what is being done, shown first.
      total: how many units there are.
      unit: their name, plural.
      done: units that were ready before the start; they do not count for the rate.
      stream: where to write.
    """

    def __init__(
        self, title: str, total: int, unit: str, done: int = 0, stream: TextIO | None = None
    ) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = self._done_at_start = done
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()

    def add(self, count: int = 1) -> None:
        """Count `count` more units, and draw if the last drawing is old enough."""
        self._done += count
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_PERIOD if self._is_terminal else _FILE_PERIOD):
            self._shown = now
            self._draw()

    def close(self) -> None:
        """Draw the last state and end the line."""
        self._draw()
        if self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _draw(self) -> None:
        line = (
            f"{self._title} {self._done}/{self._total} {self._unit}, {self._rate_and_time_left()}"
        )
        if self._is_terminal:
            filled = round(_BAR_WIDTH * self._done / max(self._total, 1))
            bar = "#" * filled + "." * (_BAR_WIDTH - filled)
            self._stream.write(f"\r[{bar}] {line}\x1b[K")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _rate_and_time_left(self) -> str:
        elapsed = time.monotonic() - self._start
        new = self._done - self._done_at_start
        if not new or elapsed <= 0:
            return f"{elapsed:.0f} s"
        rate = new / elapsed
        if self._done >= self._total:
            return f"{rate:.1f}/s, {elapsed:.0f} s"
        left = round((self._total - self._done) / rate)
        return f"{rate:.1f}/s, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
