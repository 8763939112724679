"""Which category is taken for which: the confusion matrix with background, by hotcoco.

Detections and objects of an image are paired whatever their categories, at IoU 0.5. hotcoco counts
detections that lie in a crowd as wrong; COCO ignores them, so they are left out before.
"""

import dataclasses

import numpy as np

from mrcnn_tf.analysis.matches import IOU_50, Matches
from mrcnn_tf.evaluation import scoring


@dataclasses.dataclass(frozen=True)
class Confusion:
    """The matrix.

    Attributes:
      counts: int [K + 1, K + 1]: rows are what is there, columns what was found; the last row is
        "nothing was there", the last column "nothing was found".
    """

    counts: np.ndarray

    def pairs(self) -> list[tuple[int, int, int]]:
        """Return (category that is there, category it was taken for, how often), most first."""
        k = len(self.counts) - 1
        found = [
            (there + 1, taken + 1, int(self.counts[there, taken]))
            for there in range(k)
            for taken in range(k)
            if there != taken and self.counts[there, taken]
        ]
        return sorted(found, key=lambda pair: -pair[2])


def confusion(rows: scoring.Rows, matches: Matches, score: float) -> Confusion:
    """Count.

    Args:
      rows: ground truth and detections.
      matches: of them, all sizes.
      score: of detections that are looked at, or more.
    """
    chosen = (matches.score >= score) & ~matches.is_ignored[IOU_50]
    shown = set(matches.detection_id[chosen].tolist())
    left = [row for row in rows.detections if row["id"] in shown]
    shown_rows = rows._replace(detections=left)
    evaluation = scoring.evaluate(shown_rows, [rows.max_detections], scoring.library("hotcoco"))
    return Confusion(np.asarray(evaluation.confusion_matrix(iou_thr=0.5)["matrix"], np.int64))
