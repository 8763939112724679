"""Gives the objects of a film numbers that stay: tracking by the overlap of boxes.

An object is the one of an earlier frame whose box, moved on as it moved until then, overlaps it
most, if both have the same category. Nothing is learnt, and what an object looks like plays no
part; so an object that was away for long comes back under a new number.

Pairs are taken greedily, the largest overlap first. The assignment that makes the sum of all
overlaps largest (the Hungarian method) would need a solver, and gives up a sure pair for two
doubtful ones: of the overlaps [[0.9, 0.5], [0.5, 0]] it takes 0.5 and 0.5. Where objects move
little between two frames there is nothing to choose: 1 - IoU is a metric, so if the boxes of a
category overlap one another by at most t, as they do behind non-maximum suppression, at most one
of them overlaps a given track by more than (1 + t) / 2.

Source: Bochinski et al. 2017, "High-Speed Tracking-by-Detection Without Using Image Information".
Theirs has no movement; here it lets objects keep their numbers where they cross.
"""

import collections
from collections.abc import Sequence

import numpy as np

MIN_IOU = 0.3  # of a box and a track, to be the same object
MEMORY_SECONDS = 1.0  # how long an object may be away, if that is more than one frame
_MOVEMENT_SECONDS = 0.5  # the movement is the mean over this time: boxes tremble


class Tracker:
    """Numbers objects from frame to frame, 1, 2, 3, ... in the order in which they appear."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._num_tracks = 0

    def update(self, time: float, boxes: np.ndarray, categories: Sequence[int]) -> list[int]:
        """Number the objects of the next frame.

        Args:
          time: of the frame in seconds, larger than that of the last one.
          boxes: float [n, (y1, x1, y2, x2)] in pixels of the frame, the best detection first; new
            objects are numbered in this order.
          categories: [n], ids.

        Returns:
          The number of each object, [n]; those of a frame differ.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        owners: list[_Track | None] = [None] * len(boxes)
        for track, k in self._pairs(time, boxes, categories):
            owners[k] = track
            track.see(time, boxes[k])
        self._tracks = [t for t in self._tracks if time - t.last_seen < MEMORY_SECONDS]
        for k, category in enumerate(categories):
            if owners[k] is None:
                self._num_tracks += 1
                owners[k] = track = _Track(self._num_tracks, category, time, boxes[k])
                self._tracks.append(track)
        return [track.number for track in owners if track is not None]

    def _pairs(
        self, time: float, boxes: np.ndarray, categories: Sequence[int]
    ) -> list[tuple["_Track", int]]:
        """Pair tracks with boxes, each at most once."""
        expected = np.array([track.expected_box(time) for track in self._tracks])
        same = np.equal.outer([t.category for t in self._tracks], np.asarray(categories))
        ious = np.where(same, _ious(expected.reshape(-1, 4), boxes), 0.0)  # [T, n]
        pairs: list[tuple[_Track, int]] = []
        while ious.size and ious.max() >= MIN_IOU:
            # Of equal ones the first: the older track, the better detection.
            row, column = np.unravel_index(ious.argmax(), ious.shape)
            pairs.append((self._tracks[row], int(column)))
            ious[row, :] = ious[:, column] = 0.0
        return pairs


class _Track:
    """An object.

    Attributes:
      number: its own.
      category: its id.
      last_seen: time of the last frame with it, seconds.
    """

    def __init__(self, number: int, category: int, time: float, box: np.ndarray):
        self.number = number
        self.category = category
        self._seen: collections.deque[tuple[float, np.ndarray]] = collections.deque([(time, box)])

    @property
    def last_seen(self) -> float:
        return self._seen[-1][0]

    def see(self, time: float, box: np.ndarray) -> None:
        """Note where it is now."""
        self._seen.append((time, box))
        while len(self._seen) > 2 and time - self._seen[0][0] > _MOVEMENT_SECONDS:
            self._seen.popleft()

    def expected_box(self, time: float) -> np.ndarray:
        """Return where its box should be: [(y1, x1, y2, x2)]."""
        (first_time, first), (last_time, last) = self._seen[0], self._seen[-1]
        if len(self._seen) == 1:
            return last
        moved_yx = (last[:2] + last[2:] - first[:2] - first[2:]) / 2
        return last + np.tile(moved_yx * (time - last_time) / (last_time - first_time), 2)


def _ious(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the IoU of every two boxes: [n, 4], [m, 4] -> [n, m]."""
    top_left = np.maximum(left[:, None, :2], right[None, :, :2])  # [n, m, (y, x)]
    bottom_right = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(axis=-1)
    areas_left, areas_right = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (left, right))
    return shared / np.maximum(areas_left[:, None] + areas_right - shared, 1e-9)
