"""From which score on a detection should be believed: the threshold with the highest F1.

A high threshold misses objects, a low one shows what is none. F1 = 2 right / (2 right + wrong +
missed) weighs both alike. A detection is right if it finds an object of its category at IoU 0.5.
"""

import dataclasses

import numpy as np

from mrcnn_tf.analysis.matches import IOU_50, Matches


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A threshold and what remains above it.

    Attributes:
      score: believe detections from this score on.
      right: objects found.
      wrong: detections that found none.
      missed: objects not found.
    """

    score: float
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Of what is shown, the part that is right; 0 if nothing is."""
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        """Of the objects, the part that is found; 0 if there are none."""
        return self.right / max(self.right + self.missed, 1)

    @property
    def f1(self) -> float:
        """See the head of this module; 0 where there is nothing."""
        return 2 * self.right / max(2 * self.right + self.wrong + self.missed, 1)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Every threshold that changes something, falling.

    Attributes:
      score: float [n], the scores that occur.
      right: int [n], with all detections of this score or more.
      wrong: int [n].
      num_objects: of the data set.
    """

    score: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    num_objects: int

    @property
    def precision(self) -> np.ndarray:
        """Float [n]."""
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> np.ndarray:
        """Float [n]; 0 if there are no objects."""
        return self.right / max(self.num_objects, 1)

    @property
    def f1(self) -> np.ndarray:
        """Float [n]."""
        return 2 * self.right / (self.right + self.wrong + self.num_objects)


def sweep(matches: Matches, category: int | None = None) -> Sweep:
    """Count right and wrong at every threshold.

    Args:
      matches: of all sizes.
      category: to look at it alone.
    """
    kept = ~matches.is_ignored[IOU_50]
    objects = np.ones(matches.object_id.size, bool)
    if category is not None:
        kept = kept & (matches.category == category)
        objects = matches.object_category == category
    scores, is_right = matches.score[kept], matches.is_right[IOU_50, kept]
    last_of_score = np.append(np.diff(scores) != 0, True)[: scores.size]
    right, wrong = np.cumsum(is_right), np.cumsum(~is_right)
    return Sweep(
        scores[last_of_score], right[last_of_score], wrong[last_of_score], int(objects.sum())
    )


def best(swept: Sweep) -> Threshold | None:
    """Return the threshold with the highest F1, of several the highest; None if nothing is right.

    It lies half way between the lowest score that should be shown and the next one (or 0), so that
    an object of a new image which scores a little less is not lost.
    """
    if not swept.num_objects or not swept.right.any():
        return None
    k = int(np.argmax(swept.f1))
    below = float(swept.score[k + 1]) if k + 1 < swept.score.size else 0.0
    return at(swept, (float(swept.score[k]) + below) / 2)


def at(swept: Sweep, score: float) -> Threshold:
    """Return what a threshold leaves."""
    shown = int((swept.score >= score).sum())
    right = int(swept.right[shown - 1]) if shown else 0
    wrong = int(swept.wrong[shown - 1]) if shown else 0
    return Threshold(score, right, wrong, swept.num_objects - right)
