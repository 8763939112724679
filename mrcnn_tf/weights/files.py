"""Weight files of all kinds: path -> {name: float array}, and back. No names are interpreted here.

A file's kind is told by its ending and confirmed by its first bytes.
"""

import json
import math
import os
import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import tensorflow as tf

from mrcnn_tf.weights import pickles

State = dict[str, np.ndarray]

_TORCH_MISSING = (
    "reading and writing .pth and .pt files takes PyTorch, which is not installed:\n"
    "  pip install -r requirements-convert.txt"
)
# A training run of either project keeps the weights here, beside the optimizer's state.
_NESTED = ("model", "state_dict", "blobs")
_SAFETENSORS_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: str) -> State:
    """Read all tensors of a file.

    Args:
      path: a .pkl, .pth, .pt, .safetensors, .npz or .h5 file, or a TensorFlow checkpoint: its
        prefix, its .index file or its folder.

    Returns:
      {name: array}; TensorFlow's names without `/.ATTRIBUTES/VARIABLE_VALUE`, Keras' without `:0`.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: the file is damaged, of another kind than its name says, or holds no tensors, or
        more than tensors.
      ImportError: it takes PyTorch to read it, which is not installed.
    """
    prefix = _checkpoint_prefix(path)
    if prefix:
        return _checked(_read_tf_checkpoint(prefix), path)
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such file or checkpoint: {path}")
    if file.suffix not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise ValueError(f"{path}: files are read that end in {known}, and TensorFlow checkpoints")
    read_file, kinds = _READERS[file.suffix]
    kind = _kind_of(file)
    if kind not in kinds:
        raise ValueError(f"{path}: expected {' or '.join(kinds)}, found {kind}")
    try:
        return _checked(read_file(file), path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        text = str(error) if isinstance(error, ValueError | OSError) else repr(error)
        raise ValueError(text if path in text else f"{path}: {text}") from error


def write(path: str, state: Mapping[str, np.ndarray]) -> None:
    """Write a state dict as a .npz, .pth, .pt or .pkl file; the last as Detectron2's zoo has them.

    Raises:
      ValueError: another ending.
      ImportError: a .pth file, and no PyTorch.
    """
    suffix = pathlib.Path(path).suffix
    if suffix in (".pth", ".pt"):
        torch = _torch()
        torch.save({name: torch.from_numpy(np.array(a)) for name, a in state.items()}, path)
    elif suffix == ".pkl":
        with open(path, "wb") as file:
            pickle.dump({"model": dict(state), "__author__": "mrcnn_tf"}, file, protocol=4)
    elif suffix == ".npz":
        np.savez(path, **state)  # type: ignore[arg-type]
    else:
        raise ValueError(f"{path}: state dicts are written as .npz, .pth, .pt or .pkl")


def _checked(tensors: Mapping[str, Any], path: str) -> State:
    """Unwrap `{"model": ...}` and see that nothing but numbers is left.

    Raises:
      ValueError: something else is in the file.
    """
    inner = [tensors[key] for key in _NESTED if isinstance(tensors.get(key), Mapping)]
    state = {}
    for name, value in (inner[0] if inner else tensors).items():
        array = np.asarray(value)
        if array.dtype.kind in "USO" and not isinstance(value, np.ndarray):
            continue  # a remark such as `__author__` or a nested configuration
        if array.dtype.kind not in "fiub" and array.dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{path}: {name!r} is not numbers but {array.dtype}")
        state[str(name)] = array
    if not state:
        raise ValueError(f"{path}: holds no tensors")
    return state


def _kind_of(file: pathlib.Path) -> str:
    """Say what a file is, in words, from its first bytes."""
    with file.open("rb") as opened:
        head = opened.read(16)
    if not head:
        return "an empty file"
    if head.startswith(b"PK\x03\x04"):
        names = zipfile.ZipFile(file).namelist() if zipfile.is_zipfile(file) else []
        return _ARCHIVE if any(n.endswith(".npy") for n in names) else _TORCH_ARCHIVE
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _HDF5
    if head[0] == 0x80 and head[1:2] <= b"\x05":
        return _PICKLE
    if head[8:9] == b"{":
        return _SAFETENSORS
    if head.lstrip()[:1] == b"<":
        return "a web page (a download that went wrong)"
    return f"neither of the known kinds (it begins with {head[:8]!r})"


def _read_pickle(file: pathlib.Path) -> Mapping[str, Any]:
    with file.open("rb") as opened:
        content = pickles.load(opened)
    if not isinstance(content, Mapping):
        raise ValueError(f"a pickled {type(content).__name__}, not a dict of tensors")
    return content


def _read_torch(file: pathlib.Path) -> Mapping[str, Any]:
    torch = _torch()
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's own errors, whatever is damaged
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "Unsupported" in line), lines[0] if lines else "")
        raise ValueError(f"not readable as tensors only: {reason.strip()}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"holds a {type(content).__name__}, not a dict of tensors")
    inner = next((content[k] for k in _NESTED if isinstance(content.get(k), Mapping)), content)
    return {
        name: value.to(torch.float32).numpy() if value.is_floating_point() else value.numpy()
        for name, value in inner.items()
        if isinstance(value, torch.Tensor)
    }


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(_TORCH_MISSING) from error
    return torch


def _read_safetensors(file: pathlib.Path) -> Mapping[str, Any]:
    """8 bytes: size of the header; the header, JSON; the numbers, little-endian."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    if start > len(content):
        raise ValueError("cut off within its header")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        kind = _SAFETENSORS_TYPES.get(entry["dtype"])
        if kind is None:
            raise ValueError(f"{name!r} has the type {entry['dtype']}")
        begin, end = (start + offset for offset in entry["data_offsets"])
        count = math.prod(entry["shape"])
        num_bytes = count * np.dtype(kind).itemsize
        if end - begin != num_bytes or not start <= begin <= end <= len(content):
            raise ValueError(f"cut off: {name!r} is not all there")
        tensors[name] = np.frombuffer(content, kind, count, begin).reshape(entry["shape"])
    return tensors


def _read_npz(file: pathlib.Path) -> Mapping[str, Any]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_keras(file: pathlib.Path) -> Mapping[str, Any]:
    """Keras 2's layout: one group per layer, its weights' names in the attribute `weight_names`."""
    with h5py.File(file) as opened:
        layers = opened.get("model_weights", opened)
        if "layer_names" not in layers.attrs:
            raise ValueError("an HDF5 file, but not of Keras 2: it has no list of layers")
        tensors = {}
        for group in layers.values():
            for name in group.attrs.get("weight_names", ()):
                text = name.decode() if isinstance(name, bytes) else str(name)
                tensors[text.removesuffix(":0")] = group[text][()]
    return tensors


def _checkpoint_prefix(path: str) -> str | None:
    """The checkpoint that a path means, None if it means none."""
    if os.path.isdir(path):
        return tf.train.latest_checkpoint(path)
    prefix = path.removesuffix(".index")
    return prefix if os.path.isfile(prefix + ".index") else None


def _read_tf_checkpoint(prefix: str) -> Mapping[str, Any]:
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = [
            n for n in reader.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"
        ]
        tensors = {n.split("/.ATTRIBUTES/")[0]: reader.get_tensor(n) for n in names}
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(f"{prefix}: not a readable TensorFlow checkpoint: {error}") from error
    return {name: tensor for name, tensor in tensors.items() if tensor.dtype.kind in "fiub"}


_PICKLE = "a pickle"
_TORCH_ARCHIVE = "an archive of PyTorch"
_ARCHIVE = "an archive of NumPy"
_HDF5 = "an HDF5 file"
_SAFETENSORS = "a safetensors file"
_READERS = {
    ".pkl": (_read_pickle, (_PICKLE,)),
    ".pth": (_read_torch, (_TORCH_ARCHIVE, _PICKLE)),  # before version 1.6 torch wrote pickles
    ".pt": (_read_torch, (_TORCH_ARCHIVE, _PICKLE)),
    ".safetensors": (_read_safetensors, (_SAFETENSORS,)),
    ".npz": (_read_npz, (_ARCHIVE,)),
    ".h5": (_read_keras, (_HDF5,)),
}
