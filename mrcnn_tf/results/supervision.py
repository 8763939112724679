"""From what was found in an image to Roboflow's `supervision`, which is imported only here.

It draws, tracks and counts. It is no dependency: pip install supervision.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn_tf.results.detection import Detection


def to_supervision(detections: Sequence[Detection]) -> Any:
    """Return an image's detections as `supervision.Detections`.

    Masks become whole images, a byte a pixel each, as supervision has them: 100 objects of a photo
    of 12 megapixels take 1.2 GB. Keep those first that are wanted, a list comprehension over them.

    Args:
      detections: of one image.

    Returns:
      `supervision.Detections` of the same order: `xyxy` float32 [n, 4] in pixels, `mask` bool
      [n, height, width] (None without masks), `confidence` float32 [n], `class_id` int64 [n], the
      data set's own ids, and `data["class_name"]` str [n].

    Raises:
      ImportError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision() takes supervision: pip install supervision") from error
    boxes = np.array([d.box for d in detections], np.float32).reshape(-1, 4)  # y1, x1, y2, x2
    return supervision.Detections(
        xyxy=boxes[:, [1, 0, 3, 2]],
        mask=_masks(detections),
        confidence=np.array([d.score for d in detections], np.float32),
        class_id=np.array([d.category_id for d in detections], np.int64),
        data={"class_name": np.array([d.category for d in detections], np.str_)},
    )


def _masks(detections: Sequence[Detection]) -> np.ndarray | None:
    """Return whole masks, bool [n, height, width]; None if there are none."""
    first = detections[0].mask if detections else None
    if first is None:
        return None
    masks = np.zeros((len(detections), *first["size"]), bool)
    for mask, detection in zip(masks, detections, strict=True):
        y, x, pixels = detection.mask_crop()
        mask[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return masks
