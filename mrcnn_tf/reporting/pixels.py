"""The images of a report, found by their ids in records or in a folder."""

import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.data import coco_json, record_files, schema
from mrcnn_tf.images import reading


class Photo(NamedTuple):
    """An image.

    Attributes:
      name: of its file.
      pixels: uint8 [h, w, 3], RGB.
    """

    name: str
    pixels: np.ndarray


def from_records(pattern: str | Sequence[str], source_ids: Collection[str]) -> dict[str, Photo]:
    """Read the images of these ids; what cannot be decoded is left out.

    Args:
      pattern: of the record files.
      source_ids: the ids as text.
    """
    found: dict[str, Photo] = {}
    for example in record_files.examples(record_files.find(pattern)):
        features = example.features
        text = example.source_id.decode("utf-8", "replace")
        if text not in source_ids:
            continue
        names = features[schema.IMAGE_FILENAME].bytes_list.value
        encoded = b"".join(features[schema.IMAGE_ENCODED].bytes_list.value)
        try:
            _, pixels = reading.decode(encoded)
        except reading.UnusableImageError:
            continue
        found[text] = Photo(names[0].decode("utf-8", "replace") if names else text, pixels)
        if len(found) == len(source_ids):
            break
    return found


def from_folder(folder: str, annotations: str, source_ids: Collection[str]) -> dict[str, Photo]:
    """Read the images of these ids; what is not there is left out.

    Args:
      folder: of the images.
      annotations: COCO file that names them.
      source_ids: the ids as text.
    """
    found = {}
    for image in coco_json.read(annotations, include_masks=False).images:
        if image.source_id not in source_ids or not image.file_name:
            continue
        try:
            pixels = reading.read(os.path.join(folder, image.file_name)).pixels
        except (reading.UnusableImageError, OSError):
            continue
        found[image.source_id] = Photo(image.file_name, pixels)
    return found
