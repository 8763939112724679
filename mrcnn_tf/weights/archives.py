"""Zip archives of strangers: .npz and PyTorch's. None unpacks to a multiple of its size."""

import io
import struct
import zipfile
import zlib
from typing import BinaryIO

from mrcnn_tf.weights.pickle_values import printable

# Zeros pack well, weights do not; a bomb is a thousand times its size.
_MOST_UNPACKED, _MOST_RATIO = 2**26, 32


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip archive that does not unpack to a multiple of its size.

    Raises:
      ValueError: it does, or it is damaged.
    """
    file.seek(0, io.SEEK_END)
    size = file.tell()
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ValueError(f"a damaged archive ({error})") from error
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
    try:
        entry = archive.getinfo(name)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is packed in an unusual way")
        return archive.read(entry)
    except KeyError as error:
        raise ValueError(f"cut off or damaged: it has no {printable(name)}") from (error)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"cut off or damaged: {printable(error)}") from error
