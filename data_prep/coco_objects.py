"""Checks one annotation of a COCO file: ids, box, area, crowd flag, segmentation."""

import math
from typing import Any, NamedTuple

import numpy as np

from mrcnn_tf.data.rle import column_runs_from_string

from .problems import BadInputError

# A polygon may reach out of the image, where it is cut off; the rasteriser's memory grows with
# the way it goes there, so a nonsense coordinate must not come that far.
_FARTHEST = 10  # image sides from the image's origin


class ObjectEntry(NamedTuple):
    """One annotation that passed.

    Attributes:
      annotation_id: 64 bits; None if the file has none or no integer.
      category_id: the data set's own.
      bbox: (x, y, width, height), pixels, as the file has it: perhaps beyond the image.
      area: pixels, as the file has it; None if it has none.
      is_crowd: whether the region holds several objects.
      polygons: float64 arrays [x1, y1, x2, y2, ...], at least three points each; or None.
      column_runs: int64 run lengths down the columns of the image; or None.
    """

    annotation_id: int | None
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None
    is_crowd: bool
    polygons: list[np.ndarray] | None
    column_runs: np.ndarray | None


def check(
    row: dict[str, Any], height: int, width: int, category_ids: set[int], include_masks: bool
) -> ObjectEntry:
    """Check one annotation.

    Args:
      row: the annotation's JSON, number lists of its segmentation perhaps as arrays.
      height: of the image, pixels.
      width: of the image, pixels.
      category_ids: those that the file defines.
      include_masks: whether a segmentation is required.

    Raises:
      BadInputError: it cannot be used.
    """
    category_id = parse_integer(row.get("category_id"))
    if category_id not in category_ids or category_id is None:
        value = f"no category has the id {row.get('category_id')!r}"
        raise BadInputError("unknown category", value)
    is_crowd = row.get("iscrowd", 0)
    if is_crowd not in (0, 1):
        raise BadInputError("malformed iscrowd", f"iscrowd {is_crowd!r}; expected 0 or 1")
    bbox = _check_box(row.get("bbox"), height, width)
    area = row.get("area")
    if area is not None and not (_is_number(area) and area >= 0):
        raise BadInputError("malformed area", f"area {area!r}; expected a number, not negative")
    polygons = column_runs = None
    if include_masks:
        segmentation = row.get("segmentation")
        if isinstance(segmentation, dict):
            column_runs = _check_run_lengths(segmentation, height, width)
        else:
            polygons = _check_polygons(segmentation, height, width)
    return ObjectEntry(
        parse_integer(row.get("id")),
        category_id,
        bbox,
        None if area is None else float(area),
        bool(is_crowd),
        polygons,
        column_runs,
    )


def parse_integer(value: Any) -> int | None:
    """Return a 64-bit integer given as such, as 7.0 or as "7"; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        return None
    return value


def to_array(numbers: Any) -> Any:
    """Return a list of finite numbers as float64 or int64 array, anything else as it is."""
    if not isinstance(numbers, list):
        return numbers
    try:
        array = np.asarray(numbers)
    except (ValueError, OverflowError):
        return numbers
    if array.ndim != 1 or array.dtype.kind not in "if" or not np.isfinite(array).all():
        return numbers
    return array


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_box(bbox: Any, height: int, width: int) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise BadInputError("malformed box", f"bbox {_short(bbox)}; expected [x, y, width, height]")
    x, y, box_width, box_height = map(float, bbox)
    if box_width <= 0 or box_height <= 0:
        raise BadInputError("box without area", f"bbox {bbox}")
    if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        value = f"bbox {bbox} in an image of {width} x {height} (width x height)"
        raise BadInputError("box outside the image", value)
    return x, y, box_width, box_height


def _check_polygons(segmentation: Any, height: int, width: int) -> list[np.ndarray]:
    if segmentation is None:
        raise BadInputError("no segmentation", "there is none (--noinclude_masks needs none)")
    if not isinstance(segmentation, list) or not segmentation:
        value = f"segmentation {_short(segmentation)}; expected polygons or run lengths"
        raise BadInputError(
            "empty segmentation" if segmentation == [] else "malformed segmentation", value
        )
    farthest = _FARTHEST * max(height, width)
    for polygon in segmentation:
        if not isinstance(polygon, np.ndarray) or polygon.size % 2:
            value = f"polygon {_short(polygon)}; expected [x1, y1, x2, y2, ...]"
            raise BadInputError("malformed polygon", value)
        if polygon.size < 6:
            value = f"polygon {_short(polygon.tolist())}; expected three points or more"
            raise BadInputError("polygon of less than three points", value)
        if np.abs(polygon).max() > farthest:
            value = f"polygon {_short(polygon.tolist())} in an image of {width} x {height}"
            raise BadInputError("polygon far outside the image", value)
    return segmentation


def _check_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        value = f"size {_short(size)}; expected that of the image, [{height}, {width}]"
        raise BadInputError("run lengths of another size", value)
    if isinstance(counts, str):
        try:
            runs = column_runs_from_string(counts)
        except ValueError as error:
            raise BadInputError(
                "malformed run lengths", f"counts {_short(counts)}: {error}"
            ) from error
    elif isinstance(counts, np.ndarray) and (counts == np.floor(counts)).all():
        runs = counts.astype(np.int64)
    else:
        raise BadInputError("malformed run lengths", f"counts {_short(counts)}; expected integers")
    if (runs < 0).any() or runs.sum() != height * width:
        value = f"counts sum to {runs.sum()}; expected {height} * {width}, none negative"
        raise BadInputError("malformed run lengths", value)
    return runs


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
