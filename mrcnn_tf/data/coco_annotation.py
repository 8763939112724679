"""Reads one annotation of a COCO file: ids, box, area, crowd flag, segmentation, keypoints.

What is absent or wrong and follows from the rest is derived: the box and the area from the mask,
the crowd flag as 0. An object whose mask cannot be used keeps its box; one whose box is no box,
or contradicts the mask, is left out, since nobody can tell where it is.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.data import coco_boxes, coco_keypoints, coco_masks, coco_values
from mrcnn_tf.data.coco_boxes import Evidence, Rectangle
from mrcnn_tf.data.coco_masks import Mask
from mrcnn_tf.data.findings import Level

# Of the image's side: float32, in which records hold boxes, does not tell nearer edges apart.
_SMALLEST = 1e-6


class ObjectEntry(NamedTuple):
    """One annotation that passed.

    Attributes:
      annotation_id: 64 bits; None if the file has none or no integer.
      category_id: the data set's own.
      bbox: (x, y, width, height), pixels, as the file has it: perhaps beyond the image.
      area: pixels.
      is_crowd: whether the region holds several objects.
      mask: None if there is none, it cannot be used, or it is not wanted.
      keypoints: float64 [K, (x, y, visibility)], see `coco_keypoints.read`; None if there are none,
        or they cannot be used.
    """

    annotation_id: int | None
    category_id: int
    bbox: Rectangle
    area: float
    is_crowd: bool
    mask: Mask | None
    keypoints: np.ndarray | None = None


class BadAnnotationError(ValueError):
    """An annotation cannot be used: a few words that say of which kind it is, and the value."""

    def __init__(self, kind: str, value: str, evidence: Evidence | None = None) -> None:
        super().__init__(f"{kind}: {value}")
        self.kind, self.value, self.evidence = kind, value, evidence


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads annotations of one file.

    Attributes:
      category_ids: those that the file defines.
      include_masks: whether masks are wanted. They are looked at in any case: box and area are
        derived from them, and checked against them.
      keypoint_names: by the id of each category that has keypoints.
    """

    category_ids: frozenset[int]
    include_masks: bool
    keypoint_names: Mapping[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def read(
        self,
        row: dict[str, Any],
        height: int,
        width: int,
        report: Callable[[Level, str, str, str], None],
    ) -> ObjectEntry:
        """Read one annotation.

        Args:
          row: the annotation's JSON, number lists of its segmentation perhaps as arrays.
          height: of the image, pixels.
          width: of the image, pixels.
          report: called with level, kind, value and remedy of what was repaired or left out.

        Raises:
          BadAnnotationError: it cannot be used.
        """
        category_id = coco_values.integer(row.get("category_id"))
        if category_id is None or category_id not in self.category_ids:
            value = f"no category has the id {coco_values.short(row.get('category_id'))}"
            raise BadAnnotationError("unknown category", value)
        bbox = _box(row.get("bbox"))
        mask = self._mask(row, height, width, report)
        if bbox is None:
            bbox = _box_of_mask(mask, height, width)
            report(Level.REPAIRED, "no bbox", f"it is {list(bbox)}", "taken from the mask")
        else:
            parts = mask.extents(height) if mask else []
            evidence = coco_boxes.contradiction(bbox, parts, height, width)
            if not (evidence and evidence.reading):
                _check_is_inside(bbox, height, width)
            if evidence:
                seems = f"; it would fit as {evidence.reading}" if evidence.reading else ""
                raise BadAnnotationError(evidence.kind, evidence.value + seems, evidence)
        keypoints, names = None, self.keypoint_names.get(category_id)
        if names:
            keypoints = coco_keypoints.read(row, names, height, width, report)
        return ObjectEntry(
            annotation_id=coco_values.integer(row.get("id")),
            category_id=category_id,
            bbox=bbox,
            area=_area(row, bbox, mask, height, width, report),
            is_crowd=_is_crowd(row, report),
            mask=mask if self.include_masks else None,
            keypoints=keypoints,
        )

    def _mask(
        self, row: dict[str, Any], height: int, width: int, report: Callable[..., None]
    ) -> Mask | None:
        try:
            mask, repair = coco_masks.read(row.get("segmentation"), height, width)
        except coco_masks.BadMaskError as error:
            if self.include_masks:
                remedy = "object kept without a mask"
                report(Level.LEFT_OUT, error.kind, f"segmentation: {error.value}", remedy)
            return None
        if repair and self.include_masks:
            is_part = "three points" in repair
            kind = "stray part of a polygon" if is_part else "unusual form of segmentation"
            remedy = "this part left out" if is_part else "read as polygons"
            report(Level.REPAIRED, kind, repair, remedy)
        return mask


def _box(bbox: Any) -> Rectangle | None:
    """Return a box that is one; None if there is none."""
    if bbox is None:
        return None
    values = [coco_values.number(v) for v in bbox] if isinstance(bbox, list | tuple) else []
    if len(values) != 4 or None in values:
        value = f"bbox {coco_values.short(bbox)}; expected four finite numbers"
        raise BadAnnotationError("malformed box", f"{value} [x, y, width, height]")
    x, y, w, h = (float(v) for v in values if v is not None)
    if w <= 0 or h <= 0:
        raise BadAnnotationError("box without area", f"bbox {coco_values.short(bbox)}")
    return x, y, w, h


def _check_is_inside(bbox: Rectangle, height: int, width: int) -> None:
    x, y, w, h = bbox
    seen_w, seen_h = min(x + w, width) - max(x, 0.0), min(y + h, height) - max(y, 0.0)
    if seen_w <= _SMALLEST * width or seen_h <= _SMALLEST * height:
        value = f"bbox {coco_values.short(list(bbox))} in an image of {width} x {height}"
        raise BadAnnotationError("box outside the image", f"{value} (width x height)")


def _box_of_mask(mask: Mask | None, height: int, width: int) -> Rectangle:
    if mask is None:
        raise BadAnnotationError("no bbox", "and no mask that it could be taken from")
    x, y, w, h = coco_mask.toBbox(mask.to_rle(height, width)).tolist()
    if w <= 0 or h <= 0:
        raise BadAnnotationError("no bbox", "and its mask covers no pixel")
    return x, y, w, h


def _area(
    row: dict[str, Any],
    bbox: Rectangle,
    mask: Mask | None,
    height: int,
    width: int,
    report: Callable[..., None],
) -> float:
    """Return the annotation's area, or else the mask's, or else the box's, pixels."""
    area = coco_values.number(row.get("area"))
    if area is not None and area >= 0:
        return area
    if mask:
        area, source = float(coco_mask.area(mask.to_rle(height, width))), "mask"
    else:
        area, source = bbox[2] * bbox[3], "box"
    given = row.get("area")
    kind = "no area" if given is None else "area that is no number of pixels"
    value = f"area {coco_values.short(given)}; it is {area:g}"
    report(Level.REPAIRED, kind, value, f"computed from the {source}")
    return area


def _is_crowd(row: dict[str, Any], report: Callable[..., None]) -> bool:
    is_crowd = row.get("iscrowd", 0)
    if is_crowd in (0, 1):
        return bool(is_crowd)
    repaired = is_crowd == "1"
    kind, value = "iscrowd that is not 0 or 1", f"iscrowd {coco_values.short(is_crowd)}"
    report(Level.REPAIRED, kind, value, f"taken as {int(repaired)}")
    return repaired
