"""Finds record files, and looks at them without reading them all: how many, the images of some."""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.console import layout
from mrcnn_tf.data import columns, decoder, record_sets, schema


class Image(NamedTuple):
    """What tells an image from others.

    Attributes:
      source_id: UTF-8.
      size_hw: (height, width), pixels, from its header.
      digest: the first 16 hex digits of the SHA-256 of its file.
    """

    source_id: bytes
    size_hw: tuple[int, int]
    digest: str


def patterns(file_pattern: str | Sequence[str]) -> list[str]:
    """Return one pattern or several as a list; commas are letters like others."""
    return [file_pattern] if isinstance(file_pattern, str) else list(file_pattern)


def find(file_pattern: str | Sequence[str]) -> list[str]:
    """Return the files that match, sorted; on any file system that `tf.io.gfile` knows.

    Sets of files, as the converter makes them, have to be whole: see `record_sets.py`.

    Args:
      file_pattern: glob pattern or patterns. A folder of exactly that name is meant before its
        name is taken for a pattern: "my [new] data/train-*" works.

    Raises:
      FileNotFoundError: a pattern matches no file.
      ValueError: files that it means are missing, cut off or not completed.
    """
    files: dict[str, list[str]] = {}
    for pattern in patterns(file_pattern):
        found = _matching(pattern)
        if not found:
            converter = " ".join(layout.data_prep_command("create_coco_tfrecord"))
            raise FileNotFoundError(
                f"no record file matches {pattern!r}. Records are made from a COCO data set by:\n"
                f"  python {converter} --image_dir=IMAGES "
                "--object_annotations_file=ANNOTATIONS.json "
                f"--output_file_prefix={pattern.split('*')[0].rstrip('-.')} --num_shards=32"
            )
        files[pattern] = found
    record_sets.check(files)
    return sorted({path for found in files.values() for path in found})


def _matching(pattern: str) -> list[str]:
    folder, name = os.path.split(pattern)
    if not name or not tf.io.gfile.isdir(folder or "."):
        return [path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path)]
    paths = (
        os.path.join(folder, entry)
        for entry in tf.io.gfile.listdir(folder or ".")
        if record_sets.matches(entry, name)
    )
    return [path for path in paths if not tf.io.gfile.isdir(path)]


def count_records(files: Sequence[str]) -> int:
    """Count the records of TFRecord files; where they lie on a disk, by hopping over them.

    A record is 8 bytes of length, 4 of checksum, the data, and 4 of checksum.
    """
    count = 0
    for file in files:
        if not os.path.exists(file):  # on another file system, where hopping is no faster
            count += int(tf.data.TFRecordDataset(file).reduce(np.int64(0), lambda n, _: n + 1))
            continue
        size, position = os.path.getsize(file), 0
        with open(file, "rb", buffering=0) as reader:
            while position < size:
                reader.seek(position)
                (length,) = struct.unpack("<Q", reader.read(8))
                position += length + 16
                count += 1
    return count


def sample_images(files: Sequence[str], count: int = 256) -> Iterator[Image]:
    """Read the first records of each file, as many of each.

    Args:
      files: TFRecord files.
      count: how many in all, about.

    Yields:
      The image of each.
    """
    per_file = -(-count // len(files))
    for file in files:
        for serialized in tf.data.TFRecordDataset(file).take(per_file):
            parsed = columns.parse(serialized, (schema.IMAGE_SOURCE_ID, schema.IMAGE_ENCODED))
            height, width = decoder.image_size_hw(serialized).numpy().tolist()
            encoded = parsed[schema.IMAGE_ENCODED].numpy()
            yield Image(
                parsed[schema.IMAGE_SOURCE_ID].numpy(),
                (height, width),
                hashlib.sha256(encoded).hexdigest()[:16],
            )
