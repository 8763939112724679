"""Proposals in files: what an RPN trained by itself hands to a detector (section 3.1).

A folder holds the proposals of one record set:

    boxes.npy   uint16 [n, (y1, x1, y2, x2)]: fractions of the stored image, 65535 = its far edge;
                image after image, each image's best first
    scores.npy  float16 [n]: objectness logits
    images.npz  "ids": bytes [m], the source ids; "row_splits": int64 [m + 1], image k has the rows
                row_splits[k]:row_splits[k + 1]; "sizes_hw": int32 [m, (height, width)], pixels
    meta.json   "format_version"; "num_images" and "ids_sha256" (of the sorted ids, a line each),
                and "digests" of some images, the fingerprint of the data set; "num_boxes";
                "num_per_image", at most; "made_from", what the writer said of the network

Rounding moves an edge by at most half of 1 / 65535 of the image's side: 0.005 pixels at 640, 0.01
at 1333. A box that has no area after rounding is left out. 118,287 images with 2000 proposals each
are 2.4 GB: on a disk they are memory-mapped, from other file systems they are read into memory.

`proposal_writer.py` writes them.
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import record_files, schema

FORMAT_VERSION = 1
STEPS = 65535  # of an image's side
META = "meta.json"  # written last: where it is, the folder is whole


class ProposalReader:
    """Looks proposals up by image id.

    Attributes:
      folder: its path.
      meta: the contents of meta.json.

    Args:
      folder: what a `ProposalWriter` wrote.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it contradicts itself or has another format.
    """

    def __init__(self, folder: str) -> None:
        meta = os.path.join(folder, META)
        if not tf.io.gfile.exists(meta):
            raise FileNotFoundError(
                f"no proposals in {folder!r}; python -m mrcnn_tf.write_proposals makes them"
            )
        self.folder = folder
        with tf.io.gfile.GFile(meta) as file:
            self.meta: dict[str, Any] = json.loads(file.read())
        version = self.meta["format_version"]
        if version != FORMAT_VERSION:
            raise ValueError(f"{folder}: format version {version}, this reads {FORMAT_VERSION}")
        with np.load(_opened(folder, "images.npz")) as images:
            ids: list[bytes] = images["ids"].tolist()
            self._row_splits, self._sizes_hw = images["row_splits"], images["sizes_hw"]
        boxes = os.path.join(folder, "boxes.npy")
        if os.path.exists(boxes) and self.meta["num_boxes"]:
            self._boxes = np.load(boxes, mmap_mode="r")
        else:
            self._boxes = np.load(_opened(folder, "boxes.npy"))
        self._index = {image_id: k for k, image_id in enumerate(ids)}
        if (
            fingerprint(ids) != self.meta["ids_sha256"]
            or self._boxes.shape != (self.meta["num_boxes"], 4)
            or self._row_splits[-1] != len(self._boxes)
        ):
            raise ValueError(f"{folder}: its files do not belong together; write it anew")

    def lookup(self, source_id: bytes, size_hw: np.ndarray) -> np.ndarray:
        """Return an image's proposals, best first.

        Args:
          source_id: its id, UTF-8.
          size_hw: int [(height, width)], the stored image, pixels.

        Returns:
          uint16 [n, (y1, x1, y2, x2)], in 1 / 65535 of the image.

        Raises:
          ValueError: the image has no entry, or had another size.
        """
        k = self._index.get(source_id)
        if k is None:
            raise ValueError(
                f"image {source_id.decode()!r} has no entry in {self.folder}, which holds the "
                f"proposals of {len(self._index):,} images: it was written for other records"
            )
        if not np.array_equal(self._sizes_hw[k], size_hw):
            now, then = (" x ".join(map(str, hw)) for hw in (size_hw, self._sizes_hw[k]))
            raise ValueError(
                f"image {source_id.decode()!r} is {now} pixels (height x width), but was {then} "
                f"when the proposals in {self.folder} were made: they are of another image"
            )
        return np.asarray(self._boxes[self._row_splits[k] : self._row_splits[k + 1]])

    def join(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return an example's proposals as its `schema.PROPOSAL_BOXES`.

        Args:
          example: a decoded example, as it is stored.

        Raises:
          InvalidArgumentError: (when it runs) see `lookup`.
        """
        size_hw = tf.shape(example[schema.IMAGE])[:2]
        steps = tf.numpy_function(
            self.lookup, [example[schema.SOURCE_ID], size_hw], tf.uint16, stateful=False
        )
        return {schema.PROPOSAL_BOXES: to_pixels(tf.ensure_shape(steps, [None, 4]), size_hw)}

    def check_records(self, files: Sequence[str]) -> None:
        """Refuse a folder that does not belong to a record set.

        Counts the records, of which there may be fewer than images here, and looks up the first
        ones of each file, some 256 in all: by id, image size, and, if they were the first ones
        too when the folder was written, by the image's bytes. Every other image is looked for
        when its turn comes.

        Args:
          files: all files of the record set.

        Raises:
          ValueError: there are more records, or one of those looked up has no entry here, or one of
            another image.
        """
        num_records = record_files.count_records(files)
        if num_records > len(self._index):
            raise ValueError(
                f"{self.folder} holds the proposals of {len(self._index):,} images, but there are "
                f"{num_records:,} records ({files[0]}, ...): it was written for other records"
            )
        for image in record_files.sample_images(files):
            self.lookup(image.source_id, np.array(image.size_hw))
            name = image.source_id.decode()
            if self.meta["digests"].get(name, image.digest) != image.digest:
                raise ValueError(
                    f"image {name!r} of {files[0]}, ... is not the image of this id for which "
                    f"{self.folder} was written: the proposals are of another data set"
                )


def _opened(folder: str, name: str) -> io.BytesIO:
    with tf.io.gfile.GFile(os.path.join(folder, name), "rb") as file:
        return io.BytesIO(file.read())


def to_pixels(boxes: tf.Tensor, size_hw: tf.Tensor) -> tf.Tensor:
    """Turn steps of 1 / 65535 back into pixels.

    Args:
      boxes: uint16 [n, (y1, x1, y2, x2)].
      size_hw: int32 [(height, width)] of the image.

    Returns:
      float32 [n, 4].
    """
    # In this order the far edge is the image's, to the last bit.
    return tf.cast(boxes, tf.float32) / STEPS * tf.tile(tf.cast(size_hw, tf.float32), [2])


def fingerprint(ids: Sequence[bytes]) -> str:
    """Return what tells a data set's image ids, in any order, from those of another."""
    return hashlib.sha256(b"\n".join(sorted(ids))).hexdigest()
