"""Read a pickle of NumPy arrays without running what a pickle may contain.

A pickle is a program: it may import any function and call it. Detectron2's released files are
pickles of dicts, lists, strings, numbers and arrays; only what builds those is admitted.
"""

import _codecs
import collections
import io
import pickle
from typing import Any, BinaryIO

import numpy as np

from numpy._core import multiarray, numeric  # isort: skip  # where NumPy's own pickles point

_ARRAYS = {
    "_reconstruct": multiarray._reconstruct,
    "scalar": multiarray.scalar,
    "_frombuffer": numeric._frombuffer,  # type: ignore[attr-defined]
}
# NumPy 1 wrote `numpy.core`, NumPy 2 writes `numpy._core`; Python 2 left bytes to `_codecs`.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _codecs.encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
} | {
    (f"numpy.{core}.{module}", name): function
    for core in ("core", "_core")
    for module in ("multiarray", "numeric")
    for name, function in _ARRAYS.items()
}


class RefusedError(ValueError):
    """A pickle asked for something that is no array."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what the pickle asks for, if it is harmless."""
        if (module, name) not in _ADMITTED:
            raise RefusedError(
                f"it asks for {module}.{name}, and only NumPy arrays are read from a pickle; "
                "nothing of it was run"
            )
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what points out of the file."""
        raise RefusedError("its tensors are not in it; if torch wrote it, name it .pth")


def load(file: BinaryIO) -> Any:
    """Unpickle.

    Args:
      file: open for reading.

    Returns:
      Dicts, lists, strings, numbers and arrays, whatever was pickled.

    Raises:
      RefusedError: it asks for something else, which is named.
      ValueError: it is no pickle, or it is cut off.
    """
    content = io.BytesIO(file.read())
    try:
        # Python 2 pickled bytes and text alike; latin1 keeps both.
        return _Unpickler(content, encoding="latin1").load()
    except RefusedError:
        raise
    except MemoryError as error:
        raise ValueError("its arrays are larger than the memory") from error
    except Exception as error:  # damaged pickles raise almost anything
        raise ValueError(f"cut off or damaged ({type(error).__name__}: {error})") from error
