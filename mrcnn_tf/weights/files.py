"""Weight files of all kinds: path -> {name: array}, and back. No names are interpreted here.

A file's kind is told by its ending and confirmed by its first bytes. Paths may lie in any file
system of `tf.io.gfile`.
"""

import dataclasses
import io
import math
import os
import pickle
import tokenize
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import h5py
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from mrcnn_tf.console import whole_file
from mrcnn_tf.weights import archives, pickles, sources, torch_files
from mrcnn_tf.weights.pickle_values import printable

State = dict[str, np.ndarray]

_SAFETENSORS_TYPES: dict[str, Any] = {
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
_LEGACY_TAR = 257, b"ustar"  # where and what tells a tar


@dataclasses.dataclass(frozen=True)
class Weights:
    """What was read.

    Attributes:
      tensors: {name: array}.
      notes: sentences on where in the file they were, and what else is in it.
    """

    tensors: State
    notes: list[str]


def read(path: str, wanted: str = "") -> State:
    """Read the weights of a file; see `read_weights`."""
    return read_weights(path, wanted).tensors


def read_weights(path: str, wanted: str = "") -> Weights:
    """Read the weights of a file.

    Args:
      path: a .pkl, .pth, .pt, .safetensors, .npz or .h5 file (`_READERS` has them all), or a
        TensorFlow checkpoint: its prefix, its .index file or its folder.
      wanted: which weights, where the file has those of several networks or their running average;
        see `sources.choose`.

    Returns:
      Names without what programs put around them (`module.`); TensorFlow's without
      `/.ATTRIBUTES/VARIABLE_VALUE`, Keras' without `:0`. Numbers keep their type.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: the file is damaged, of another kind than its name says, or holds no tensors.
    """
    prefix = _checkpoint_prefix(path)
    if prefix:
        return Weights(_arrays(_read_tf_checkpoint(prefix), path), [])
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"no such file or checkpoint: {path}")
    suffix = _suffix(path)
    if suffix not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise ValueError(f"{path}: files are read that end in {known}, and TensorFlow checkpoints")
    kinds = _READERS[suffix]
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            kind = _kind_of(file)
            if kind not in kinds:
                raise ValueError(f"expected {' or '.join(kinds)}, found {kind}")
            content = kinds[kind](file)
            if not isinstance(content, Mapping):
                what = type(content).__name__.strip("_")
                raise ValueError(f"a pickled {what}, not a dict of tensors")
            chosen, notes = sources.choose(content, wanted)
            return Weights(_arrays(chosen, path), notes)
    except (ValueError, OSError, MemoryError, tf.errors.OpError) as error:
        text = str(error) or "it takes more memory than there is"
        raise ValueError(text if path in text else f"{path}: {text}") from error


def write(path: str, state: Mapping[str, np.ndarray]) -> None:
    """Write a state dict, a .pkl as Detectron2's zoo has them.

    Raises:
      ValueError: another ending than .npz, .pth, .pt, .pkl or .safetensors.
    """
    writer = _WRITERS.get(_suffix(path))
    if writer is None:
        known = ", ".join(_WRITERS)
        raise ValueError(f"{path}: state dicts are written as files that end in {known}")
    content = writer({name: np.ascontiguousarray(a).reshape(a.shape) for name, a in state.items()})
    whole_file.write(path, content)


def _suffix(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return "." + name.rsplit(".", 1)[1] if "." in name else ""


def _arrays(tensors: Mapping[str, Any], path: str) -> State:
    """Read the numbers of tensors.

    Raises:
      ValueError: one of them cannot be had.
    """
    state = {}
    for name, value in tensors.items():
        if not name.isprintable():
            raise ValueError(f"{path}: a tensor's name, {printable(name)!r}, is not printable")
        try:
            array = value.array() if hasattr(value, "array") else np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{path}: {name!r} {error}") from error
        if array.dtype.kind not in "fiub" and array.dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{path}: {name!r} is not numbers but {array.dtype}")
        state[name] = array
    if not state:
        raise ValueError(f"{path}: holds no tensors")
    return state


def _kind_of(file: BinaryIO) -> str:
    """Say what a file is, in words, from its first bytes; leaves it at its beginning."""
    place, tar = _LEGACY_TAR
    head = file.read(place + len(tar))
    file.seek(0)
    if not head:
        return "an empty file"
    if head.startswith(b"PK\x03\x04"):
        try:
            names = archives.open_archive(file).namelist()
        except ValueError:
            names = []  # which the reader will say
        file.seek(0)
        return _ARCHIVE if any(n.endswith(".npy") for n in names) else _TORCH_ARCHIVE
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _HDF5
    if head.startswith(torch_files.LEGACY_START):
        return _TORCH_LEGACY
    if head[0] == 0x80 and head[1:2] <= b"\x05":
        return _PICKLE
    if head[8:9] == b"{":
        return _SAFETENSORS
    if head[place:] == tar:
        return "a tar archive (PyTorch before 0.1.10 wrote such, which no longer are read)"
    if head.lstrip()[:1] == b"<":
        return "a web page (a download that went wrong)"
    return f"neither of the known kinds (it begins with {head[:8]!r})"


def _read_safetensors(file: BinaryIO) -> Mapping[str, Any]:
    try:
        entries = safetensors.deserialize(file.read())
    except safetensors.SafetensorError as error:
        raise ValueError(f"no readable safetensors file ({printable(str(error))})") from error
    tensors = {}
    for name, entry in entries:
        dtype = _SAFETENSORS_TYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(
                f"{printable(name)!r} has the type {entry['dtype']}, which is not read"
            )
        tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return tensors


def _read_npz(file: BinaryIO) -> Mapping[str, Any]:
    archive = archives.open_archive(file)
    return {
        name.removesuffix(".npy"): _read_npy(archives.unpack(archive, name), name)
        for name in archive.namelist()
    }


def _read_npy(content: bytes, name: str) -> np.ndarray:
    """Read one array; its header is believed only as far as there are bytes."""
    opened = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(opened)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(opened)
    except (ValueError, LookupError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        raise ValueError(f"{printable(name)!r} is no array of NumPy") from error
    if dtype.hasobject:
        raise ValueError(f"{printable(name)!r} holds objects: only numbers are read")
    return pickles.array(content[opened.tell() :], dtype, shape, "F" if is_fortran else "C")


def _read_keras(file: BinaryIO) -> Mapping[str, Any]:
    """Keras 2's layout: one group per layer, its weights' names in the attribute `weight_names`."""
    content = file.read()
    tensors, unpacked = {}, 0
    try:
        with h5py.File(io.BytesIO(content), "r") as opened:
            layers = _in_file(opened, "model_weights") if "model_weights" in [*opened] else opened
            if "layer_names" not in layers.attrs:
                raise ValueError("an HDF5 file, but not of Keras 2: it has no list of layers")
            for layer in layers:
                group = _in_file(layers, layer)
                for name in group.attrs.get("weight_names", ()):
                    text = name.decode() if isinstance(name, bytes) else str(name)
                    found = _in_file(group, text)
                    # A chunk may be larger than what is in it.
                    chunk = math.prod(found.chunks or ()) * found.dtype.itemsize
                    unpacked += max(found.nbytes, chunk)
                    archives.check_size(len(content), unpacked)
                    tensors[text.removesuffix(":0")] = found[()]
    except (LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"a damaged HDF5 file ({printable(str(error))})") from error
    return tensors


def _in_file(group: h5py.Group, name: str) -> Any:
    """Return what a group holds under a name, if it and its numbers are in the group's own file.

    HDF5 would follow links into other files, and read numbers out of any that is named.

    Raises:
      ValueError: they are elsewhere.
      LookupError: there is no such thing.
    """
    found = group
    for part in filter(None, name.split("/")):
        if found.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"its {printable(name)!r} is a link, which is not followed")
        found = found[part]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise ValueError(f"the numbers of its {printable(name)!r} are in another file")
    return found


def _checkpoint_prefix(path: str) -> str | None:
    """The checkpoint that a path means, None if it means none."""
    if tf.io.gfile.isdir(path):
        return tf.train.latest_checkpoint(path)
    prefix = path.removesuffix(".index")
    return prefix if tf.io.gfile.exists(prefix + ".index") else None


def _read_tf_checkpoint(prefix: str) -> Mapping[str, Any]:
    try:
        reader = tf.train.load_checkpoint(prefix)
        kinds, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
        names = [n for n, k in kinds.items() if k.is_floating or k.is_integer or k.is_bool]
        _check_numbers(prefix, sum(math.prod(shapes[n]) * kinds[n].size for n in names))
        tensors = {n.split("/.ATTRIBUTES/")[0]: reader.get_tensor(n) for n in names}
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        raise ValueError(f"{prefix}: not a readable TensorFlow checkpoint: {error}") from error
    return {name: tensor for name, tensor in tensors.items() if tensor.dtype.kind in "fiub"}


def _check_numbers(prefix: str, num_bytes: int) -> None:
    """Refuse an index that speaks of more numbers than there are, for which memory would be taken.

    Raises:
      ValueError: it does.
    """
    folder, name = os.path.split(prefix)
    parts = [n for n in tf.io.gfile.listdir(folder or ".") if n.startswith(f"{name}.data-")]
    there = sum(tf.io.gfile.stat(os.path.join(folder, part)).length for part in parts)
    if num_bytes > there:
        raise ValueError(f"{num_bytes:,} bytes are announced, {there:,} are there")


def _as_pickle(state: State) -> bytes:
    return pickle.dumps({"model": state, "__author__": "mrcnn_tf"}, protocol=4)


def _as_npz(state: State) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **state)  # type: ignore[arg-type]
    return packed.getvalue()


_PICKLE = "a pickle"
_TORCH_ARCHIVE = "an archive of PyTorch"
_TORCH_LEGACY = "a file of PyTorch before 1.6"
_ARCHIVE = "an archive of NumPy"
_HDF5 = "an HDF5 file"
_SAFETENSORS = "a safetensors file"
_Readers = dict[str, Callable[[BinaryIO], Any]]  # {what a file is, in words: its reader}
_PICKLES: _Readers = {
    _PICKLE: pickles.load,
    _TORCH_ARCHIVE: torch_files.read_archive,
    _TORCH_LEGACY: lambda file: torch_files.read_legacy(file.read()),
}
# torch.save takes any ending; these are what people give it. `.tar` comes from `.pth.tar`.
_READERS: dict[str, _Readers] = dict.fromkeys(
    (".pkl", ".pickle", ".pth", ".pt", ".pyth", ".bin", ".ckpt", ".tar"), _PICKLES
) | {
    ".safetensors": {_SAFETENSORS: _read_safetensors},
    ".npz": {_ARCHIVE: _read_npz},
    ".h5": {_HDF5: _read_keras},
}
_WRITERS: dict[str, Callable[[State], bytes]] = {
    ".npz": _as_npz,
    ".pth": torch_files.archive_of,
    ".pt": torch_files.archive_of,
    ".pkl": _as_pickle,
    ".safetensors": safetensors.numpy.save,
}
