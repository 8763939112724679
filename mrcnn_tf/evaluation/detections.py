"""Network output to COCO results: from the network-input frame to the stored image."""

from collections.abc import Collection

import numpy as np

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.ops.paste import paste_to_rles

# Shape letters: B images, D detections, M mask side, K keypoints.


def decode_source_id(source_id: np.ndarray) -> str:
    """Return the text of one zero-padded UTF-8 row (uint8 [SOURCE_ID_BYTES]); "" for a filler."""
    return np.asarray(source_id, np.uint8).tobytes().rstrip(b"\0").decode("utf-8")


def to_original_frame(
    boxes: np.ndarray, image_size_hw: np.ndarray, original_size_hw: np.ndarray
) -> np.ndarray:
    """Map boxes from network-input pixels to pixels of the stored image and clip them to it.

    Args:
      boxes: float [..., (y1, x1, y2, x2)], network-input pixels.
      image_size_hw: float [2], the resized image inside the canvas.
      original_size_hw: float [2], the stored image.

    Returns:
      float64 [..., (y1, x1, y2, x2)]. Each axis has its own scale, because resized sizes are
      rounded to whole pixels.
    """
    original = np.asarray(original_size_hw, np.float64)
    scale_yx = original / np.asarray(image_size_hw, np.float64)
    scaled = np.asarray(boxes, np.float64) * np.tile(scale_yx, 2)
    return np.clip(scaled, 0.0, np.tile(original, 2))


def to_coco_results(
    *,
    image_id: int | str,
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray | None,
    original_size_hw: tuple[int, int],
    label_map: LabelMap | None,
    mask_paste: str = "pixel_centres",
    mask_scores: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
    keypoint_category_ids: Collection[int] = (),
) -> list[dict]:
    """Return one image's detections as COCO results; a box without area is none.

    Args:
      image_id: the image's id.
      boxes: float64 [D, (y1, x1, y2, x2)], pixels of the stored image.
      classes: int [D], contiguous, 1..N-1; category ids if there is no label map.
      scores: float [D].
      masks: float [D, M, M], probabilities inside the box, or None.
      original_size_hw: of the stored image.
      label_map: gives the category ids.
      mask_paste: how probabilities become pixels, see `ops/paste.py`.
      mask_scores: float [D], by which masks are ranked, or None.
      keypoints: float64 [D, K, (y, x, score)], pixels of the stored image, or None.
      keypoint_category_ids: of which categories keypoints are wanted.

    Returns:
      [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}] and, with masks,
      "segmentation": compressed RLE, and "mask_score" where there are some; with keypoints, of
      their categories, "keypoints": [x, y, score, ...], the middle of pixel i having the coordinate
      i.

    Raises:
      ValueError: a class that the label map does not have, or a value that is not finite.
    """
    finite = [boxes, scores] if mask_scores is None else [boxes, scores, mask_scores]
    if not all(np.isfinite(values).all() for values in finite):
        raise ValueError(f"image {image_id!r}: a detection's box or score is not finite")
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    category_ids = classes[kept].tolist()
    if label_map:
        for cls in category_ids:
            if not 1 <= cls < label_map.num_classes:
                raise ValueError(
                    f"image {image_id!r}: class {cls} is not in 1..{label_map.num_classes - 1}"
                )
        category_ids = [label_map.ids[cls - 1] for cls in category_ids]
    y1, x1, y2, x2 = boxes[kept].T
    xywh = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist()
    results = [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
        for category_id, box, score in zip(
            category_ids, xywh, scores[kept].astype(np.float64).tolist(), strict=True
        )
    ]
    if masks is not None:
        rles = paste_to_rles(masks[kept], boxes[kept], *original_size_hw, convention=mask_paste)
        for result, rle in zip(results, rles, strict=True):
            result["segmentation"] = rle
    if mask_scores is not None:
        for result, score in zip(results, mask_scores[kept].astype(np.float64), strict=True):
            result["mask_score"] = float(score)
    if keypoints is not None:
        for result, points in zip(results, keypoints[kept], strict=True):
            if result["category_id"] in keypoint_category_ids:
                result["keypoints"] = to_coco_keypoints(points)
    return results


def keypoints_to_original_frame(
    keypoints: np.ndarray, image_size_hw: np.ndarray, original_size_hw: np.ndarray
) -> np.ndarray:
    """Map keypoints from network-input pixels to pixels of the stored image.

    Args:
      keypoints: float [..., (y, x, score)], network-input pixels.
      image_size_hw: float [2], the resized image inside the canvas.
      original_size_hw: float [2], the stored image.

    Returns:
      float64 [..., (y, x, score)].
    """
    scale_yx = np.asarray(original_size_hw, np.float64) / np.asarray(image_size_hw, np.float64)
    return np.asarray(keypoints, np.float64) * [*scale_yx, 1.0]


def to_coco_keypoints(keypoints: np.ndarray) -> list[float]:
    """Return continuous keypoints [K, (y, x, score)] as COCO's list [x, y, score, ...]."""
    y, x, scores = np.asarray(keypoints, np.float64).T
    return np.stack([x - 0.5, y - 0.5, scores], axis=1).ravel().tolist()
