"""A picture of each object, cut out: PNG, transparent where the mask is not.

`CATEGORY/NAME-K.png`; K is the object's place among the image's rows in detections.json, from 0 on.
The picture is the smallest that holds the mask; without masks, the box, to whole pixels.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from mrcnn_tf.results.detection import Detection
from mrcnn_tf.results.found import File, Found, fitting

_NOT_IN_NAMES = re.compile(r'[\x00-\x1f<>:"/\\|?*]|^\.+')  # on one file system or another


class Crops:
    """Writes a picture an object; see `found.Form`."""

    one_per_stem = False

    def __init__(self, categories: Mapping[int, str], folder: str) -> None:
        del folder
        self._folder_of = {k: _NOT_IN_NAMES.sub("_", name) or "_" for k, name in categories.items()}

    def of_classes(self) -> Iterator[File]:
        """Yield nothing: classes are folders."""
        return iter(())

    def of_image(self, found: Found) -> Iterator[File]:
        """Yield the pictures."""
        above, last = os.path.split(found.name)
        for place, detection in found.detections:
            end = f"-{place}.png"
            name = os.path.join(above, fitting(last + end, len(end)))
            category = self._folder_of[detection.category_id]
            yield f"{category}/{name}", _picture(found.pixels, detection)


def _picture(pixels: np.ndarray, detection: Detection) -> bytes:
    if detection.mask is None:
        height, width = pixels.shape[:2]
        y, x = np.clip(np.floor(detection.box[:2]).astype(int), 0, [height - 1, width - 1])
        y2, x2 = np.ceil(detection.box[2:]).astype(int)
        image = Image.fromarray(pixels[y : max(y2, y + 1), x : max(x2, x + 1)])
    else:
        y, x, mask = detection.mask_crop()
        h, w = mask.shape
        opaque = mask[..., np.newaxis].astype(np.uint8) * 255
        image = Image.fromarray(np.concatenate([pixels[y : y + h, x : x + w], opaque], axis=2))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
