"""How well anchors fit the objects of a data set: for each object, its best IoU with an anchor.

An RPN learns what lies under its anchors, so an object that none of them fits is hard to find. That
is known before any training, and in no time: within a level, the cell whose anchor overlaps a box
most is the one whose centre is nearest, in each direction by itself, so no grid of anchors is made.

Shape letters: `n` boxes, `K` anchors per cell. Boxes as in `ops/boxes.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.ops import anchors


class Level(NamedTuple):
    """The anchors of one level.

    Attributes:
      stride: pixels of network input per cell.
      cell_anchors: float32 [K, (y1, x1, y2, x2)], around the centre of a cell.
    """

    stride: int
    cell_anchors: np.ndarray


def levels(
    sizes: Sequence[float],
    ratios: Sequence[float],
    strides: Sequence[int],
    rounded: bool = False,
) -> list[Level]:
    """Return the anchors of a network.

    Args:
      sizes: sides of the square anchors, one for each stride; or all at every cell of one stride.
      ratios: height / width.
      strides: of the levels.
      rounded: see `ops.anchors.cell_anchors`.

    Raises:
      ValueError: several strides, but not as many sizes.
    """
    of_levels = [tuple(sizes)] if len(strides) == 1 else [(size,) for size in sizes]
    if len(of_levels) != len(strides):
        raise ValueError(f"{len(strides)} levels need as many anchor sizes, not {list(sizes)}")
    return [
        Level(stride, anchors.cell_anchors(of_level, ratios, rounded))
        for stride, of_level in zip(strides, of_levels, strict=True)
    ]


def best_ious(
    boxes: np.ndarray,
    image_size_hw: np.ndarray,
    levels: Sequence[Level],
    *,
    offset: float = 0.0,
    within_image: bool = False,
) -> np.ndarray:
    """Return the best IoU of each box with any anchor of its image.

    Args:
      boxes: float [n, (y1, x1, y2, x2)], pixels of the network input, within their images.
      image_size_hw: int [n, (height, width)] of the resized image that each box is in. Its canvas
        is taken to be the next multiple of 32.
      levels: the anchors.
      offset: of the centres, in cells, see `ops.anchors.grid_anchors`.
      within_image: count only anchors that do not reach beyond the image, as training with
        `ignore_anchors_across_border` does.

    Returns:
      float64 [n], 0..1; 0 for a box without area.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = np.asarray(image_size_hw, np.float64).reshape(-1, 2)
    canvas = np.ceil(sides / 32) * 32
    best = np.zeros(len(boxes))
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    for stride, cell_anchors in levels:
        for anchor in np.asarray(cell_anchors, np.float64):
            shared = areas > 0  # becomes the area that box and anchor share
            for axis in (0, 1):
                low, high = anchor[axis], anchor[axis + 2]  # from the centre of a cell
                first = np.zeros(len(boxes))
                last = np.ceil(canvas[:, axis] / stride) - 1
                if within_image:
                    first = np.maximum(first, np.ceil(-low / stride - offset))
                    last = np.minimum(last, np.floor((sides[:, axis] - high) / stride - offset))
                middle = (boxes[:, axis] + boxes[:, axis + 2] - low - high) / 2
                cell = np.clip(np.round(middle / stride - offset), first, np.maximum(first, last))
                centre = (cell + offset) * stride
                overlap = np.minimum(boxes[:, axis + 2], centre + high)
                overlap -= np.maximum(boxes[:, axis], centre + low)
                shared = shared * np.where(first <= last, np.maximum(overlap, 0), 0)
            union = areas + np.prod(anchor[2:] - anchor[:2]) - shared
            best = np.maximum(best, shared / union)
    return best
