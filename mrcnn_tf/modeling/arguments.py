"""Fields become keyword arguments of the same names."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def taken(layer: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave those values that a layer's constructor has a name for.

    Where one field says which layer it is, its group has fields that only some of them take.
    """
    names = inspect.signature(layer).parameters
    return {name: value for name, value in values.items() if name in names}
