"""What the writers of all forms are given, and what they make of it."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from mrcnn_tf.results.detection import Detection

# A path below the form's own folder, with forward slashes, and what the file holds.
File = tuple[str, bytes]

_MAX_NAME_BYTES = 255  # of file systems


class Found(NamedTuple):
    """What was found in an image.

    Attributes:
      name: of the image, as detections.json has it: a path with forward slashes.
      path: of its file.
      pixels: uint8 [height, width, 3], upright.
      detections: (place among all of the image's detections, detection) of those that are to be
        written, best first. Each has a mask with a pixel at least, or none has a mask.
    """

    name: str
    path: str
    pixels: np.ndarray
    detections: list[tuple[int, Detection]]


class Form(Protocol):
    """A form with files for each image.

    Attributes:
      one_per_stem: whether a.jpg and a.png would share a file.
    """

    one_per_stem: bool

    def __init__(self, categories: Mapping[int, str], folder: str) -> None:
        """Prepare.

        Args:
          categories: names by the data set's own ids.
          folder: where the files will be.

        Raises:
          ValueError: the form cannot hold these.
        """

    def of_classes(self) -> Iterator[File]:
        """Yield the files that every image shares."""

    def of_image(self, found: Found) -> Iterator[File]:
        """Yield the files of an image; may be called from several threads.

        Raises:
          ValueError: the form cannot hold what was found.
        """


def in_order(categories: Mapping[int, str]) -> list[tuple[int, str]]:
    """Return (id, name) of all categories in the order of their ids."""
    return sorted(categories.items())


def stem(name: str) -> str:
    """Return an image's name without its ending."""
    return os.path.splitext(name)[0]


def fitting(name: str, kept: int) -> str:
    """Return a file's name, without folders, cut where it is too long for a file system.

    Args:
      name: of the file.
      kept: bytes at its end that stay. Before them come a few digits of the name's hash then,
        which tell it from others.
    """
    encoded = os.fsencode(name)
    if len(encoded) <= _MAX_NAME_BYTES:
        return name
    end = b"-" + hashlib.sha256(encoded).hexdigest()[:8].encode() + encoded[-kept:]
    # Cut within a letter, what is left of it goes too.
    return encoded[: _MAX_NAME_BYTES - len(end)].decode("utf-8", "ignore") + os.fsdecode(end)
