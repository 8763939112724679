"""Masks of any size as runs of pixels down their columns, and what joining them takes.

A mask costs 12 bytes a run, about one run a column, whatever the size of the image around it; so
thousands of them fit beside an image of which no whole mask would. NumPy only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.data import rle
from mrcnn_tf.ops import coco_rle


class Rectangle(NamedTuple):
    """Whole pixels [y1, y2) x [x1, x2) of an image."""

    y1: int
    x1: int
    y2: int
    x2: int

    def shared(self, other: "Rectangle") -> "Rectangle":
        """Return what two rectangles have in common; see `is_empty`."""
        low = max(self.y1, other.y1), max(self.x1, other.x1)
        return Rectangle(*low, min(self.y2, other.y2), min(self.x2, other.x2))

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel."""
        return self.y2 <= self.y1 or self.x2 <= self.x1


class ColumnRuns(NamedTuple):
    """A mask: pixels y1 to y2, exclusive, of column x, of each run.

    Attributes:
      x: int32 [r], ascending.
      y1: int32 [r], ascending within a column.
      y2: int32 [r], greater than y1; runs neither overlap nor touch.
    """

    x: np.ndarray
    y1: np.ndarray
    y2: np.ndarray

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int((self.y2 - self.y1).sum(dtype=np.int64))

    @property
    def bounds(self) -> Rectangle:
        """The smallest rectangle that holds all pixels, of which there must be one."""
        return Rectangle(
            int(self.y1.min()), int(self.x[0]), int(self.y2.max()), int(self.x[-1]) + 1
        )

    def clipped(self, to: Rectangle) -> "ColumnRuns":
        """Return the pixels within a rectangle."""
        columns = slice(*np.searchsorted(self.x, [to.x1, to.x2]))
        y1, y2 = np.maximum(self.y1[columns], to.y1), np.minimum(self.y2[columns], to.y2)
        kept = y2 > y1
        return ColumnRuns(self.x[columns][kept], y1[kept], y2[kept])

    def shared_area(self, other: "ColumnRuns") -> int:
        """Return the number of pixels that two masks have in common."""
        if not self.x.size or not other.x.size:
            return 0
        height = int(max(self.y2.max(), other.y2.max()))
        place, covering = _coverage([self, other], height)
        return int(np.diff(place)[covering[:-1] == 2].sum())

    def to_rle(self, height: int, width: int) -> dict:
        """Return COCO's compressed run lengths {"size", "counts"} in an image of this size."""
        return union_to_rle([self], height, width)

    def every(self, step: int) -> "ColumnRuns":
        """Return the mask of every `step`-th row and column: that of `pixels[::step, ::step]`."""
        y1, y2 = -(-self.y1 // step), -(-self.y2 // step)
        kept = (self.x % step == 0) & (y2 > y1)
        x = self.x[kept] // step
        # Runs may touch now.
        return _of_places(*_merged([ColumnRuns(x, y1[kept], y2[kept])], 2**31), 2**31)


def from_rle(mask: dict, top: int = 0, left: int = 0) -> ColumnRuns:
    """Read COCO's compressed run lengths.

    Args:
      mask: {"size": [height, width], "counts": bytes}.
      top: row of another image where this one begins.
      left: column of it.

    Returns:
      The mask in the other image.
    """
    height = int(mask["size"][0])
    bounds = np.cumsum(rle.column_runs_from_string(mask["counts"]))
    starts, ends = bounds[:-1:2], bounds[1::2]
    used = ends > starts
    return _of_places(starts[used], ends[used], height, top, left)


def of_box(box: np.ndarray, within: Rectangle) -> ColumnRuns:
    """Return the pixels that a box (y1, x1, y2, x2) touches within a rectangle."""
    y1, x1 = np.floor(box[:2]).astype(int)
    y2, x2 = np.ceil(box[2:]).astype(int)
    y1, x1, y2, x2 = Rectangle(int(y1), int(x1), int(y2), int(x2)).shared(within)
    x = np.arange(x1, x2 if y2 > y1 else x1, dtype=np.int32)
    return ColumnRuns(x, np.full_like(x, y1), np.full_like(x, y2))


def union_to_rle(masks: Sequence[ColumnRuns], height: int, width: int) -> dict:
    """Return the union of masks as COCO's compressed run lengths.

    Args:
      masks: of one image.
      height: of it.
      width: of it.

    Returns:
      {"size": [height, width], "counts": bytes}.
    """
    starts, ends = _merged(masks, height)
    bounds = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(bounds, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:  # it ends with the image's last pixel
        counts = counts[:-1]
    (text,) = coco_rle.compress(counts, np.array([len(counts)]))
    return {"size": [height, width], "counts": text}


def _of_places(
    starts: np.ndarray, ends: np.ndarray, height: int, top: int = 0, left: int = 0
) -> ColumnRuns:
    """Cut runs over the columns of an image, int64 [n], where one column ends."""
    first_x, first_y = np.divmod(starts, height)
    last_x, last_y = np.divmod(ends - 1, height)
    counts = last_x - first_x + 1
    run = np.repeat(np.arange(len(starts)), counts)
    behind = np.arange(len(run)) - (np.cumsum(counts) - counts)[run]  # columns since its first
    x = first_x[run] + behind
    y1 = np.where(behind == 0, first_y[run], 0)
    y2 = np.where(x == last_x[run], last_y[run] + 1, height)
    return ColumnRuns(*((v + by).astype(np.int32) for v, by in ((x, left), (y1, top), (y2, top))))


def _coverage(masks: Sequence[ColumnRuns], height: int) -> tuple[np.ndarray, np.ndarray]:
    """Count down the columns of an image how many of the masks cover a pixel.

    Args:
      masks: of one image.
      height: of it, or less where no pixel lies lower.

    Returns:
      int64 [2 r] each: places at which the number changes, ascending, and the number from there on.
    """
    columns = [mask.x.astype(np.int64) * height for mask in masks]
    starts = np.concatenate([c + mask.y1 for c, mask in zip(columns, masks, strict=True)])
    ends = np.concatenate([c + mask.y2 for c, mask in zip(columns, masks, strict=True)])
    place = np.concatenate([starts, ends])
    order = np.argsort(place, kind="stable")  # at one place, starts before ends
    change = np.where(order < len(starts), 1, -1)
    return place[order], np.cumsum(change)


def _merged(masks: Sequence[ColumnRuns], height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where runs of the union start and end, int64 [n] each, down all columns as one."""
    place, covering = _coverage(masks, height)
    before = np.concatenate([[0], covering[:-1]]) if covering.size else covering
    return place[(before == 0) & (covering == 1)], place[covering == 0]
