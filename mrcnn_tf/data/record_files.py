"""Finds record files, and looks at them without reading them all: how many, the images of some."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import message

from mrcnn_tf.console import layout
from mrcnn_tf.data import columns, damage, decoder, record_sets, schema


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

    Raises:
      ValueError: a file is damaged.
    """
    count = 0
    for file in files:
        if os.path.exists(file):
            count += sum(1 for _ in damage.headers(file))
        else:  # on another file system, where hopping is no faster
            count += sum(1 for _ in read([file]))
    return count


def read(files: Sequence[str]) -> Iterator[bytes]:
    """Yield all records, in the order of the files.

    Raises:
      ValueError: a record is damaged; names file and place.
    """
    for file in files:
        num_bytes = 0
        try:
            for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
                num_bytes += damage.length_in_file(record)
                yield record
        except tf.errors.OpError as error:
            raise ValueError(damage.explain(error.message, [file]) or error.message) from error
        if num_bytes != tf.io.gfile.stat(file).length:  # it ends within the first bytes of a record
            raise ValueError(damage.describe(damage.verify([file])))


class Example(NamedTuple):
    """One record.

    Attributes:
      where: file and number, for messages.
      features: its columns, see `schema.py`.
      source_id: UTF-8.
    """

    where: str
    features: Mapping[str, tf.train.Feature]
    source_id: bytes


def examples(files: Sequence[str]) -> Iterator[Example]:
    """Yield all records, in the order of the files.

    Raises:
      ValueError: one is damaged, no `tf.train.Example`, or has no image id; names file and place.
    """
    for file in files:
        for number, serialized in enumerate(read([file]), start=1):
            where = f"{file}: record {number:,}"
            try:
                features = columns.of_record(serialized)
            except (message.DecodeError, ValueError) as error:
                raise ValueError(f"{where} is no tf.train.Example of an image") from error
            source_ids = features[schema.IMAGE_SOURCE_ID].bytes_list.value
            if len(source_ids) != 1:
                what = f"{len(source_ids)} values in {schema.IMAGE_SOURCE_ID!r}"
                raise ValueError(f"{where} is no image: {what}, expected 1")
            yield Example(where, features, source_ids[0])


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
