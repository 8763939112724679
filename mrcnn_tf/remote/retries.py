"""Asking again what a server could not answer for a moment."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from mrcnn_tf.remote.failures import ServerError

Answer = TypeVar("Answer")

ATTEMPTS = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0


class Retries:
    """Calls up to `ATTEMPTS` times, with pauses that double, all before one deadline.

    Of a failure that is not temporary the first is the last. Pauses are drawn between half and one
    and a half times their length, so that many clients do not come back at once. After a request
    that was given up, the following ones are tried once each until one is answered: ten thousand
    pictures for a server that is gone shall not take a day.
    """

    def __init__(self, deadline_s: float):
        """Set the time that a request may take, all attempts and pauses together."""
        self._deadline_s = deadline_s
        self._is_gone = False

    def call(self, attempt: Callable[[float], Answer]) -> Answer:
        """Return what an attempt returns.

        Args:
          attempt: gets the seconds it may take; raises ServerError.

        Raises:
          ServerError: the last attempt's, with the number of attempts.
        """
        start = time.monotonic()
        attempts = 1 if self._is_gone else ATTEMPTS
        for number in range(1, attempts + 1):
            left = self._deadline_s - (time.monotonic() - start)
            try:
                answer = attempt(left)
            except ServerError as error:
                if not error.is_temporary:
                    raise
                pause = min(_FIRST_PAUSE_S * 2 ** (number - 1), _LONGEST_PAUSE_S)
                pause *= random.uniform(0.5, 1.5)
                waited = time.monotonic() - start
                if number == attempts or waited + pause >= self._deadline_s:
                    self._is_gone = True
                    times = f"{number} attempts in {waited:.1f} s" if number > 1 else "1 attempt"
                    raise ServerError(f"{error} ({times})", is_temporary=True) from error
                time.sleep(pause)
            else:
                self._is_gone = False
                return answer
        raise AssertionError("an attempt returns or raises")
