"""Outlines of a mask as COCO polygons that rasterise back to exactly that mask."""

import numpy as np

# Steps along pixel edges as (dx, dy) in the order right, down, left, up: +1 turns right.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def mask_to_polygons(mask: np.ndarray) -> list[list[int]] | None:
    """Trace the pixel edges around every part of a mask.

    Args:
      mask: bool [H, W].

    Returns:
      One [x1, y1, x2, y2, ...] per part, as `trace` finds them; `None` if some part has a hole,
      which COCO polygons cannot say.
    """
    outlines = trace(mask)
    if any(is_hole(corners) for corners in outlines):
        return None
    return [corners.ravel().tolist() for corners in outlines]


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Trace the pixel edges around every part and every hole of a mask.

    Corners are integers: corner (x, y) is the top left corner of pixel column x, row y. Parts that
    touch only at a corner are separate.

    Args:
      mask: bool [H, W].

    Returns:
      int64 [k, (x, y)] of each outline, in the order of their topmost left pixel; parts run
      clockwise, holes counterclockwise.
    """
    edges = _boundary_edges(mask)
    outlines = []
    while edges:
        outlines.append(_follow(edges, next(iter(edges))))
    return outlines


def is_hole(corners: np.ndarray) -> bool:
    """Whether an outline, int64 [k, (x, y)], runs counterclockwise."""
    return _signed_area(corners) < 0


def _boundary_edges(mask: np.ndarray) -> dict[tuple[int, int, int], None]:
    """Return all edges between inside and outside, inside on the right, as (y, x, direction).

    A dict serves as an ordered set: row by row, so that tracing is deterministic.
    """
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    neighbours = (  # the pixel on the left hand, and where the edge of direction d starts
        (padded[:-2, 1:-1], (0, 0)),
        (padded[1:-1, 2:], (0, 1)),
        (padded[2:, 1:-1], (1, 1)),
        (padded[1:-1, :-2], (1, 0)),
    )
    rows = []
    for direction, (neighbour, (dy, dx)) in enumerate(neighbours):
        y, x = np.nonzero(inside & ~neighbour)
        rows.append(np.stack([y + dy, x + dx, np.full_like(y, direction)], axis=1))
    stacked = np.concatenate(rows)
    order = np.lexsort((stacked[:, 2], stacked[:, 1], stacked[:, 0]))
    return dict.fromkeys(map(tuple, stacked[order].tolist()))


def _follow(edges: dict[tuple[int, int, int], None], start: tuple[int, int, int]) -> np.ndarray:
    """Remove one closed outline from `edges`; return its corners, int [k, (x, y)]."""
    corners = []
    y, x, direction = start
    while (y, x, direction) in edges:
        del edges[(y, x, direction)]
        dx, dy = _STEPS[direction]
        y, x = y + dy, x + dx
        # Turning right first keeps pixels that touch at a corner only in separate outlines.
        for turn in (1, 0, 3):
            if (y, x, (direction + turn) % 4) in edges or (y, x, (direction + turn) % 4) == start:
                break
        if turn:
            corners.append((x, y))
        direction = (direction + turn) % 4
    return np.asarray(corners)


def _signed_area(corners: np.ndarray) -> float:
    """Return the enclosed area, positive for clockwise corners (y points down)."""
    x, y = corners[:, 0], corners[:, 1]
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
