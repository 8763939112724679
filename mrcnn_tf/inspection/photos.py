"""Opens every image of a data set once: is it what its annotations say, and what does it show?

A file is read to its end by the decoder of training, in some threads. What stays is a small
picture and 64 bits that tell copies, so memory does not grow with the photos' sizes. Of a JPEG,
only a fraction of the pixels is made, which takes half of the time.
"""

import concurrent.futures
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Finding, Level
from mrcnn_tf.images import near_duplicates, reading, record_image

SMALL_EDGE = 320  # pixels of the small picture's long side
_QUALITY = 85


class Photo(NamedTuple):
    """An image that can be used.

    Attributes:
      image: its entry of the annotations.
      small: a small picture of it as JPEG, in the frame of the annotations.
      bits: of `near_duplicates.hash_of`.
      sha256: of the file, in hex digits.
      change: what the converter does to the file, see `record_image.EncodedImage`.
    """

    image: ImageEntry
    small: bytes
    bits: int
    sha256: str
    change: str

    def pixels(self) -> np.ndarray:
        """Return the small picture, uint8 [h, w, 3] RGB."""
        return np.asarray(Image.open(io.BytesIO(self.small)).convert("RGB"))


def look_at(
    images: Iterable[ImageEntry],
    folder: str,
    exif: record_image.ExifRule,
    threads: int,
    is_done: Callable[[], None],
) -> Iterator[Photo | Finding]:
    """Open images.

    Args:
      images: what the annotations say of them, their names those of files in the folder.
      folder: of the images.
      exif: what the annotations refer to.
      threads: how many images are open at a time.
      is_done: called after each image.

    Yields:
      In the order of the images, each as a Photo, or why it cannot be used.
    """

    def look(image: ImageEntry) -> Photo | Finding:
        try:
            return _look(image, os.path.join(folder, image.file_name), exif)
        except reading.UnusableImageError as error:
            return image.sign(Finding(
                Level.LEFT_OUT, error.kind, image.where, str(error), "image left out", images=1
            ))  # fmt: skip

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for looked in pool.map(look, images):
            is_done()
            yield looked


def _look(image: ImageEntry, path: str, exif: record_image.ExifRule) -> Photo:
    raw = reading.read_bytes(path)
    plan = record_image.plan(raw, image.height, image.width, exif)
    with reading.alone(plan.header):
        if plan.header.kind in ("JPEG", "MPO"):
            pixels = _fraction_of_jpeg(raw, max(image.height, image.width))
        else:
            _, pixels = reading.decode(raw)
        small = Image.fromarray(pixels)
        small.thumbnail((SMALL_EDGE, SMALL_EDGE), Image.Resampling.LANCZOS)
        pixels = np.asarray(small)
    if plan.turned:
        pixels = reading.turn(pixels, plan.header.orientation)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return Photo(
        image,
        buffer.getvalue(),
        near_duplicates.hash_of(pixels),
        hashlib.sha256(raw).hexdigest(),
        plan.change,
    )


def _fraction_of_jpeg(raw: bytes, long_edge: int) -> np.ndarray:
    """Read all of a JPEG and make as few of its pixels as the small picture needs."""
    ratio = next((r for r in (8, 4, 2) if long_edge >= r * SMALL_EDGE), 1)
    try:
        return tf.io.decode_jpeg(raw, channels=3, ratio=ratio).numpy()
    except tf.errors.OpError as error:
        raise reading.UnusableImageError(reading.reason(error)) from error
