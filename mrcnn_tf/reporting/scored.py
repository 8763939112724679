"""Everything a report says that follows from ground truth and detections alone."""

import dataclasses
import hashlib
import json

from mrcnn_tf.analysis import calibration as calibration_lib
from mrcnn_tf.analysis import coco_numbers, confusion, error_kinds, outcomes, thresholds
from mrcnn_tf.analysis.matches import match
from mrcnn_tf.evaluation import report, scoring
from mrcnn_tf.evaluation.coco import CocoEvaluator

FALLBACK_THRESHOLD = 0.5  # where nothing is right, so that no threshold is better than another


@dataclasses.dataclass(frozen=True)
class Scored:
    """What is calculated. Everything but `numbers` is of `kind`.

    Attributes:
      names: of the categories 1..K, each unique.
      kind: "mask" if the network makes masks, else "box".
      rows: ground truth and detections, numbered.
      image_ids: by number.
      numbers: by "box" and "mask".
      sweep: thresholds of all categories together.
      threshold: with the highest F1; None where nothing is right.
      category_thresholds: the same for each category.
      errors: of all detections.
      shown_errors: of those from the threshold on.
      confusion: from the threshold on.
      calibration: of all detections.
      outcomes: of each image, from the threshold on.
      truth_sha256: of the ground truth.
    """

    names: list[str]
    kind: str
    rows: scoring.Rows
    image_ids: list[int | str]
    numbers: dict[str, coco_numbers.CocoNumbers]
    sweep: thresholds.Sweep
    threshold: thresholds.Threshold | None
    category_thresholds: list[thresholds.Threshold | None]
    errors: error_kinds.ErrorKinds
    shown_errors: error_kinds.ErrorKinds
    confusion: confusion.Confusion
    calibration: calibration_lib.Calibration
    outcomes: list[outcomes.Outcome]
    truth_sha256: str

    @property
    def shown_from(self) -> float:
        """The score from which on the report looks at single detections."""
        return self.threshold.score if self.threshold else FALLBACK_THRESHOLD

    @property
    def num_objects(self) -> int:
        """Objects that count: no crowds."""
        return self.sweep.num_objects


def score(evaluator: CocoEvaluator) -> Scored:
    """Calculate everything.

    Args:
      evaluator: with all detections added.
    """
    kind = evaluator.kinds[-1]
    labels = report.category_labels(evaluator.truth["categories"])
    numbers = {each: coco_numbers.compute(evaluator.rows(each)) for each in evaluator.kinds}
    # Masks with scores of their own are ranked by them, and shown by those of their boxes.
    rows = evaluator.rows(kind, by_mask_score=False)
    matches = match(rows) if evaluator.has_mask_scores else numbers[kind].matches
    swept = thresholds.sweep(matches)
    best = thresholds.best(swept)
    shown_from = best.score if best else FALLBACK_THRESHOLD
    shown = [row for row in rows.detections if row["score"] >= shown_from]
    shown_rows = rows._replace(detections=shown)
    return Scored(
        names=[labels[i] for i in sorted(labels)],
        kind=kind,
        rows=rows,
        image_ids=evaluator.image_ids,
        numbers=numbers,
        sweep=swept,
        threshold=best,
        category_thresholds=[
            thresholds.best(thresholds.sweep(matches, category)) for category in rows.category_ids
        ],
        errors=error_kinds.analyse(rows, matches),
        shown_errors=error_kinds.analyse(shown_rows, match(shown_rows)),
        confusion=confusion.confusion(rows, matches, shown_from),
        calibration=calibration_lib.calibration(rows),
        outcomes=outcomes.outcomes(matches, len(rows.images), shown_from),
        truth_sha256=_sha256(evaluator.truth),
    )


def as_json(scored: Scored) -> dict:
    """Return the numbers as plain values."""

    def threshold(of: thresholds.Threshold | None) -> dict | None:
        if of is None:
            return None
        values = {"precision": of.precision, "recall": of.recall, "f1": of.f1}
        return dataclasses.asdict(of) | values

    names = ("", *scored.names)
    return {
        "kind": scored.kind,
        "images": len(scored.rows.images),
        "objects": scored.num_objects,
        "detections": len(scored.rows.detections),
        "suggested_score_threshold": scored.threshold.score if scored.threshold else None,
        "threshold": threshold(scored.threshold),
        "category_thresholds": {
            name: threshold(of)
            for name, of in zip(scored.names, scored.category_thresholds, strict=True)
        },
        "numbers": table(scored),
        "error_kinds": {
            "counts": scored.errors.counts,
            "counts_from_threshold": scored.shown_errors.counts,
            "ap50": scored.errors.ap50,
            "gain_in_ap50": scored.errors.gain,
            "gain_false_positives": scored.errors.gain_false_positives,
            "gain_false_negatives": scored.errors.gain_false_negatives,
        },
        "confusion": {
            "there": [*scored.names, "(nothing)"],
            "found_as": [*scored.names, "(nothing)"],
            "counts": scored.confusion.counts.tolist(),
        },
        "calibration": dataclasses.asdict(scored.calibration),
        "most_confused": [
            {"there": names[a], "found_as": names[b], "count": n}
            for a, b, n in scored.confusion.pairs()
        ],
        "ground_truth_sha256": scored.truth_sha256,
    }


def table(scored: Scored) -> list[dict]:
    """Return COCO's numbers as rows of `results.csv`."""
    names = ("all", *scored.names)
    return [
        {
            "kind": kind,
            "category": names[number.category],
            "size": number.size,
            "measure": number.measure,
            "value": number.value,
            "low": number.low,
            "high": number.high,
            "objects": number.objects,
        }
        for kind, numbers in scored.numbers.items()
        for number in numbers.numbers
    ]


def _sha256(truth: dict[str, list[dict]]) -> str:
    """Return a hash of images, annotations and categories, whatever file they came from."""
    text = json.dumps(truth, sort_keys=True, default=lambda raw: raw.decode("ascii"))
    return hashlib.sha256(text.encode()).hexdigest()
