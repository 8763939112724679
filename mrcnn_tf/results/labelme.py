"""labelme's form: a JSON file an image, to be opened and corrected there.

A part of a mask is a polygon along its pixels' edges; parts of one object share a `group_id`. An
object with a hole is a shape of the type `mask`, its pixels as PNG, which labelme knows since 5.3.
Either way the pixels are exactly the mask's. Without masks, an object is a rectangle. The score is
in `description`.
"""

import base64
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from mrcnn_tf.data import pixel_polygons
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.results.found import File, Found, stem

_VERSION = "5.5.0"  # of labelme, as whose files these are to be read


class Labelme:
    """Writes `NAME.json`; see `found.Form`."""

    one_per_stem = True

    def __init__(self, categories: Mapping[int, str], folder: str) -> None:
        del categories  # labels stand in each file
        self._folder = folder

    def of_classes(self) -> Iterator[File]:
        """Yield nothing: there is no file of classes."""
        return iter(())

    def of_image(self, found: Found) -> Iterator[File]:
        """Yield the JSON file."""
        name = stem(found.name) + ".json"
        shapes = []
        for place, detection in found.detections:
            shapes += _shapes(detection, group=place + 1)
        height, width = found.pixels.shape[:2]
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": self._from(name, found),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        text = json.dumps(content, ensure_ascii=False, indent=1)
        yield name, text.encode("utf-8", "surrogateescape")

    def _from(self, name: str, found: Found) -> str:
        """Return the image's path, seen from its JSON file; of another file system, its name."""
        if "://" in found.path or "://" in self._folder:
            return found.name
        here = os.path.realpath(os.path.dirname(os.path.join(self._folder, name)))
        folder, file = os.path.split(found.path)  # of a link, the link: it has the image's name
        return os.path.join(os.path.relpath(os.path.realpath(folder), here), file)


def _shapes(detection: Detection, group: int) -> list[dict[str, Any]]:
    if detection.mask is None:
        y1, x1, y2, x2 = (float(v) for v in detection.box)
        return [_shape(detection, "rectangle", [[x1, y1], [x2, y2]])]
    y, x, pixels = detection.mask_crop()
    outlines = pixel_polygons.trace(pixels)
    if any(map(pixel_polygons.is_hole, outlines)):
        height, width = pixels.shape
        corners = [[float(x), float(y)], [float(x + width - 1), float(y + height - 1)]]
        return [_shape(detection, "mask", corners, mask=_png(pixels))]
    number = group if len(outlines) > 1 else None
    return [
        _shape(detection, "polygon", (corners + [x, y]).astype(float).tolist(), group_id=number)
        for corners in outlines
    ]


def _shape(
    detection: Detection, kind: str, points: list[list[float]], **more: Any
) -> dict[str, Any]:
    return {
        "label": detection.category,
        "points": points,
        "group_id": None,
        "description": f"{detection.score:.3f}",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    } | more


def _png(pixels: np.ndarray) -> str:
    """Return a mask as labelme puts it into its JSON: a PNG of zeros and ones in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
