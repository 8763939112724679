"""Which of many cases every run of the tests goes through, and which only one of all of them."""

from collections.abc import Iterable
from typing import Any

import pytest


def one_quick(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """Return the cases for `parametrize`, of which all but the first ones are slow.

    For cases that take seconds each and differ in little: the first stands for them in every run.

    Args:
      cases: values, or tuples of values.
      quick: so many of them are not slow.
    """
    cases = [*cases]
    slow = []
    for case in cases[quick:]:
        values = case if isinstance(case, tuple) else (case,)
        slow.append(pytest.param(*values, marks=pytest.mark.slow))
    return [*cases[:quick], *slow]
