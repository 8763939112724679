"""What a pickle of weights may ask for: NumPy's arrays, and stand-ins for what lies beside them.

A pickle is a program; `pickle_machine.py` runs it and calls only what is listed here. NumPy's own
functions are not among it, because they believe the file: a forged type makes them write behind an
array. Types are taken from a list by their names, and arrays are views of bytes that the file
holds, after counting them.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from mrcnn_tf.weights import pickle_machine
from mrcnn_tf.weights.pickle_values import (
    Constructor,
    Record,
    RefusedError,
    Unbuilt,
    checked_key,
    printable,
)

# Letter and bytes of each number, as NumPy's pickles name types.
_DTYPES = {
    order + code: np.dtype(order + code)
    for code in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    for order in "<>|"
}
_BFLOAT16 = Record("ml_dtypes.bfloat16")
_MOST_AXES = 16


class _Dtype(Unbuilt):
    """A type before its byte order is known."""

    def __init__(self, code: Any, align: bool = False, copy: bool = True):
        super().__init__()
        self._code = code

    def build(self, state: Any) -> np.dtype:
        """`state`: version, byte order, then what only types made of other types have."""
        order, *structure = state[1:5]
        if not isinstance(order, str) or not isinstance(self._code, str | Record):
            raise RefusedError("it holds an array of a type without a name")
        if any(part is not None for part in structure):
            raise RefusedError("it holds an array of records, and only numbers are read")
        if self._code is _BFLOAT16 and order == "<":
            return np.dtype(ml_dtypes.bfloat16)
        dtype = _DTYPES.get(f"{order}{self._code}")
        if dtype is None:
            name = printable(self._code)
            raise RefusedError(f"it holds an array of the type {name!r}, and only numbers are read")
        return dtype


class _Array(Unbuilt):
    """An array before its contents are known."""

    def build(self, state: Any) -> np.ndarray:
        """`state`: version, shape, type, whether the first axis runs fastest, bytes."""
        _, shape, dtype, is_fortran, content = state
        return array(content, dtype, shape, "F" if is_fortran else "C")


def array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """Return an array that looks at bytes of the file.

    Args:
      content: the bytes; text of Python 2, which did not tell it from bytes.
      dtype: one that was built here.
      shape: sides of the array.
      order: "C" or "F".

    Raises:
      RefusedError: these do not fit together.
    """
    if isinstance(content, str):
        content = _latin1(content)
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes):
        raise RefusedError("it holds an array without a type or without bytes")
    if order not in ("C", "F"):
        raise RefusedError("it holds an array in an unknown order")
    num_bytes = math.prod(checked_shape(shape)) * dtype.itemsize
    if num_bytes != len(content):
        raise RefusedError(
            f"it holds an array of {num_bytes:,} bytes, of which there are {len(content):,}"
        )
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Return the sides of an array.

    Raises:
      RefusedError: they are none.
    """
    sides = shape if isinstance(shape, tuple) and len(shape) <= _MOST_AXES else (None,)
    if not all(isinstance(side, int) and 0 <= side < 2**40 for side in sides):
        raise RefusedError(f"it holds an array of the shape {printable(shape)}")
    return shape


def _dict(items: Any = None) -> dict[Any, Any]:
    """An OrderedDict or Counter: made of nothing, another dict, or a list of pairs (Python 2).

    Pairs are moved, not copied, so that calling it again and again takes no memory.
    """
    if items is None:
        return {}
    if isinstance(items, dict):
        return items
    if not isinstance(items, list):  # a tuple could not be emptied
        raise RefusedError(f"it makes a dict of a {type(items).__name__}")
    made = {checked_key(key): value for key, value in items}
    items.clear()
    return made


@functools.cache
def _latin1(text: str) -> bytes:
    """Encode a text once, however often a file asks for it: memory is bounded by the file."""
    return text.encode("latin1")


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise RefusedError("it encodes text other than in latin1")
    return _latin1(text)


def _stand_in(what: str) -> Constructor:
    record = Record(what)
    return Constructor(lambda *_: record)


# Programs leave these beside the weights. None is imported, and nothing of them is kept.
_BESIDE = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"pathlib.{p}Path" for p in ("Posix", "Windows", "PurePosix", "PureWindows")),
    *(f"pathlib._local.{p}Path" for p in ("Posix", "Windows", "PurePosix", "PureWindows")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    "collections.deque",
    *(f"{m}.{n}" for m in ("builtins", "__builtin__") for n in ("set", "frozenset", "complex")),
    *(f"{m}.{n}" for m in ("builtins", "__builtin__") for n in ("slice", "range", "bytearray")),
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    *(f"omegaconf.nodes.{t}Node" for t in ("Any", "String", "Integer", "Float", "Boolean")),
)
# Named only, as the argument of another: defaultdict(list).
_TYPES = ("list", "dict", "int", "float", "str", "bool", "tuple", "object")


def _split(names: Any) -> list[tuple[str, str]]:
    return [tuple(name.rsplit(".", 1)) for name in names]  # type: ignore[misc]


_ARRAY_FUNCTIONS = {
    "_reconstruct": Constructor(lambda *_: _Array()),
    "scalar": Constructor(lambda dtype, content: array(content, dtype, ())[()]),
    "_frombuffer": Constructor(array),
}
GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Record("numpy.ndarray"),
    ("numpy", "dtype"): Constructor(_Dtype),
    ("ml_dtypes", "bfloat16"): _BFLOAT16,
    ("_codecs", "encode"): Constructor(_encode),
    ("collections", "OrderedDict"): Constructor(_dict),
    ("collections", "Counter"): Constructor(_dict),
    ("collections", "defaultdict"): Constructor(lambda *_: {}),
    ("typing", "Any"): Record("typing.Any"),
}
# NumPy 1 wrote `numpy.core`, NumPy 2 writes `numpy._core`.
GLOBALS |= {
    (f"numpy.{core}.{module}", name): function
    for core in ("core", "_core")
    for module in ("multiarray", "numeric")
    for name, function in _ARRAY_FUNCTIONS.items()
}
GLOBALS |= {key: _stand_in(".".join(key)) for key in _split(_BESIDE)}
GLOBALS |= {(m, name): Record(name) for m in ("builtins", "__builtin__") for name in _TYPES}
# Empty bytes for Python 2; others are encoded text.
GLOBALS |= {(m, "bytes"): Constructor(lambda: b"") for m in ("builtins", "__builtin__")}


def load(file: BinaryIO) -> Any:
    """Unpickle arrays and plain values.

    Args:
      file: open for reading.

    Returns:
      Dicts, lists, strings, numbers and arrays, whatever was pickled; `Record`s of the rest.

    Raises:
      RefusedError: it asks for something that is not listed here, which is named.
      ValueError: it is no pickle, or it is cut off or damaged.
    """
    return run(file.read(), GLOBALS)[0]


def run(
    content: bytes,
    globals_: Mapping[tuple[str, str], Any],
    persistent_load: Callable[[Any], Any] | None = None,
    start: int = 0,
) -> tuple[Any, int]:
    """Run one pickle that may ask for more; see `pickle_machine.load`."""
    try:
        return pickle_machine.load(content, globals_, persistent_load, start)
    finally:
        _latin1.cache_clear()
