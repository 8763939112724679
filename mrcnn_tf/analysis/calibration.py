"""Whether a score of 0.8 means right in 8 of 10 cases: calibration, by hotcoco."""

import dataclasses

from mrcnn_tf.evaluation import federated, scoring


@dataclasses.dataclass(frozen=True)
class Bin:
    """Detections whose scores lie in an interval.

    Attributes:
      low: lowest score.
      high: end of the interval; only the last one contains it.
      mean_score: of its detections.
      part_right: of them, how many found an object at IoU 0.5, 0..1.
      count: how many there are.
    """

    low: float
    high: float
    mean_score: float
    part_right: float
    count: int


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far scores are from the truth.

    Attributes:
      error: expected calibration error: by how much score and part that is right differ, in the
        mean over all detections. 0 is perfect. None without detections.
      bins: ten, those without detections left out.
    """

    error: float | None
    bins: list[Bin]


def calibration(rows: scoring.Rows) -> Calibration:
    """Measure; detections that found a crowd do not count.

    Args:
      rows: ground truth and detections.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    evaluation = scoring.evaluate(rows, [rows.max_detections], federated.library_of(rows))
    found = evaluation.calibration(n_bins=10, iou_threshold=0.5)
    bins = [
        Bin(row["bin_lower"], row["bin_upper"], row["avg_confidence"], row["avg_accuracy"], n)
        for row in found["bins"]
        if (n := row["count"])
    ]
    return Calibration(float(found["ece"]) if found["num_detections"] else None, bins)
