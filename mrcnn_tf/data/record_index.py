"""Where each record of a set lies, and how large its image is: what the order of images needs.

Files of records can only be read from one end to the other. With an index any record is read
alone, and canvases are known without reading any. It is made by reading the files once, and kept in
their folders (`INDEX_FILE`), so that the next start takes no time; whoever may not write there
makes it at each start.
"""

import concurrent.futures
import contextlib
import hashlib
import io
import os
import re
import uuid
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.data import damage, decoder

INDEX_FILE = "record_index.npz"
AROUND = 16  # bytes of a record that are not its content: length and two checksums
_AT_ONCE = 8  # files
_BLOCK = 4096  # records
# TensorFlow quotes a record that it cannot parse; where that is no UTF-8, Python raises this.
_REFUSALS = (tf.errors.OpError, UnicodeDecodeError)
_SHOWN_FROM = 10**9  # bytes, which take some seconds
_OF_TENSORFLOW = re.compile(r"\{\{.*?\}\} | \[Op:.*", re.DOTALL)  # in its messages


class RecordIndex(NamedTuple):
    """The records of a set, in the order of the files: `n` of them.

    Attributes:
      files: paths.
      file: int32 [n], in which of them each record is.
      offset: int64 [n], the byte at which it begins there.
      length: int64 [n], bytes of its content.
      size_hw: int32 [n, (height, width)] of its image, pixels.
    """

    files: list[str]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    size_hw: np.ndarray

    def digest(self) -> str:
        """Return 16 hex digits that the same records in the same order have, in whatever files."""
        of_all = hashlib.sha256(self.length.astype("<i8").tobytes())
        of_all.update(self.size_hw.astype("<i4").tobytes())
        return of_all.hexdigest()[:16]


class _OfFile(NamedTuple):
    """Of one file: its length in bytes, its time of change, its records' `length` and `size_hw`.

    And what `categories` returns; None in indices of an older version.
    """

    num_bytes: int
    modified: int
    length: np.ndarray
    size_hw: np.ndarray
    num_categories: np.ndarray | None
    categories: np.ndarray | None


# What folders that cannot be written would keep, for this process: {folder: as `_kept` has it}.
_not_kept: dict[str, dict[str, _OfFile]] = {}


def of_files(files: Sequence[str]) -> RecordIndex:
    """Return the index of record files; those that no index is kept of are read to their end.

    What is kept holds as long as a file has the length and the time of change that it had.

    Args:
      files: TFRecord files without compression, on any file system of `tf.io.gfile`.

    Raises:
      ValueError: a file is damaged, or no file of records of images.
    """
    found = _find(files, with_categories=False)
    rows = [found[file] for file in files]
    offsets = [np.cumsum(row.length + AROUND) - row.length - AROUND for row in rows]
    return RecordIndex(
        files=list(files),
        file=np.repeat(np.arange(len(files), dtype=np.int32), [len(row.length) for row in rows]),
        offset=np.concatenate(offsets),
        length=np.concatenate([row.length for row in rows]),
        size_hw=np.concatenate([row.size_hw for row in rows]),
    )


def categories(files: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return which categories the objects of each image have, in the order of `of_files`.

    Args:
      files: as for `of_files`.

    Returns:
      int64 [n], how many different ones each image has; and int64, the data set's own ids, one
      image after the other.

    Raises:
      ValueError: see `of_files`.
    """
    found = _find(files, with_categories=True)
    counts = [np.zeros([0], np.int64), *(found[file].num_categories for file in files)]
    ids = [np.zeros([0], np.int64), *(found[file].categories for file in files)]
    return np.concatenate(counts), np.concatenate(ids)  # type: ignore[arg-type]


def _find(files: Sequence[str], with_categories: bool) -> dict[str, _OfFile]:
    """Return what is known of each file, by path; files of which too little is kept are read."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(os.path.dirname(file), []).append(file)
    found: dict[str, _OfFile] = {}
    for folder, paths in folders.items():
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            stats = dict(zip(paths, pool.map(_stat, paths), strict=True))
        kept = _kept(folder) | _not_kept.get(folder, {})
        for path in paths:
            of_file = kept.get(os.path.basename(path))
            lacks = with_categories and (of_file is None or of_file.categories is None)
            if of_file and (of_file.num_bytes, of_file.modified) == stats[path] and not lacks:
                found[path] = of_file
        missing = [path for path in paths if path not in found]
        if missing:
            found |= _read(missing, {path: stats[path][0] for path in missing})
            kept |= {os.path.basename(path): found[path] for path in paths}
            if not _keep(folder, kept):
                _not_kept[folder] = kept
    return found


def _read(files: list[str], sizes: dict[str, int]) -> dict[str, _OfFile]:
    """Read files to their end, several at once."""
    total = sum(sizes[file] for file in files)
    takes_time = total >= _SHOWN_FROM
    progress = (
        ProgressBar("looking where records begin", total // 10**6, "MB") if takes_time else None
    )
    found = {}
    try:
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            for file, of_file in zip(files, pool.map(_read_one, files), strict=True):
                found[file] = of_file
                if progress:
                    progress.add(sizes[file] // 10**6)
    finally:
        if progress:
            progress.close()
    return found


def _read_one(file: str) -> _OfFile:
    dataset = tf.data.TFRecordDataset(file).map(
        lambda record: (
            tf.strings.length(record),
            tf.ensure_shape(decoder.image_size_hw(record), [2]),
            decoder.categories(record),
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    lengths, sizes = [np.zeros([0], np.int64)], [np.zeros([0, 2], np.int32)]
    counts, ids = [np.zeros([0], np.int64)], [np.zeros([0], np.int64)]
    try:
        for length, size_hw, of_records in dataset.ragged_batch(_BLOCK):
            lengths.append(length.numpy().astype(np.int64))
            sizes.append(size_hw.numpy())
            counts.append(of_records.row_lengths().numpy())
            ids.append(of_records.flat_values.numpy())
    except tf.errors.DataLossError as error:
        what = damage.explain(error.message, [file])
        raise ValueError(what or f"{file}: {_what_is_wrong(file, error)}") from error
    except _REFUSALS as error:
        raise ValueError(f"{file}: {_what_is_wrong(file, error)}") from error
    columns = [np.concatenate(parts) for parts in (lengths, sizes, counts, ids)]
    of_file = _OfFile(*_stat(file), *columns)
    if (of_file.length + AROUND).sum() != of_file.num_bytes:
        # It ends within the first bytes of a record, which TensorFlow takes for its end.
        raise ValueError(damage.describe(damage.verify([file])))
    return of_file


def _what_is_wrong(file: str, error: Exception) -> str:
    """Say which record could not be read, and why."""
    count = 0
    try:
        for record in tf.data.TFRecordDataset(file):
            decoder.image_size_hw(record)
            count += 1
    except _REFUSALS as again:
        error = again
    if isinstance(error, tf.errors.OpError):
        reason = _OF_TENSORFLOW.sub("", error.message.split("\n")[0])
    else:
        reason = "no tf.train.Example of an image"
    return f"record {count + 1:,} cannot be read: {reason}"


def _kept(folder: str) -> dict[str, _OfFile]:
    """Return what a folder's index says of its files, by name; nothing if there is none."""
    path = os.path.join(folder, INDEX_FILE)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            arrays = dict(np.load(io.BytesIO(file.read()), allow_pickle=False))
        names = [str(name) for name in arrays["name"]]
        counts, sizes = arrays["count"].astype(np.int64), arrays["num_bytes"].astype(np.int64)
        modified = arrays["modified"].astype(np.int64)
        length, size_hw = arrays["length"].astype(np.int64), arrays["size_hw"].astype(np.int32)
        if size_hw.shape != (len(length), 2) or counts.sum() != len(length) or counts.min() < 0:
            return {}
        ends = np.cumsum(counts)[:-1]
        of_categories = _kept_categories(arrays, len(names), len(length), ends)
    except (tf.errors.OpError, ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return {}
    rows = zip(
        sizes.tolist(),
        modified.tolist(),
        np.split(length, ends),
        np.split(size_hw, ends),
        *of_categories,
        strict=True,
    )
    return {
        name: _OfFile(*row)
        for name, row in zip(names, rows, strict=True)
        if (row[2] + AROUND).sum() == row[0]
    }


def _kept_categories(
    arrays: dict[str, np.ndarray], num_files: int, num_records: int, ends: np.ndarray
) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
    """Return `_OfFile`'s last two of each file; `ends` int [files - 1], where their records end.

    Raises:
      ValueError: they do not fit together.
      KeyError: they are there in part.
    """
    if "categories" not in arrays:  # an older version
        return [None] * num_files, [None] * num_files
    counts, ids = (arrays[key].astype(np.int64) for key in ("num_categories", "categories"))
    if counts.shape != (num_records,) or counts.min(initial=0) < 0 or counts.sum() != ids.size:
        raise ValueError("categories do not fit")
    of_file = np.split(counts, ends)
    all_ids = np.split(ids, np.cumsum([part.sum() for part in of_file])[:-1])
    return [
        [
            part if known else None
            for part, known in zip(parts, arrays["has_categories"], strict=True)
        ]
        for parts in (of_file, all_ids)
    ]  # type: ignore[return-value]


def _keep(folder: str, of_files: dict[str, _OfFile]) -> bool:
    """Write a folder's index, in one step; False if the folder cannot be written."""
    none = np.zeros([0], np.int64)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        name=np.array(list(of_files)),
        num_bytes=np.array([row.num_bytes for row in of_files.values()], np.int64),
        modified=np.array([row.modified for row in of_files.values()], np.int64),
        count=np.array([len(row.length) for row in of_files.values()], np.int64),
        length=np.concatenate([row.length for row in of_files.values()]),
        size_hw=np.concatenate([row.size_hw for row in of_files.values()]),
        has_categories=np.array([row.categories is not None for row in of_files.values()]),
        num_categories=np.concatenate(
            [
                np.zeros_like(row.length) if row.num_categories is None else row.num_categories
                for row in of_files.values()
            ]
        ),
        categories=np.concatenate(
            [none if row.categories is None else row.categories for row in of_files.values()]
        ),
    )
    path = os.path.join(folder, INDEX_FILE)
    partial = f"{path}.{uuid.uuid4().hex}.partial"  # several machines may start at once
    try:
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(buffer.getvalue())
        tf.io.gfile.rename(partial, path, overwrite=True)
    except tf.errors.OpError as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(partial)
        print(f"  {path}: not kept, each start reads the records again ({error.message})")
        return False
    return True


def _stat(file: str) -> tuple[int, int]:
    """Return the length of a file and when it was changed, in nanoseconds."""
    stat = tf.io.gfile.stat(file)
    return int(stat.length), int(stat.mtime_nsec)
