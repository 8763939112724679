"""Single values of a COCO file as export tools write them: numbers, ids, lists of numbers."""

import math
from typing import Any

import numpy as np


def integer(value: Any) -> int | None:
    """Return a 64-bit integer given as such, as 7.0 or as "7"; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        return None
    return value


def identifier(value: Any) -> int | str | None:
    """Return an image id, a whole number or a text; 1.0 is 1. None if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else text(value)


def text(value: Any) -> str | None:
    """Return a text; None if it is none, or holds half a character: JSON can, no file can."""
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        return None
    return value


def number(value: Any) -> float | None:
    """Return a finite number as float; None if it is none, or beyond all floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def array(numbers: Any) -> Any:
    """Return a list of finite numbers as float64 or int64 array, anything else as it is."""
    if not isinstance(numbers, list):
        return numbers
    try:
        values = np.asarray(numbers)
    except (ValueError, OverflowError):
        return numbers
    if values.ndim != 1 or values.dtype.kind not in "if" or not np.isfinite(values).all():
        return numbers
    return values


def short(value: Any) -> str:
    """Return a value as text that fits into a message; of a long list, its beginning."""
    if isinstance(value, np.ndarray):
        value = value[:40].tolist()
    if isinstance(value, list) and len(value) == 4:
        return "[" + ", ".join(map(short, value)) + "]"  # a box: each number in its turn
    text = repr(value[:40] if isinstance(value, list) else value)
    if isinstance(value, int) and len(text) > 24:
        return f"{text[:8]}... ({len(text)} digits)"
    return text if len(text) <= 80 else text[:77] + "..."
