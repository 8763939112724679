"""Small images with outlines, as data URIs that stand within a page."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.images import drawing

_MIN_COVER = 0.25  # of a small pixel that a mask must cover: thin parts stay visible
_QUALITY = 80


def small_drawing(
    image: np.ndarray,
    boxes: np.ndarray | Sequence[Sequence[float]] = (),
    masks: Sequence[dict[str, Any] | np.ndarray | None] | None = None,
    names: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    *,
    color_ids: Sequence[int] | None = None,
    is_crowd: Sequence[bool] | None = None,
    frame_hw: tuple[int, int] | None = None,
    long_edge: int = 320,
) -> np.ndarray:
    """Return a small drawing of an image and its objects.

    The image is made small first and the objects are drawn on it then, so lines are as thick on
    a photo of any size.

    Args:
      image: uint8 [h, w, 3] RGB.
      boxes: float [n, (y1, x1, y2, x2)], pixels of the frame, continuous coordinates.
      masks: per object a COCO RLE or a bool array, both of the frame's size, or None.
      names: per object; written beside it.
      scores: per object, 0..1.
      color_ids: per object, picks its colour (`drawing.colors_of`), as category ids do.
      is_crowd: per object; crowd regions are hatched in grey.
      frame_hw: (height, width) that boxes and masks are in, if the image has been made smaller
        already.
      long_edge: pixels of the drawing; images that are smaller keep their size.

    Returns:
      uint8 [h, w, 3] RGB.

    Raises:
      ValueError: lists of different lengths, a mask of another size, no RGB uint8 image.
    """
    frame_hw = frame_hw or image.shape[:2]
    small = Image.fromarray(image)
    small.thumbnail((long_edge, long_edge), Image.Resampling.LANCZOS)
    height, width = small.height, small.width
    scale_yx = np.array([height / frame_hw[0], width / frame_hw[1]])
    return drawing.draw_detections(
        np.asarray(small),
        np.asarray(boxes, np.float64).reshape(-1, 4) * np.tile(scale_yx, 2),
        None if masks is None else [_shrunk(mask, frame_hw, (height, width)) for mask in masks],
        names,
        scores,
        color_ids=color_ids,
        is_crowd=is_crowd,
        enlarge=False,
    )


def data_uri(image: np.ndarray) -> str:
    """Return an image, uint8 [h, w, 3] RGB, as a JPEG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _shrunk(
    mask: dict[str, Any] | np.ndarray | None, frame_hw: Sequence[int], size_hw: tuple[int, int]
) -> np.ndarray | None:
    """Return the mask as bool of the small image's size."""
    if mask is None:
        return None
    if isinstance(mask, dict):
        if isinstance(mask["counts"], list):
            mask = coco_mask.frPyObjects(mask, *mask["size"])
        mask = coco_mask.decode(mask)
    pixels = np.asarray(mask, bool)
    if pixels.shape != tuple(frame_hw):
        raise ValueError(f"mask of {list(pixels.shape)} in a frame of {list(frame_hw)}")
    cover = Image.fromarray(pixels.astype(np.uint8) * 255).resize(
        size_hw[::-1], Image.Resampling.BOX
    )
    return np.asarray(cover) >= 255 * _MIN_COVER
