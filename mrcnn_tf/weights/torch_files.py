"""PyTorch's files without PyTorch: both formats read, the newer one written.

Since version 1.6 `torch.save` writes a zip archive: a pickle of everything but the numbers, and one
entry of raw bytes per storage. Before, it wrote five pickles one after the other (magic number,
version, system, object, keys of the storages) and behind them each storage: its length, its bytes.
"""

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from mrcnn_tf.weights import archives, pickles, torch_tensors
from mrcnn_tf.weights.pickle_values import printable

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, pickled
_LEGACY_VERSION = 1001

# --- The archive --------------------------------------------------------------------------------


def read_archive(file: BinaryIO) -> Any:
    """Read what `torch.save` wrote since version 1.6.

    Args:
      file: open for as long as the tensors are read.

    Returns:
      What was saved: dicts, lists, numbers, `Tensor`s, `Record`s of the rest.

    Raises:
      RefusedError: it holds more than that, which is named.
      ValueError: it is cut off or damaged, or another kind of archive.
    """
    archive = archives.open_archive(file)
    names = archive.namelist()
    pickled = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise ValueError(
            "a TorchScript program, not a file of weights: in Python with PyTorch, "
            "torch.save(torch.jit.load(FILE).state_dict(), OTHER_FILE)"
        )
    if len(pickled) != 1:
        raise ValueError("a zip archive, but none of torch.save (it has no data.pkl)")
    root = pickled[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and archives.unpack(archive, f"{root}byteorder") != b"little":
        raise ValueError("its numbers are big-endian; only little-endian files are read")

    def read(storage: torch_tensors.Storage) -> bytes | memoryview:
        content = archives.unpack(archive, f"{root}data/{storage.key}")
        return _counted(content, storage)

    program = archives.unpack(archive, pickled[0])
    return pickles.run(program, torch_tensors.GLOBALS, torch_tensors.Storages(read).load)[0]


def _counted(content: bytes | memoryview, storage: torch_tensors.Storage) -> bytes | memoryview:
    dtype = storage.type.dtype or np.dtype(np.uint8)
    if len(content) != storage.count * dtype.itemsize:
        raise ValueError(
            f"cut off or damaged: the storage {printable(storage.key)!r} has "
            f"{len(content):,} bytes instead of {storage.count * dtype.itemsize:,}"
        )
    return content


# --- The format before 1.6 ----------------------------------------------------------------------


def read_legacy(content: bytes) -> Any:
    """Read what `torch.save` wrote before version 1.6; see `read_archive`."""
    position, pickled = 0, []
    blocks: dict[str, memoryview] = {}
    storages = torch_tensors.Storages(lambda storage: _counted(blocks[storage.key], storage))
    for _ in range(5):  # magic number, version, system, object, keys of the storages
        value, position = pickles.run(content, torch_tensors.GLOBALS, storages.load, position)
        pickled.append(value)
    _, version, system, saved, keys = pickled
    if version != _LEGACY_VERSION or not isinstance(system, dict) or not isinstance(keys, list):
        raise ValueError(f"of an unknown version ({printable(version)})")
    if system.get("little_endian") is not True:
        raise ValueError("its numbers are big-endian; only little-endian files are read")
    if not all(isinstance(key, str) for key in keys) or set(keys) != set(storages.by_key):
        raise ValueError("cut off or damaged: its storages are not those of its tensors")
    whole = memoryview(content)
    for key in keys:
        storage = storages.by_key[key]
        dtype = storage.type.dtype
        if dtype is None:
            raise ValueError(f"it holds numbers of the type {storage.type.name}, which is not read")
        start, position = position + 8, position + 8 + storage.count * dtype.itemsize
        count = int.from_bytes(whole[start - 8 : start], "little")
        if count != storage.count or position > len(content):
            name = printable(key)
            raise ValueError(f"cut off or damaged: the storage {name!r} is not all there")
        blocks[key] = whole[start:position]
    return saved


# --- Writing ------------------------------------------------------------------------------------


def archive_of(state: Mapping[str, np.ndarray]) -> bytes:
    """Return a file that `torch.load` reads as an OrderedDict of tensors.

    Args:
      state: {name: array} of the types that both sides know.

    Raises:
      ValueError: another type.
    """
    types = {np.dtype(dtype): name for name, dtype in torch_tensors.DTYPES.items()}
    program = io.BytesIO()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        program.write(b"\x80\x02ccollections\nOrderedDict\n)R(")
        for key, (name, tensor) in enumerate(state.items()):
            if tensor.dtype not in types:
                raise ValueError(f"{name!r} is of the type {tensor.dtype}, which PyTorch has not")
            program.write(_pickled_tensor(name, tensor, types[tensor.dtype], str(key)))
        program.write(b"u.")
        archive.writestr("archive/data.pkl", program.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, tensor in enumerate(state.values()):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(tensor).tobytes())
        archive.writestr("archive/version", "3\n")
    return packed.getvalue()


def _pickled_tensor(name: str, tensor: np.ndarray, kind: str, key: str) -> bytes:
    """Instructions of `name: _rebuild_tensor_v2(storage, 0, shape, strides, False, {})`."""
    strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(tensor.ndim)]
    storage = b"(%sctorch\n%sStorage\n%s%s%stQ" % (
        _pickled("storage"),
        kind.encode(),
        _pickled(key),
        _pickled("cpu"),
        _pickled(tensor.size),
    )
    shape, steps = (b"(" + b"".join(map(_pickled, n)) + b"t" for n in (tensor.shape, strides))
    arguments = storage + _pickled(0) + shape + steps + b"\x89ccollections\nOrderedDict\n)R"
    return _pickled(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _pickled(value: str | int) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    return b"\x8a\x08" + struct.pack("<q", value)
