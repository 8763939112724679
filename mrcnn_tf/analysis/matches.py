"""Which detection found which object: COCO's matching as one table."""

import dataclasses

import numpy as np

from mrcnn_tf.evaluation import federated, scoring

IOU_50 = 0  # place of IoU 0.5 among the ten thresholds


@dataclasses.dataclass(frozen=True)
class Matches:
    """COCO's matching of all images; detections by falling score, ties in the order of images.

    Shape letters: `D` detections, `G` objects that count (no crowds, none of another size), `T` the
    ten IoU thresholds .50:.05:.95.

    Attributes:
      image: int [D].
      category: int [D].
      score: float [D].
      detection_id: int [D].
      is_right: bool [T, D]: it found an object of its category that no surer one found.
      is_ignored: bool [T, D]: neither right nor wrong: it found a crowd, something of a size that
        is not looked at, or nothing where its category is not annotated exhaustively (LVIS).
      found_id: int [D], the annotation that it found at IoU 0.5; 0 for none.
      object_image: int [G].
      object_category: int [G].
      object_id: int [G].
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    detection_id: np.ndarray
    is_right: np.ndarray
    is_ignored: np.ndarray
    found_id: np.ndarray
    object_image: np.ndarray
    object_category: np.ndarray
    object_id: np.ndarray


def match(rows: scoring.Rows, area: str = "all") -> Matches:
    """Match as COCOeval does, with hotcoco.

    Args:
      rows: ground truth and detections.
      area: one of `scoring.AREAS`.
    """
    evaluation = scoring.evaluate(rows, [rows.max_detections], federated.library_of(rows), area)
    num_thresholds = len(evaluation.params.iouThrs)
    cells = [cell for cell in evaluation.evalImgs if cell is not None]
    cells.sort(key=lambda cell: (cell["category_id"], cell["image_id"]))

    def of_detections(key: str, dtype: type) -> np.ndarray:
        """[T, n] of each cell -> [T, D]."""
        shape = num_thresholds, -1
        return np.concatenate(
            [np.zeros([num_thresholds, 0], dtype)]
            + [np.asarray(cell[key], dtype).reshape(shape) for cell in cells if cell["dtIds"]],
            axis=1,
        )

    def flat(key: str, dtype: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype)] + [np.asarray(c[key], dtype) for c in cells])

    def repeated(key: str, of: str) -> np.ndarray:
        """A cell's number, once for each of what it holds."""
        counts = [len(cell[of]) for cell in cells]
        return np.repeat(np.array([cell[key] for cell in cells], np.int64), counts)

    scores = flat("dtScores", np.float64)
    order = np.argsort(-scores, kind="stable")
    found = of_detections("dtMatches", np.int64)[:, order]
    is_ignored = of_detections("dtIgnore", bool)[:, order]
    counts_as_object = ~flat("gtIgnore", bool)
    return Matches(
        image=repeated("image_id", "dtIds")[order],
        category=repeated("category_id", "dtIds")[order],
        score=scores[order],
        detection_id=flat("dtIds", np.int64)[order],
        is_right=(found != 0) & ~is_ignored,
        is_ignored=is_ignored,
        found_id=found[IOU_50],
        object_image=repeated("image_id", "gtIds")[counts_as_object],
        object_category=repeated("category_id", "gtIds")[counts_as_object],
        object_id=flat("gtIds", np.int64)[counts_as_object],
    )
