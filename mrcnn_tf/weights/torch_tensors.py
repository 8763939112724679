"""What a pickle of PyTorch may ask for: tensors, which are views of storages, and their types.

A storage is a row of numbers; a tensor an offset into one, sides and strides. Both stay what the
pickle says of them until the numbers are asked for, so an optimizer's are never read.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from mrcnn_tf.weights import pickles
from mrcnn_tf.weights.pickle_values import Constructor, Record, RefusedError, printable

DTYPES: dict[str, Any] = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
_UNREAD_STORAGES = ("ComplexFloat", "ComplexDouble", "QInt8", "QInt32", "QUInt8", "QUInt4x2")
# `torch.float32` and so on: values beside tensors, and the types of untyped storages.
_TORCH_TYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}
_UNREAD_TENSORS = {
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without numbers (on the device 'meta')",
    "_rebuild_nested_tensor": "a nested tensor",
}


@dataclasses.dataclass(frozen=True)
class Type:
    """What a tensor's numbers are; `dtype` is None where they cannot be read."""

    name: str
    dtype: np.dtype | None


@dataclasses.dataclass
class Storage:
    """Numbers in a row.

    Attributes:
      key: its name in the file.
      type: of the numbers; of an untyped storage bytes.
      count: how many.
      read: returns their bytes.
    """

    key: str
    type: Type
    count: int
    read: Callable[["Storage"], bytes | memoryview]

    @functools.cached_property
    def content(self) -> bytes | memoryview:
        """Their bytes, read once for all tensors that look at them."""
        return self.read(self)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage.

    Attributes:
      storage: what it looks at.
      type: of its numbers.
      offset: of the first, in numbers.
      shape: its sides.
      strides: how many numbers lie between neighbours along each side.
    """

    storage: Storage
    type: Type
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Read the numbers.

        Returns:
          an array that looks at the storage, not to be written to.

        Raises:
          ValueError: it looks beyond its storage, which may be cut off, or is of a type that is
            not read.
        """
        if self.type.dtype is None:
            raise ValueError(f"is of the type {self.type.name}, which is not read")
        numbers = np.frombuffer(self.storage.content, self.type.dtype)
        count = math.prod(self.shape)
        last = sum(
            (side - 1) * stride for side, stride in zip(self.shape, self.strides, strict=True)
        )
        if count == 0:
            return np.zeros(self.shape, self.type.dtype)
        if self.offset + last >= numbers.size or count > numbers.size:
            raise ValueError(
                f"is a view of {count:,} numbers from {self.offset:,} to {self.offset + last:,} in "
                f"a storage of {numbers.size:,}"
            )
        strides = [stride * numbers.itemsize for stride in self.strides]
        start = numbers[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides, writeable=False)


# --- What the pickle asks for -------------------------------------------------------------------


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise RefusedError("it holds a tensor without a storage")
    return _view(storage, storage.type, offset, shape, strides)


def _rebuild_tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """Newer types have untyped storages; the type stands beside."""
    if not isinstance(storage, Storage) or not isinstance(dtype, Type):
        raise RefusedError("it holds a tensor without a storage or a type")
    return _view(storage, dtype, offset, shape, strides)


def _view(storage: Storage, kind: Type, offset: Any, shape: Any, strides: Any) -> Tensor:
    shape, strides = pickles.checked_shape(shape), pickles.checked_shape(strides)
    if len(shape) != len(strides) or not isinstance(offset, int) or not 0 <= offset < 2**40:
        raise RefusedError(f"it holds a tensor whose sides {shape} have the strides {strides}")
    return Tensor(storage, kind, offset, shape, strides)


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """A tensor with attributes, which are left out."""
    if function not in _PLAIN or not isinstance(arguments, tuple):
        raise RefusedError("it holds a tensor that no known function makes")
    return function.make(*arguments)


# What makes a tensor that is nothing but a tensor.
_PLAIN = [Constructor(f) for f in (_rebuild_tensor, _rebuild_tensor_v3, _rebuild_parameter)]


@dataclasses.dataclass(frozen=True)
class _UnreadTensor:
    """A tensor of a kind that no network here has.

    Attributes:
      what: in words.
    """

    what: str

    def array(self) -> np.ndarray:
        """Refuse; only if its numbers are needed."""
        raise ValueError(f"is {self.what}, which is not read")


def _unread(what: str) -> Constructor:
    return Constructor(lambda *_: _UnreadTensor(what))


def _record(what: str) -> Constructor:
    return Constructor(lambda *_: Record(what))


_UNTYPED = Type("torch.UntypedStorage", np.dtype(np.uint8))
GLOBALS: dict[tuple[str, str], Any] = {
    **pickles.GLOBALS,
    ("torch._utils", "_rebuild_tensor"): Constructor(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Constructor(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Constructor(_rebuild_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): Constructor(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Constructor(_rebuild_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Constructor(_rebuild_from_type),
    ("torch", "Tensor"): Record("torch.Tensor"),
    ("torch.nn.parameter", "Parameter"): Record("torch.nn.Parameter"),
    ("torch.nn.parameter", "Buffer"): Record("torch.nn.Buffer"),
    ("torch", "Size"): Constructor(lambda sides=(): tuple(sides[:16])),
    ("torch", "device"): _record("torch.device"),
    ("torch.serialization", "_get_layout"): _record("torch.layout"),
    ("torch", "UntypedStorage"): _UNTYPED,
    ("torch.storage", "UntypedStorage"): _UNTYPED,
}
GLOBALS |= {("torch._utils", name): _unread(what) for name, what in _UNREAD_TENSORS.items()}
GLOBALS |= {
    (module, f"{name}Storage"): Type(
        f"torch.{name}Storage", np.dtype(DTYPES[name]) if name in DTYPES else None
    )
    for module in ("torch", "torch.cuda")
    for name in (*DTYPES, *_UNREAD_STORAGES)
}
GLOBALS |= {
    ("torch", name): Type(f"torch.{name}", np.dtype(dtype)) for name, dtype in _TORCH_TYPES.items()
}
GLOBALS |= {
    ("torch", name): Type(f"torch.{name}", None)
    for name in ("complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "qint8", "quint8")
}
GLOBALS |= {("torch", name): Record(f"torch.{name}") for name in ("strided", "per_tensor_affine")}


class Storages:
    """Makes one `Storage` per key, however many tensors look at it."""

    def __init__(self, read: Callable[[Storage], bytes | memoryview]):
        self.by_key: dict[str, Storage] = {}
        self._read = read

    def load(self, told: Any) -> Storage:
        """`told`: "storage", type, key, device, count; in the older format a view of it, too."""
        if not isinstance(told, tuple) or len(told) < 5 or told[0] != "storage":
            what = printable(told[0] if isinstance(told, tuple) and told else "")
            raise RefusedError(f"it points to {what!r} outside of its pickle")
        _, kind, key, _, count = told[:5]
        if any(view is not None for view in told[5:]):
            raise RefusedError("it holds a view of a storage, as PyTorch 0.3 and before wrote them")
        if not isinstance(kind, Type) or not isinstance(key, str) or not isinstance(count, int):
            raise RefusedError("it holds a storage without a type, a key or a length")
        storage = self.by_key.setdefault(key, Storage(key, kind, count, self._read))
        if (storage.type, storage.count) != (kind, count) or not 0 <= count < 2**40:
            raise RefusedError(f"its storage {printable(key)!r} has two lengths")
        return storage
