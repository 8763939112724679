"""YOLO's form for segmentation: a text file an image, a line an object, `class x1 y1 x2 y2 ...`.

A line holds one outline, so the form knows neither parts nor holes. They are joined to the first
outline by bridges: lines there and back, which enclose nothing. Who fills outlines by the even-odd
rule, as pycocotools and our converter do, gets exactly the mask's pixels back, parts and holes
included; who paints the outline itself too, as OpenCV does, paints the bridges, a pixel wide.
Without masks, a line is `class x y width height`, the box's centre and size. There are no scores.

Source: Ultralytics' dataset formats "detect" and "segment"; bridges as its converter from COCO
makes them between parts.
"""

import json
from collections.abc import Iterator, Mapping

import numpy as np

from mrcnn_tf.data import pixel_polygons
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.results.found import File, Found, in_order, stem

_MOST_ENDS = 400  # corners of an outline among which a bridge's end is looked for


class Yolo:
    """Writes `data.yaml` and `labels/NAME.txt`; see `found.Form`."""

    one_per_stem = True

    def __init__(self, categories: Mapping[int, str], folder: str) -> None:
        del folder
        self._categories = in_order(categories)
        self._number_of = {identifier: k for k, (identifier, _) in enumerate(self._categories)}

    def of_classes(self) -> Iterator[File]:
        """Yield data.yaml, with the names of the classes."""
        # A text in JSON is one in YAML.
        names = [
            f"  {k}: {json.dumps(name, ensure_ascii=False)}\n"
            for k, (_, name) in enumerate(self._categories)
        ]
        yield "data.yaml", ("names:\n" + "".join(names)).encode()

    def of_image(self, found: Found) -> Iterator[File]:
        """Yield the label file, which is empty if nothing was found."""
        height, width = found.pixels.shape[:2]
        lines = [self._line(detection, height, width) for _, detection in found.detections]
        yield f"labels/{stem(found.name)}.txt", "".join(lines).encode()

    def _line(self, detection: Detection, height: int, width: int) -> str:
        if detection.mask is None:
            y1, x1, y2, x2 = (float(v) for v in detection.box)
            values = np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]])
        else:
            y, x, pixels = detection.mask_crop()
            values = join(pixel_polygons.trace(pixels)) + [x, y]
        # Six decimals: a hundredth of a pixel of a picture 20,000 wide.
        numbers = " ".join(f"{v:.6f}" for v in (values / [width, height]).ravel().tolist())
        return f"{self._number_of[detection.category_id]} {numbers}\n"


def join(outlines: list[np.ndarray]) -> np.ndarray:
    """Join outlines to one by bridges, each near where two of them are nearest.

    Args:
      outlines: int [k, (x, y)] each, one at least.

    Returns:
      int [sum of k and 2 per bridge, (x, y)].
    """
    joined, left = outlines[0], list(outlines[1:])
    while left:
        ends = [_bridge(joined, outline) for outline in left]
        nearest = min(range(len(left)), key=lambda k: ends[k][0])
        _, here, there = ends[nearest]
        outline = np.roll(left.pop(nearest), -there, axis=0)
        joined = np.concatenate([joined[: here + 1], outline, outline[:1], joined[here:]])
    return joined


def _bridge(a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    """Return the squared length of a short bridge, and the corners of a and b that it joins."""
    steps = [-(-len(outline) // _MOST_ENDS) for outline in (a, b)]
    apart = a[:: steps[0], np.newaxis] - b[:: steps[1]]  # [ends of a, ends of b, 2]
    squared = (apart**2).sum(axis=2)
    here, there = np.unravel_index(squared.argmin(), squared.shape)
    return int(squared[here, there]), int(here) * steps[0], int(there) * steps[1]
