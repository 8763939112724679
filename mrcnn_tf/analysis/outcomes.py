"""What became of each image at one score threshold: right, wrong, missed."""

import dataclasses

import numpy as np

from mrcnn_tf.analysis.matches import IOU_50, Matches


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One image.

    Attributes:
      image: its number.
      right: indices of the right detections, in the matches.
      wrong: of the wrong ones, by falling score.
      missed: indices of the objects that were not found, in the matches.
      surest_mistake: the highest score of a wrong one; 0 if there is none.
    """

    image: int
    right: list[int]
    wrong: list[int]
    missed: list[int]
    surest_mistake: float

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 1 if nothing is there and nothing was found."""
        total = 2 * len(self.right) + len(self.wrong) + len(self.missed)
        return 2 * len(self.right) / total if total else 1.0


def outcomes(matches: Matches, num_images: int, score: float) -> list[Outcome]:
    """Look at every image, with the detections of this score or more."""
    shown = (matches.score >= score) & ~matches.is_ignored[IOU_50]
    is_right = matches.is_right[IOU_50] & shown
    is_missed = ~np.isin(matches.object_id, matches.found_id[is_right])
    of_image: list[tuple[list[int], list[int], list[int]]] = [
        ([], [], []) for _ in range(num_images)
    ]
    for k in np.flatnonzero(shown).tolist():
        of_image[matches.image[k]][0 if is_right[k] else 1].append(k)
    for k in np.flatnonzero(is_missed).tolist():
        of_image[matches.object_image[k]][2].append(k)
    return [
        Outcome(image, right, wrong, missed, float(matches.score[wrong[0]]) if wrong else 0.0)
        for image, (right, wrong, missed) in enumerate(of_image)
    ]


def best(found: list[Outcome], count: int) -> list[Outcome]:
    """Return the images that went best, of equal ones those with more objects."""
    return sorted(found, key=lambda o: (-o.f1, -len(o.right)))[:count]


def worst(found: list[Outcome], count: int) -> list[Outcome]:
    """Return the images with mistakes that went worst, of equal ones those with more mistakes."""
    bad = [o for o in found if o.wrong or o.missed]
    return sorted(bad, key=lambda o: (o.f1, -len(o.wrong) - len(o.missed)))[:count]


def most_confusing(found: list[Outcome], count: int) -> list[Outcome]:
    """Return the images with the surest mistakes."""
    return sorted((o for o in found if o.wrong), key=lambda o: -o.surest_mistake)[:count]
