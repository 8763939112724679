"""Asking again what a server could not answer for a moment."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from mrcnn_tf.remote.failures import ServerError

Answer = TypeVar("Answer")

ATTEMPTS = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
# After so many requests in a row without an answer in time, the following ones get less time.
_PATIENCE, _SHORT_S = 2, 5.0


class Retries:
    """Calls up to `ATTEMPTS` times, with pauses that double, all before one deadline.

    Of a failure that is not temporary the first is the last. Pauses are drawn between half and one
    and a half times their length, so that many clients do not come back at once. After a request
    that was given up, the following ones are tried once each until one is answered: ten thousand
    pictures for a server that is gone shall not take a day. Nor for one that hangs: after two
    requests in a row that got no answer in time, the following ones get 5 seconds, or twice as long
    as the slowest answer took if that is more, until one is answered.
    """

    def __init__(self, deadline_s: float):
        """Set the time that a request may take, all attempts and pauses together."""
        self._deadline_s = deadline_s
        self._is_gone = False
        self._num_timeouts = 0  # in a row
        self._slowest_s = 0.0

    def call(self, attempt: Callable[[float], Answer]) -> Answer:
        """Return what an attempt returns.

        Args:
          attempt: gets the seconds it may take; raises ServerError.

        Raises:
          ServerError: the last attempt's, with the number of attempts; without an answer in time,
            with the whole deadline where the attempt had less.
        """
        start = time.monotonic()
        attempts = 1 if self._is_gone else ATTEMPTS
        for number in range(1, attempts + 1):
            attempt_start = time.monotonic()
            left = self._deadline_s - (attempt_start - start)
            allowed = min(left, self._patience_s())
            try:
                answer = attempt(allowed)
            except ServerError as error:
                if error.is_timeout:
                    self._num_timeouts += 1
                    whole = f"{self._deadline_s:.3g} s"
                    if allowed < left:
                        why = f" (instead of {whole}: those before got none either)"
                    else:
                        why = f" (the rest of {whole}, attempt {number})" if number > 1 else ""
                    raise ServerError(f"{error}{why}", is_timeout=True) from error
                if not error.is_temporary:
                    self._num_timeouts = 0  # a refusal is an answer
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
                self._num_timeouts = 0
                self._slowest_s = max(self._slowest_s, time.monotonic() - attempt_start)
                return answer
        raise AssertionError("an attempt returns or raises")

    def _patience_s(self) -> float:
        """Return the seconds that an attempt may take."""
        if self._num_timeouts < _PATIENCE:
            return self._deadline_s
        return max(_SHORT_S, 2 * self._slowest_s)
