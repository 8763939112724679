"""COCO's numbers, over all and per category and size, each with its interval."""

import dataclasses

import numpy as np

from mrcnn_tf.analysis import bootstrap
from mrcnn_tf.analysis.matches import Matches, match
from mrcnn_tf.evaluation import federated, scoring

MEASURES = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}  # IoU thresholds


@dataclasses.dataclass(frozen=True)
class Number:
    """One score.

    Attributes:
      measure: "ap", "ap50" or "ap75".
      category: its number, 0 for the mean over all.
      size: one of `scoring.AREAS`.
      value: 0..1; None where there is no object to measure on.
      low: where its 95% interval begins; None where there is none: with objects on fewer than two
        images, every drawn set that can be measured is the same.
      high: where it ends.
      objects: how many objects it stands on.
    """

    measure: str
    category: int
    size: str
    value: float | None
    low: float | None
    high: float | None
    objects: int


@dataclasses.dataclass(frozen=True)
class CocoNumbers:
    """All scores of boxes or of masks.

    Attributes:
      numbers: every measure, category and size.
      precision: [IoU threshold, 101 recalls, K], all sizes; -1 where there is no object.
      matches: of all sizes.
    """

    numbers: list[Number]
    precision: np.ndarray
    matches: Matches

    def get(self, measure: str, category: int = 0, size: str = "all") -> Number:
        """Return one number."""
        wanted = measure, category, size
        return next(n for n in self.numbers if (n.measure, n.category, n.size) == wanted)


def compute(rows: scoring.Rows, resamples: int = bootstrap.RESAMPLES) -> CocoNumbers:
    """Score, and score drawn sets of images.

    Args:
      rows: ground truth and detections.
      resamples: sets of images to draw.
    """
    precision = scoring.precisions(rows, federated.library_of(rows))
    num_categories = len(rows.category_ids)
    counts = bootstrap.draw(len(rows.images), resamples)
    numbers = []
    of_all = None
    for a, area in enumerate(scoring.AREAS):
        matches = match(rows, area)
        of_all = of_all or matches
        drawn = bootstrap.average_precisions(matches, counts, num_categories)
        objects = np.bincount(matches.object_category, minlength=num_categories + 1)
        images = [
            len(np.unique(matches.object_image[matches.object_category == k]))
            for k in range(1, num_categories + 1)
        ]
        images.insert(0, len(np.unique(matches.object_image)))
        for measure, thresholds in MEASURES.items():
            for category in range(num_categories + 1):
                of = slice(None) if category == 0 else slice(category - 1, category)
                low = high = None
                if images[category] > 1:
                    scores = bootstrap.mean_over(drawn[:, thresholds, of], (1, 2))
                    low, high = bootstrap.interval(scores) or (None, None)
                numbers.append(
                    Number(
                        measure=measure,
                        category=category,
                        size=area,
                        value=_mean_of_measured(precision[thresholds, :, of, a]),
                        low=low,
                        high=high,
                        objects=int(objects[category] if category else objects.sum()),
                    )
                )
    assert of_all is not None
    return CocoNumbers(numbers, precision[..., 0], of_all)


def _mean_of_measured(table: np.ndarray) -> float | None:
    measured = table[table > -1]
    return float(measured.mean()) if measured.size else None
