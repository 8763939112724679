"""Masks as Pascal VOC and labelme2voc have them: a picture of objects, one of classes, an image.

    class_names.txt              background first, a name a line
    SegmentationObject/a.png     the number of the object a pixel belongs to; 0 is background
    SegmentationClass/a.png      that of its class

A pixel belongs to one object: to the better one where two overlap, the rest is exact. Pictures have
VOC's palette; with more than 254 objects they are of 16 bits. The number 255 is a border in VOC,
and never used. There are no scores.

Source: the VOC2012 development kit, section 3, and its colour map.
"""

import io
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from mrcnn_tf.results.found import File, Found, in_order, stem

_BORDER = 255


class VocMasks:
    """Writes the two pictures of an image; see `found.Form`."""

    one_per_stem = True

    def __init__(self, categories: Mapping[int, str], folder: str) -> None:
        del folder
        self._categories = in_order(categories)
        if len(self._categories) >= _BORDER:
            raise ValueError(
                f"--results=masks: {len(self._categories)} categories; pictures of classes number "
                f"{_BORDER - 1} at most"
            )
        self._number_of = {
            identifier: k for k, (identifier, _) in enumerate(self._categories, start=1)
        }

    def of_classes(self) -> Iterator[File]:
        """Yield class_names.txt."""
        names = ["_background_", *(name for _, name in self._categories)]
        yield "class_names.txt", "".join(f"{name}\n" for name in names).encode()

    def of_image(self, found: Found) -> Iterator[File]:
        """Yield the two pictures.

        Raises:
          ValueError: the network makes no masks.
        """
        objects = np.zeros(found.pixels.shape[:2], np.uint16)
        classes = np.zeros(found.pixels.shape[:2], np.uint8)
        # The best is painted last. Behind 254 comes 256.
        for number, (_, detection) in reversed([*enumerate(found.detections, start=1)]):
            y, x, pixels = detection.mask_crop()
            here = (slice(y, y + pixels.shape[0]), slice(x, x + pixels.shape[1]))
            objects[here][pixels] = number + (number >= _BORDER)
            classes[here][pixels] = self._number_of[detection.category_id]
        name = stem(found.name) + ".png"
        yield f"SegmentationObject/{name}", _png(objects)
        yield f"SegmentationClass/{name}", _png(classes)


def _png(numbers: np.ndarray) -> bytes:
    if numbers.max() < _BORDER:
        picture = Image.fromarray(numbers.astype(np.uint8))
        picture.putpalette(_palette().ravel().tolist())
    else:
        picture = Image.fromarray(numbers)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _palette() -> np.ndarray:
    """Return VOC's colours, uint8 [256, 3]: bit 3 k + c of a number is bit 7 - k of channel c."""
    number, channel = np.arange(256)[:, np.newaxis], np.arange(3)
    bits = [(number >> (3 * k + channel) & 1) << (7 - k) for k in range(3)]
    return np.bitwise_or.reduce(bits).astype(np.uint8)
