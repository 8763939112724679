"""Finds damaged records: in which file and where, of which image, where whole ones go on.

A record is 8 bytes of length, 4 of their checksum, the content, and 4 of its checksum. TensorFlow
checks both while it reads, and ends with a byte position but without a file. Here each file is read
by the same code, and where that fails it is looked at: behind a damaged content the next record
begins where the length says; behind a damaged length it is searched for.

Source: TensorFlow's `lib/io/record_writer.h` for the format.
"""

import concurrent.futures
import functools
import os
import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import columns, crc, schema

_HEADER, _BEHIND = 12, 4  # bytes before and behind a record's content
_POSITION = re.compile(r"(?:corrupted|truncated) record at (\d+)")
_WINDOW = 2**20  # bytes that are searched at once for the next record
_AT_ONCE = 8  # files
_MOST_NAMED = 5


class Damage(NamedTuple):
    """A place in a file from which no record can be had, up to the next that can.

    Attributes:
      file: its path.
      record: how many records lie before it.
      start: where it begins, bytes.
      end: where the next record begins; the file's length if there is none.
      what: what is wrong.
      source_id: of the image, "" where the content does not tell.
    """

    file: str
    record: int
    start: int
    end: int
    what: str
    source_id: str

    def __str__(self) -> str:
        image = f", of image {self.source_id!r}" if self.source_id else ""
        return (
            f"{self.file}: record {self.record + 1:,}{image}, at byte {self.start:,}: {self.what}"
        )


def verify(files: Sequence[str], file_is_done: Callable[[], None] = lambda: None) -> list[Damage]:
    """Read files to their end, and return what in them is damaged.

    A file that was verified before in this process is not read again unless it changed.

    Args:
      files: TFRecord files without compression.
      file_is_done: called after each.

    Raises:
      ValueError: a file cannot be read.
    """
    found: list[Damage] = []
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for damages in pool.map(_verify_one, files):
            found += damages
            file_is_done()
    return found


def explain(message: str, files: Sequence[str]) -> str:
    """Say in which file the damage is that TensorFlow met.

    Args:
      message: of its error, "corrupted record at 155912".
      files: those that were read.

    Returns:
      A sentence; "" if the error is about something else.
    """
    match = _POSITION.search(message)
    if not match:
        return ""
    position = int(match[1])
    suspects = [file for file in files if _may_be_damaged_at(file, position)]
    damages = verify(suspects)
    damages = [one for one in damages if _at(one.start, position)] or damages
    if not damages:
        return (
            f"a record at byte {position:,} could not be read, and all could on a second reading: "
            "storage or network failed for a moment"
        )
    return describe(damages)


def length_in_file(record: bytes) -> int:
    """Return how many bytes a record takes in a file."""
    return _HEADER + len(record) + _BEHIND


def headers(file: str) -> Iterator[tuple[int, int]]:
    """Hop from record to record without reading their contents.

    Yields:
      Where a record begins, and how many bytes its content has.

    Raises:
      ValueError: a length is damaged, or the file is cut off.
    """
    size, position, count = _size(file), 0, 0
    with _open(file) as reader:
        while position < size:
            length = _length_at(reader, position, size)
            if length is None:
                raise ValueError(
                    f"{file}: record {count + 1:,}, at byte {position:,}, is damaged or cut off"
                )
            yield position, length
            position, count = position + _HEADER + length + _BEHIND, count + 1


def usable(files: Sequence[str], most: int) -> list[str]:
    """Return files without their damaged records; they are read to their end for it.

    Args:
      files: as `record_files.find` returns them.
      most: places with damage that may be left out.

    Raises:
      ValueError: there are more, or a file cannot be read.
      OSError: there is no room for a copy, see `without`.
    """
    damages = verify(files)
    if len(damages) > most:
        raise ValueError(describe(damages))
    return without(files, damages)


def describe(damages: Sequence[Damage]) -> str:
    """Return a sentence that names some."""
    places = "place" if len(damages) == 1 else "places"
    more = f"; and {len(damages) - _MOST_NAMED:,} more" if damages[_MOST_NAMED:] else ""
    named = "; ".join(map(str, damages[:_MOST_NAMED]))
    return f"record files are damaged in {len(damages):,} {places}: {named}{more}"


def without(files: Sequence[str], damages: Sequence[Damage]) -> list[str]:
    """Return the files, each damaged one replaced by a copy without what is damaged.

    Copies lie in a temporary folder that goes with this process. They hold the same records in the
    same order at every start, so that a run goes on where it stopped.

    Raises:
      OSError: there is no room for the copy; names both files.
      ValueError: a file has become shorter since it was looked at.
    """
    of_file: dict[str, list[Damage]] = {}
    for damage in damages:
        of_file.setdefault(damage.file, []).append(damage)
    return [_copy_without(tuple(of_file[f])) if f in of_file else f for f in files]


def _verify_one(file: str) -> list[Damage]:
    try:
        stat = tf.io.gfile.stat(file)
        return _damages_of(file, int(stat.length), int(stat.mtime_nsec))
    except tf.errors.OpError as error:
        raise ValueError(f"{file}: cannot be read ({error.message})") from error
    except OSError as error:  # where headers are read
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error


@functools.cache
def _damages_of(file: str, size: int, _changed: int) -> list[Damage]:
    """Read one file to its end: with TensorFlow up to the first damage, if there is one.

    Where a file ends within the first bytes of a record, TensorFlow takes it for whole.
    """
    met = size
    try:
        tf.data.TFRecordDataset(file).reduce(np.int64(0), lambda count, _: count + 1)
    except tf.errors.DataLossError as error:
        match = _POSITION.search(error.message)
        if not match:
            raise
        met = int(match[1])
    found: list[Damage] = []
    position = record = 0
    with _open(file) as reader:
        while (length := _length_at(reader, position, size)) is not None and not _at(position, met):
            position, record = position + _HEADER + length + _BEHIND, record + 1
        while position < size:
            length = _length_at(reader, position, size)
            if length is not None:
                reader.seek(position + _HEADER)
                content, checksum = reader.read(length), reader.read(_BEHIND)
                if crc.masked(content) == int.from_bytes(checksum, "little"):
                    position, record = position + _HEADER + length + _BEHIND, record + 1
                    continue
            found.append(_look_at(reader, file, position, record, size))
            position, record = found[-1].end, record + 1
    return found


def _at(start: int, met: int) -> bool:
    """Whether TensorFlow means a record: it names where it begins, or where its content does."""
    return met in (start, start + _HEADER)


def _look_at(reader: Any, file: str, position: int, record: int, size: int) -> Damage:
    """Say what is wrong with the record at a place, and where the next one is."""
    reader.seek(position)
    length = _checked_length(reader.read(_HEADER))
    if length is None:
        end = _next_record(reader, position + 1, size)
        what = f"its length is damaged, and nothing can be read up to byte {end:,}"
        return Damage(file, record, position, end, what, "")
    left = max(size - position - _HEADER, 0)
    reader.seek(position + _HEADER)
    source_id = _source_id(reader.read(min(length, left)))
    end = position + _HEADER + length + _BEHIND
    if end <= size:
        what = "its content does not fit its checksum"
        return Damage(file, record, position, end, what, source_id)
    what = f"cut off, {length:,} bytes are announced, {left:,} left"
    return Damage(file, record, position, size, what, source_id)


def _length_at(reader: Any, position: int, size: int) -> int | None:
    """What the header of a whole record says; None if it is damaged, or the end is not there."""
    reader.seek(position)
    length = _checked_length(reader.read(_HEADER))
    if length is None or position + _HEADER + length + _BEHIND > size:
        return None
    return length


def _checked_length(header: bytes) -> int | None:
    if len(header) < _HEADER:
        return None
    length, checksum = struct.unpack("<QI", header)
    return length if crc.masked(header[:8]) == checksum else None


def _next_record(reader: Any, start: int, size: int) -> int:
    """Search for bytes that are a record's header: a length that fits, and its checksum."""
    while start + _HEADER < size:
        reader.seek(start)
        window = np.frombuffer(reader.read(_WINDOW + _HEADER), np.uint8)
        rows = np.lib.stride_tricks.sliding_window_view(window, _HEADER)
        lengths = rows[:, :8].copy().view("<u8")[:, 0]
        left = size - start - _HEADER - _BEHIND - np.arange(len(rows), dtype=np.int64)
        places = np.flatnonzero(lengths <= np.maximum(left, 0).astype(np.uint64))
        said = rows[places, 8:].copy().view("<u4")[:, 0]
        places = places[crc.masked_rows(rows[places, :8]) == said]
        if len(places):
            return start + int(places[0])
        start += len(rows)
    return size


def _source_id(content: bytes) -> str:
    """The image id of a damaged record, as far as there is one to be read."""
    try:
        features = columns.of_record(content)
        text = features[schema.IMAGE_SOURCE_ID].bytes_list.value[0].decode()
    except Exception:  # protobuf raises almost anything on damaged content
        return _source_id_of_bytes(content)
    return text if text.isprintable() and len(text) <= schema.SOURCE_ID_BYTES else ""


def _source_id_of_bytes(content: bytes) -> str:
    """Look for the column's name, and for what protobuf writes behind it: tags and lengths."""
    name = schema.IMAGE_SOURCE_ID.encode()
    pattern = re.compile(
        re.escape(name) + rb"\x12[\x02-\x7f]\x0a[\x02-\x7f]\x0a([\x01-\x7f])", re.S
    )
    for match in pattern.finditer(content):
        text = content[match.end() : match.end() + match[1][0]].decode(errors="replace")
        if text.isprintable() and "\ufffd" not in text:
            return text
    return ""


def _may_be_damaged_at(file: str, position: int) -> bool:
    """Whether a record begins there, or the headers before are damaged already."""
    try:
        return any(_at(start, position) for start, _ in headers(file))
    except (ValueError, tf.errors.OpError):
        return True


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="mrcnn_tf-records-")


@functools.cache
def _copy_without(damages: tuple[Damage, ...]) -> str:
    file = damages[0].file
    path = os.path.join(tempfile.mkdtemp(dir=_folder().name), os.path.basename(file))
    try:
        with _open(file) as reader, open(path, "wb") as writer:
            start = 0
            for end, next_start in [*((d.start, d.end) for d in damages), (_size(file), 0)]:
                while start < end:
                    reader.seek(start)
                    part = reader.read(min(_WINDOW, end - start))
                    if not part:
                        raise ValueError(f"{file}: it was cut off while it was read")
                    writer.write(part)
                    start += len(part)
                start = next_start
    except OSError as error:  # of a full disk, Python names no file
        raise OSError(error.errno, error.strerror, file, None, path) from error
    return path


def _size(file: str) -> int:
    return int(tf.io.gfile.stat(file).length)


def _open(file: str) -> Any:
    """Open a file; without a buffer where it lies on a disk, since most of it is hopped over."""
    return open(file, "rb", buffering=0) if os.path.exists(file) else tf.io.gfile.GFile(file, "rb")
