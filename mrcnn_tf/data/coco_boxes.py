"""Boxes of a COCO file that are no [x, y, width, height] in pixels: found by what contradicts them.

Export tools also write corners, fractions, percentages, centres, or y before x. One such box is
still a rectangle somewhere in the image; the object's mask tells that it is the wrong one, and
which of the other readings it would fit.
"""

from typing import NamedTuple

Rectangle = tuple[float, float, float, float]  # (x1, y1, x2, y2), pixels

_NEAR = 2.0  # pixels: edges that differ by less do not count as different
_CONTRADICTION, _FIT = 0.5, 0.8  # IoU of box and mask: below, not the same thing; above, the same


class Evidence(NamedTuple):
    """What is wrong with a box.

    Attributes:
      kind: a few words, the same for all of the kind.
      value: the box, and what it was compared with.
      reading: what the file seems to hold in place of COCO's boxes; "" if nothing fits.
    """

    kind: str
    value: str
    reading: str


def contradiction(
    bbox: Rectangle, parts: list[Rectangle], height: int, width: int
) -> Evidence | None:
    """Compare an object's box with the rectangle around its mask.

    A box that holds the mask and much more is no contradiction: some data sets draw boxes around
    the hidden parts of an object too.

    Args:
      bbox: (x, y, width, height) as the file has it, pixels.
      parts: the rectangles around the mask's parts; empty if there is no mask to compare with.
      height: of the image, pixels.
      width: likewise.

    Returns:
      What is wrong; None if nothing is.
    """
    x, y, w, h = bbox
    if _is_in_fractions(bbox) and min(height, width) > 8:
        value = f"bbox {list(bbox)} in an image of {width} x {height} (width x height)"
        reading = "fractions of the image's width and height"
        return Evidence("box within one pixel", value, reading)
    if not parts:
        return None
    image = (0.0, 0.0, float(width), float(height))
    box = _intersection((x, y, x + w, y + h), image)
    mask = _intersection(_union(parts), image)
    if _area(mask) <= 0 or _is_same(box, mask, _CONTRADICTION):
        return None
    value = f"bbox {list(bbox)}, but its mask lies in {[round(v, 1) for v in mask]} (x1 y1 x2 y2)"
    for reading, rectangle in _readings(bbox, height, width).items():
        if _is_same(_intersection(rectangle, image), mask, _FIT):
            return Evidence("box contradicts its mask", value, reading)
    for name, factor in (("fractions of the image's size", 1), ("percentages", 0.01)):
        sx, sy = width * factor, height * factor
        mx1, my1, mx2, my2 = _union(parts)
        if _is_same(box, (mx1 * sx, my1 * sy, mx2 * sx, my2 * sy), _FIT):
            return Evidence("box contradicts its mask", value, f"masks in {name}")
    if len(parts) > 1 and any(_is_same(box, _intersection(p, image), _FIT) for p in parts):
        return Evidence("box contradicts its mask", value, "boxes around one of several polygons")
    if _area(_intersection(box, mask)) < _CONTRADICTION * _area(mask):
        return Evidence("box contradicts its mask", value, "")
    return None


class CornersWithoutMasks:
    """Notices that boxes are corners where there are no masks to compare them with.

    If all boxes of a file have their second pair of numbers beyond the first, as corners have,
    and many of them reach out of the image when they are read as COCO's, they are corners.
    """

    def __init__(self) -> None:
        self._num_boxes = self._num_corners = 0
        self.num_outside = 0

    def add(self, bbox: Rectangle, height: int, width: int) -> None:
        """Look at one box, (x, y, width, height) as the file has it."""
        x, y, w, h = bbox
        self._num_boxes += 1
        self._num_corners += w > x and h > y and w <= width + _NEAR and h <= height + _NEAR
        self.num_outside += x + w > width + _NEAR or y + h > height + _NEAR

    def found(self) -> bool:
        """Tell whether the boxes so far are corners: no single one shows it."""
        all_corners = self._num_boxes > 0 and self._num_corners == self._num_boxes
        return all_corners and self.num_outside >= max(3, 0.1 * self._num_boxes)


def _readings(bbox: Rectangle, height: int, width: int) -> dict[str, Rectangle]:
    """Return the rectangles that a box means if it is something else than COCO's."""
    a, b, c, d = bbox
    fx, fy = float(width), float(height)
    px, py = fx / 100, fy / 100
    return {
        "corners [x1, y1, x2, y2]": (a, b, c, d),
        "centres [centre x, centre y, width, height]": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
        "y before x [y, x, height, width]": (b, a, b + d, a + c),
        "corners, y before x [y1, x1, y2, x2]": (b, a, d, c),
        "percentages of the image's width and height": (
            a * px, b * py, (a + c) * px, (b + d) * py
        ),
        "fractions of the image's width and height": (
            a * fx, b * fy, (a + c) * fx, (b + d) * fy
        ),
        "corners in fractions of the image's width and height": (a * fx, b * fy, c * fx, d * fy),
    }  # fmt: skip


def _is_in_fractions(bbox: Rectangle) -> bool:
    """Tell whether a box lies within the first pixel, where no object is."""
    x, y, w, h = bbox
    inside = 0 <= x <= 1 and 0 <= y <= 1 and w <= 1 and h <= 1
    return inside and not all(v.is_integer() for v in bbox)


def _is_same(a: Rectangle, b: Rectangle, least_iou: float) -> bool:
    if max(abs(p - q) for p, q in zip(a, b, strict=True)) <= _NEAR:
        return True
    shared = _area(_intersection(a, b))
    return shared >= least_iou * (_area(a) + _area(b) - shared) and shared > 0


def _intersection(a: Rectangle, b: Rectangle) -> Rectangle:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _union(parts: list[Rectangle]) -> Rectangle:
    x1, y1, x2, y2 = zip(*parts, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _area(rectangle: Rectangle) -> float:
    x1, y1, x2, y2 = rectangle
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
