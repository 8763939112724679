"""Joins what was found in overlapping tiles of an image to the image's objects.

Two tiles that overlap have both seen what lies in their overlap, so there the pieces of one object
are nearly one mask, and those of two objects are not, however the objects go on elsewhere, whether
they span many tiles, and whether they touch. So pieces are compared there and nowhere else:

1. Of each two tiles, pieces of one category whose masks agree in the overlap (IoU of `AGREEMENT`)
   are one object; the best agreement first, and a piece has one partner at most.
2. A piece that found none and is cut off by its tile's edge in the overlap is a part of the piece
   in which most of it lies there, if that is `AGREEMENT` of it: tiles may see one object as two,
   such as the legs of a U, and a sliver of an object is seen badly.

All pieces that are so connected make an object: its mask is their union, its score the best one,
its box the smallest around theirs. Without masks, boxes are compared alike.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.results import column_runs
from mrcnn_tf.results.column_runs import ColumnRuns, Rectangle
from mrcnn_tf.results.detection import Detection, ImageDetections

AGREEMENT = 0.5
_AT_EDGE = 0.01  # of a tile's side: a mask that ends so near to an edge is cut off there


class Piece(NamedTuple):
    """What was found in a tile.

    Attributes:
      tile: its number.
      detection: with its box in pixels of the whole image, and no mask.
      pixels: the mask in the whole image; without masks, those of the box.
      bounds: of the pixels; None if there is none.
      has_mask: whether `pixels` are a mask's.
    """

    tile: int
    detection: Detection
    pixels: ColumnRuns
    bounds: Rectangle | None
    has_mask: bool


def piece(tile: int, window: Rectangle, detection: Detection) -> Piece:
    """Move a tile's detection into the whole image.

    Args:
      tile: number of the tile.
      window: where in the image it lies.
      detection: in pixels of the tile.
    """
    box = detection.box + np.array([window.y1, window.x1] * 2, np.float64)
    has_mask = detection.mask is not None
    if has_mask:
        assert detection.mask is not None
        pixels = column_runs.from_rle(detection.mask, window.y1, window.x1)
    else:
        pixels = column_runs.of_box(box, window)
    bounds = pixels.bounds if pixels.x.size else None
    keypoints = detection.keypoints
    if keypoints is not None:
        keypoints = keypoints._replace(points=keypoints.points + [window.y1, window.x1])
    moved = detection._replace(box=box, mask=None, keypoints=keypoints)
    return Piece(tile, moved, pixels, bounds, has_mask)


def join(
    pieces: Sequence[Piece], windows: Sequence[Rectangle], height: int, width: int
) -> ImageDetections:
    """Join the pieces of all tiles.

    Args:
      pieces: of all tiles, in any order.
      windows: where each tile lies in the image.
      height: of the image, pixels.
      width: of the image, pixels.

    Returns:
      The image's objects, best first, masks as run lengths of the whole image.
    """
    of_tile: list[dict[int, list[int]]] = [{} for _ in windows]  # places by category
    for k, one in enumerate(pieces):
        if one.bounds is not None:  # a mask without a pixel is nobody's part
            of_tile[one.tile].setdefault(one.detection.category_id, []).append(k)
    groups = _Groups(len(pieces))
    for a, b in _overlapping(windows):
        for category_id in of_tile[a].keys() & of_tile[b].keys():
            pair = of_tile[a][category_id], of_tile[b][category_id]
            for mine, its in _matches(pieces, *pair, windows[a], windows[b]):
                groups.join(mine, its)
    objects = [_object([pieces[k] for k in members], height, width) for members in groups.members()]
    return ImageDetections(sorted(objects, key=lambda found: -found.score))


def _overlapping(windows: Sequence[Rectangle]) -> list[tuple[int, int]]:
    """List all pairs of tiles that share pixels; tiles come in order of their first rows."""
    pairs = []
    for a, first in enumerate(windows):
        for b in range(a + 1, len(windows)):
            if windows[b].y1 >= first.y2:
                break
            if windows[b].x1 < first.x2 and first.x1 < windows[b].x2:
                pairs.append((a, b))
    return pairs


def _meeting(a: Sequence[Rectangle], b: Sequence[Rectangle]) -> list[tuple[int, int]]:
    """List which rectangles of two lists share pixels, as pairs of their places."""
    y1, x1, y2, x2 = np.reshape(a, [-1, 4]).T[..., np.newaxis]  # [a, 1] each
    v1, u1, v2, u2 = np.reshape(b, [-1, 4]).T  # [b] each
    meet = (v1 < y2) & (y1 < v2) & (u1 < x2) & (x1 < u2)
    return [(k, m) for k, m in np.argwhere(meet).tolist()]


class _Seen(NamedTuple):
    """A piece, as far as it lies in the overlap of two tiles."""

    place: int
    pixels: ColumnRuns
    area: int
    bounds: Rectangle


def _matches(
    pieces: Sequence[Piece],
    places_a: Sequence[int],
    places_b: Sequence[int],
    window_a: Rectangle,
    window_b: Rectangle,
) -> list[tuple[int, int]]:
    """Return which pieces of two tiles, of one category, are of one object."""
    overlap = window_a.shared(window_b)
    all_a, all_b = _seen(pieces, places_a, overlap), _seen(pieces, places_b, overlap)
    shared = {
        (all_a[k].place, all_b[m].place): all_a[k].pixels.shared_area(all_b[m].pixels)
        for k, m in _meeting([a.bounds for a in all_a], [b.bounds for b in all_b])
    }
    area = {one.place: one.area for one in (*all_a, *all_b)}
    agreement = {(a, b): common / (area[a] + area[b] - common) for (a, b), common in shared.items()}
    matches: list[tuple[int, int]] = []
    matched: set[int] = set()
    for a, b in sorted(agreement, key=lambda pair: -agreement[pair]):
        if agreement[a, b] >= AGREEMENT and not {a, b} & matched:
            matches.append((a, b))
            matched |= {a, b}
    for seen, mine, other, side in (
        (all_a, window_a, window_b, 0),
        (all_b, window_b, window_a, 1),
    ):
        for one in seen:
            if one.place in matched or not _is_cut(one.bounds, overlap, mine, other):
                continue
            partners = [pair for pair in shared if pair[side] == one.place]
            best = max(partners, key=lambda pair: shared[pair], default=None)
            if best is not None and shared[best] >= AGREEMENT * one.area:
                matches.append(best)
    return matches


def _seen(pieces: Sequence[Piece], places: Sequence[int], overlap: Rectangle) -> list[_Seen]:
    seen = []
    for place in places:
        bounds = pieces[place].bounds
        if bounds is None or bounds.shared(overlap).is_empty:
            continue
        pixels = pieces[place].pixels.clipped(overlap)
        if pixels.x.size:
            seen.append(_Seen(place, pixels, pixels.area, pixels.bounds))
    return seen


def _is_cut(bounds: Rectangle, overlap: Rectangle, mine: Rectangle, other: Rectangle) -> bool:
    """Whether a piece ends in the overlap at an edge of its tile across which the other one sees.

    Args:
      bounds: of the piece, as far as it lies in the overlap.
      overlap: of the two tiles.
      mine: the piece's tile.
      other: the other one.
    """
    near = max(1, round(_AT_EDGE * min(mine.y2 - mine.y1, mine.x2 - mine.x1)))
    low = (bounds.y1 - overlap.y1, bounds.x1 - overlap.x1)
    high = (overlap.y2 - bounds.y2, overlap.x2 - bounds.x2)
    sees_below = (other.y1 < mine.y1, other.x1 < mine.x1)
    sees_above = (other.y2 > mine.y2, other.x2 > mine.x2)
    return any(
        sees and distance < near
        for sees, distance in zip((*sees_below, *sees_above), (*low, *high), strict=True)
    )


class _Groups:
    """Disjoint sets of 0 .. count - 1."""

    def __init__(self, count: int):
        self._above = list(range(count))

    def join(self, a: int, b: int) -> None:
        self._above[self._top(a)] = self._top(b)

    def members(self) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for k in range(len(self._above)):
            groups.setdefault(self._top(k), []).append(k)
        return list(groups.values())

    def _top(self, k: int) -> int:
        while self._above[k] != k:
            self._above[k] = self._above[self._above[k]]  # so that ways stay short
            k = self._above[k]
        return k


def _object(members: Sequence[Piece], height: int, width: int) -> Detection:
    best = max((one.detection for one in members), key=lambda found: found.score)
    boxes = np.stack([one.detection.box for one in members])
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    mask = None
    if members[0].has_mask:
        mask = column_runs.union_to_rle([one.pixels for one in members], height, width)
    # Its keypoints are those of the best piece.
    return best._replace(box=box, mask=mask)
