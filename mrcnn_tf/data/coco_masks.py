"""The `segmentation` of a COCO annotation: polygons or run lengths, checked and rasterised.

The forms that export tools write are brought into one of two: polygons of three points or more, or
run lengths down the columns of the image. Masks are COCO's: pycocotools' rasteriser makes them.
"""

from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.data import coco_values, rle

OTHER_SIZE = "run lengths of another size"  # a kind of fault that may be the image's

# A polygon may reach out of the image, where it is cut off; the rasteriser's memory grows with
# the way it goes there, so a nonsense coordinate must not come that far.
_FARTHEST = 10  # image sides from the image's origin


class BadMaskError(ValueError):
    """A segmentation cannot be used: a few words that say of which kind it is, and the value."""

    def __init__(self, kind: str, value: str) -> None:
        super().__init__(f"{kind}: {value}")
        self.kind, self.value = kind, value


class Mask(NamedTuple):
    """A segmentation that can be rasterised: one of polygons and column runs.

    Attributes:
      polygons: float64 or int64 arrays [x1, y1, x2, y2, ...], at least three points each; or None.
      column_runs: int64 run lengths down the columns of the image; or None.
    """

    polygons: list[np.ndarray] | None
    column_runs: np.ndarray | None

    def to_rle(self, height: int, width: int) -> dict[str, Any]:
        """Return COCO's compressed run lengths, {"size": [height, width], "counts": bytes}."""
        if self.column_runs is not None:
            runs = {"size": [height, width], "counts": self.column_runs.tolist()}
            return coco_mask.frPyObjects(runs, height, width)
        polygons = [polygon.tolist() for polygon in self.polygons or ()]
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))

    def to_crop(self, height: int, width: int) -> rle.CropRuns:
        """Return the mask as records hold it.

        Polygons go through the rasteriser on the whole image, since moving them first would round
        their edges differently; its run lengths are cut without decoding them.
        """
        if self.column_runs is not None:
            return rle.crop_from_column_runs(self.column_runs, height)
        runs = rle.column_runs_from_string(self.to_rle(height, width)["counts"])
        return rle.crop_from_column_runs(runs, height)

    def extents(self, height: int) -> list[tuple[float, float, float, float]]:
        """Return (x1, y1, x2, y2) of each polygon, or of the run lengths if they hold a pixel.

        Pixels; polygons may reach out of the image.
        """
        if self.column_runs is not None:
            y, x, crop_height, crop_width = rle.bounds_of_column_runs(self.column_runs, height)
            return [(x, y, x + crop_width, y + crop_height)] if crop_width else []
        return [
            (float(p[::2].min()), float(p[1::2].min()), float(p[::2].max()), float(p[1::2].max()))
            for p in self.polygons or ()
        ]


def read(segmentation: Any, height: int, width: int) -> tuple[Mask, str]:
    """Check a segmentation.

    Args:
      segmentation: the JSON value; its lists of numbers may be arrays already.
      height: of the image, pixels.
      width: likewise.

    Returns:
      The mask, and what was repaired in it ("" for nothing).

    Raises:
      BadMaskError: it cannot be used.
    """
    if isinstance(segmentation, dict):
        return Mask(None, _run_lengths(segmentation, height, width)), ""
    if segmentation is None:
        raise BadMaskError("no segmentation", "there is none")
    if not isinstance(segmentation, list):
        value = f"{coco_values.short(segmentation)}; expected polygons or run lengths"
        raise BadMaskError("malformed segmentation", value)
    if not len(segmentation):
        raise BadMaskError("empty segmentation", "[]")
    polygons, repair = _list_of_polygons(segmentation)
    outlines = [polygon for polygon in polygons if not _is_stray(polygon)]
    if len(outlines) < len(polygons):
        stray = next(polygon for polygon in polygons if _is_stray(polygon))
        if not outlines:
            value = f"polygon {coco_values.short(stray)}; expected three points or more"
            raise BadMaskError("polygon of less than three points", value)
        repair = f"polygon {coco_values.short(stray)} has less than three points"
    farthest = _FARTHEST * max(height, width)
    for polygon in outlines:
        if not isinstance(polygon, np.ndarray) or polygon.size % 2:
            value = f"polygon {coco_values.short(polygon)}; expected [x1, y1, x2, y2, ...]"
            raise BadMaskError("malformed polygon", value)
        if np.abs(polygon).max() > farthest:
            value = f"polygon {coco_values.short(polygon)} in an image of {width} x {height}"
            raise BadMaskError("polygon far outside the image", value)
    return Mask(outlines, None), repair


def compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Turn the number lists of an annotation, or of its run lengths, into arrays, in place.

    To be called by the JSON parser for each object: an array takes a quarter of a list's memory.
    """
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):
        entry["segmentation"] = [coco_values.array(polygon) for polygon in segmentation]
    if isinstance(entry.get("counts"), list):
        entry["counts"] = coco_values.array(entry["counts"])
    return entry


def _list_of_polygons(segmentation: Any) -> tuple[list[Any], str]:
    """Return a list of flat polygons out of the ways in which tools nest them, and a repair."""
    is_flat = isinstance(segmentation[0], int | float)
    flat = coco_values.array(segmentation) if is_flat else None
    if isinstance(flat, np.ndarray):
        return [flat], "one flat list of coordinates instead of a list of polygons"
    polygons = [coco_values.array(polygon) for polygon in segmentation]
    if len(polygons) > 2 and all(isinstance(p, np.ndarray) and p.size == 2 for p in polygons):
        return [np.concatenate(polygons)], "points as pairs instead of flat lists"
    joined = [_join_pairs(polygon) for polygon in polygons]
    changed = any(a is not b for a, b in zip(polygons, joined, strict=True))
    return joined, "points as pairs instead of flat lists" if changed else ""


def _join_pairs(polygon: Any) -> Any:
    """Return [[x, y], [x, y], ...] as a flat array, anything else as it is."""
    if not isinstance(polygon, list) or not polygon:
        return polygon
    pairs = [coco_values.array(pair) for pair in polygon]
    if all(isinstance(pair, np.ndarray) and pair.size == 2 for pair in pairs):
        return np.concatenate(pairs)
    return polygon


def _is_stray(polygon: Any) -> bool:
    """Tell whether a part has less than three points, so that it covers nothing."""
    if isinstance(polygon, np.ndarray):
        return polygon.size < 6
    return polygon is None or polygon == []


def _run_lengths(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    size, counts = segmentation.get("size"), coco_values.array(segmentation.get("counts"))
    sides = [coco_values.integer(side) for side in size] if isinstance(size, list | tuple) else None
    if sides != [height, width]:
        value = f"size {coco_values.short(size)}; expected that of the image, [{height}, {width}]"
        raise BadMaskError(OTHER_SIZE, value)
    if isinstance(counts, str | bytes):
        try:
            runs = rle.column_runs_from_string(counts)
        except ValueError as error:
            value = f"counts {coco_values.short(counts)}: {error}"
            raise BadMaskError("malformed run lengths", value) from error
    elif isinstance(counts, np.ndarray) and (counts == np.floor(counts)).all():
        runs = counts
    else:
        value = f"counts {coco_values.short(counts)}; expected integers"
        raise BadMaskError("malformed run lengths", value)
    num_pixels = height * width
    # Each by itself first: nonsense is not to overflow the sum.
    if (runs < 0).any() or (runs > num_pixels).any() or runs.sum() != num_pixels:
        value = f"counts {coco_values.short(counts)}; expected a sum of {height} * {width}"
        raise BadMaskError("malformed run lengths", f"{value}, none negative")
    return runs.astype(np.int64)
