"""Zip archives of strangers: .npz and PyTorch's. None unpacks to a multiple of its size."""

import io
import struct
import zipfile
import zlib
from typing import BinaryIO

from mrcnn_tf.weights.pickle_values import printable

# Zeros pack well, weights do not; a bomb is a thousand times its size.
_MOST_UNPACKED, _MOST_RATIO = 2**26, 32
# What Python's zipfile raises on archives that are none, found by damaging some.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, OverflowError, LookupError, RuntimeError),
)


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip archive that does not unpack to a multiple of its size.

    Raises:
      ValueError: it does, or it is damaged.
    """
    file.seek(0, io.SEEK_END)
    size = file.tell()
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGE as error:
        raise ValueError(f"a damaged archive ({printable(str(error))})") from error
    check_size(size, sum(entry.file_size for entry in archive.infolist()))
    return archive


def check_size(size: int, unpacked: int) -> None:
    """Refuse a file of `size` bytes that would unpack to as many as `unpacked`."""
    if unpacked > max(_MOST_UNPACKED, _MOST_RATIO * size):
        raise ValueError(f"a file of {size:,} bytes that would unpack to {unpacked:,}")


def unpack(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read an entry.

    Raises:
      ValueError: there is none, or it is damaged or packed in an unusual way.
    """
    if name not in archive.NameToInfo:
        raise ValueError(f"cut off or damaged: it has no {printable(name)}")
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its {printable(name)} is packed in an unusual way")
    try:
        return archive.read(entry)
    except _DAMAGE as error:
        raise ValueError(f"cut off or damaged: {printable(str(error))}") from error
