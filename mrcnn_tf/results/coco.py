"""COCO's file of a whole data set: images, annotations, categories, in one file.

Every tool reads it as annotations; each has its score beside it. Masks are polygons that
pycocotools fills to exactly the same pixels, or run lengths where a mask has a hole, which polygons
cannot say. The file grows annotation by annotation, so that memory does not.
"""

import json
from collections.abc import Mapping
from typing import Any

from mrcnn_tf.data import pixel_polygons
from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.results.found import Found, in_order

FILE = "annotations.json"


def head(categories: Mapping[int, str], keypoints: KeypointSet | None = None) -> bytes:
    """Return what stands before the first annotation.

    Args:
      categories: names by the data set's own ids, in the order of the classes.
      keypoints: of some of them.
    """
    of_keypoints: dict[str, Any] = {}
    with_keypoints: list[int] = []
    if keypoints:
        skeleton = [[a + 1, b + 1] for a, b in keypoints.skeleton]
        of_keypoints = {"keypoints": list(keypoints.names), "skeleton": skeleton}
        with_keypoints = [i for k, i in enumerate(categories, 1) if k in keypoints.classes]
    rows = [
        {"id": number, "name": name, **(of_keypoints if number in with_keypoints else {})}
        for number, name in in_order(categories)
    ]
    return b'{"categories": ' + _encoded(rows) + b',\n"annotations": ['


def annotations(found: Found) -> list[dict[str, Any]]:
    """Return what was found in an image; `id` and `image_id` are the caller's to add."""
    return [_annotation(detection) for _, detection in found.detections]


def tail(images: list[tuple[str, int, int]]) -> bytes:
    """Return what stands behind the last annotation.

    Args:
      images: name, height and width of each; the first one's id is 1.
    """
    rows = [
        {"id": k, "file_name": name, "height": height, "width": width}
        for k, (name, height, width) in enumerate(images, start=1)
    ]
    return b'\n],\n"images": ' + _encoded(rows) + b"}\n"


def _annotation(detection: Detection) -> dict[str, Any]:
    row: dict[str, Any] = {
        "category_id": detection.category_id,
        "iscrowd": 0,
        "score": round(detection.score, 6),
    }
    if detection.keypoints is not None:
        count = len(detection.keypoints.points)
        row["keypoints"] = detection.keypoints.to_coco([2] * count)  # 2: there and seen
        row["num_keypoints"] = count
    if detection.mask is None:
        bbox = detection.to_coco("")["bbox"]
        return row | {"bbox": bbox, "area": round(bbox[2] * bbox[3], 3)}
    y, x, pixels = detection.mask_crop()
    polygons = pixel_polygons.mask_to_polygons(pixels)
    segmentation: Any = detection.to_coco("")["segmentation"]
    if polygons is not None:
        shift = (x, y)
        segmentation = [[v + shift[k % 2] for k, v in enumerate(p)] for p in polygons]
    height, width = pixels.shape
    return row | {
        "bbox": [x, y, width, height],
        "area": int(pixels.sum()),
        "segmentation": segmentation,
    }


def _encoded(rows: list[dict[str, Any]]) -> bytes:
    # File names need not be UTF-8: such bytes go out as they came in.
    return json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogateescape")
