"""What is wrong with what was found, and how much mending each kind of error would give: TIDE.

Bolya, Foley, Hays, Hoffman: "TIDE: A General Toolbox for Identifying Object Detection Errors",
ECCV 2020, section 2. With an IoU threshold of 0.5 for a match and of 0.1 for background, each wrong
detection is one of

    class         on an object (IoU >= 0.5), but of another category
    localisation  near an object of its category (0.1 <= IoU < 0.5)
    both          near an object of another category (0.1 <= IoU < 0.5)
    duplicate     on an object of its category that a surer detection found already
    background    on nothing (IoU < 0.1 with every object)

and each object that was not found, and that mending class or localisation would not find, is
missed. Where two kinds fit, the order is that of the authors' code: localisation, class,
duplicate, then background or both.

What mending a kind would give is AP50 with those errors mended, less AP50. A detection with the
wrong class or place is made right, of several for one object the surest; the others and those
of the other kinds are taken away. Missed objects are taken away, as if the network were as
precise on them as on those it finds. As in the authors' code, the surest detection for an object
is chosen among class and localisation errors together, and what comes out below 0 (which the 101
recalls can do) is 0.

Three things differ from the authors' code. Detections that found a crowd are no errors here,
because COCO does not count them. A category whose objects were all missed is left out of the mean
when they are taken away, as COCO leaves out categories without objects; theirs counts it as 0 if
something was detected as it, and hotcoco's `tide_errors`, which agrees in everything else, always
does, so that mending would seem to bring nothing for a category that was never found. And AP is
the number of COCO's libraries to 1e-14.
"""

import dataclasses

import numpy as np
from pycocotools import mask as coco_mask

from mrcnn_tf.analysis.average_precision import average_precision
from mrcnn_tf.analysis.matches import IOU_50, Matches
from mrcnn_tf.evaluation import scoring

KINDS = ("class", "localisation", "both", "duplicate", "background", "missed")
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
_MENDED = ("class", "localisation")  # the kinds that are made right; others are taken away


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A wrong detection.

    Attributes:
      index: of the detection, in the matches.
      kind: one of `KINDS`.
      object_index: of the object that it should have found, in the matches; -1 for none.
    """

    index: int
    kind: str
    object_index: int


@dataclasses.dataclass(frozen=True)
class ErrorKinds:
    """All errors.

    Attributes:
      wrong: detections that are wrong, by falling score.
      missed: indices of the objects that are missed, in the matches.
      ap50: mean over the categories; None without objects.
      gain: {kind: AP50 that mending it would give; None if nothing was found at all}.
      gain_false_positives: the same for taking away all that is wrong.
      gain_false_negatives: the same for all objects that were not found.
    """

    wrong: list[Wrong]
    missed: list[int]
    ap50: float | None
    gain: dict[str, float | None]
    gain_false_positives: float | None
    gain_false_negatives: float | None

    @property
    def counts(self) -> dict[str, int]:
        """How many errors there are of each kind."""
        counts = dict.fromkeys(KINDS, 0)
        for error in self.wrong:
            counts[error.kind] += 1
        return counts | {"missed": len(self.missed)}


def analyse(rows: scoring.Rows, matches: Matches) -> ErrorKinds:
    """Sort errors into kinds, and mend each kind.

    Args:
      rows: ground truth and detections.
      matches: of them, all sizes.
    """
    wrong, missed = classify(rows, matches)
    is_right = matches.is_right[IOU_50]
    num_objects = np.bincount(matches.object_category, minlength=len(rows.category_ids) + 1)
    is_found = np.isin(matches.object_id, matches.found_id[is_right])
    kept = ~matches.is_ignored[IOU_50]

    def ap(
        category: np.ndarray, right: np.ndarray, there: np.ndarray, lost: np.ndarray
    ) -> float | None:
        left = num_objects - np.bincount(matches.object_category[lost], minlength=len(num_objects))
        return _mean_ap(category, right, there, left)

    nothing = np.zeros(matches.object_id.size, bool)
    before = ap(matches.category, is_right, kept, nothing)

    def gained(*mended: np.ndarray) -> float | None:
        after = ap(*mended)
        return None if before is None or after is None else max(0.0, after - before)

    gain = {}
    surest = _surest(wrong, is_found)
    for kind in KINDS[:-1]:
        category, right, there = matches.category.copy(), is_right.copy(), kept.copy()
        for error in wrong:
            if error.kind != kind:
                continue
            if kind in _MENDED and surest.get(error.object_index) == error.index:
                category[error.index] = matches.object_category[error.object_index]
                right[error.index] = True
            else:
                there[error.index] = False
        gain[kind] = gained(category, right, there, nothing)
    lost = nothing.copy()
    lost[missed] = True
    gain["missed"] = gained(matches.category, is_right, kept, lost)
    return ErrorKinds(
        wrong=wrong,
        missed=missed,
        ap50=before,
        gain=gain,
        gain_false_positives=gained(matches.category, is_right, kept & is_right, nothing),
        gain_false_negatives=gained(matches.category, is_right, kept, ~is_found),
    )


def classify(rows: scoring.Rows, matches: Matches) -> tuple[list[Wrong], list[int]]:
    """Sort errors into kinds.

    Returns:
      The wrong detections by falling score, and the indices of the missed objects.
    """
    shape = {"bbox": "bbox", "segm": "segmentation"}[rows.iou_type]
    annotation = {row["id"]: row[shape] for row in rows.annotations}
    detection = {row["id"]: row[shape] for row in rows.detections}
    is_wrong = ~matches.is_right[IOU_50] & ~matches.is_ignored[IOU_50]
    wrong = []
    for image in np.unique(matches.image[is_wrong]).tolist():
        found = np.flatnonzero(is_wrong & (matches.image == image))
        objects = np.flatnonzero(matches.object_image == image)
        iou = np.zeros([found.size, objects.size])
        if objects.size:
            iou = coco_mask.iou(
                [detection[i] for i in matches.detection_id[found].tolist()],
                [annotation[i] for i in matches.object_id[objects].tolist()],
                [0] * objects.size,
            )
            iou = np.nan_to_num(iou)  # of two masks without a pixel
        is_same = matches.category[found, None] == matches.object_category[None, objects]
        for row, index in enumerate(found.tolist()):
            kind, column = _kind(iou[row], is_same[row])
            wrong.append(Wrong(index, kind, int(objects[column]) if column >= 0 else -1))
    wrong.sort(key=lambda error: error.index)
    is_found = np.isin(matches.object_id, matches.found_id[matches.is_right[IOU_50]])
    mendable = {error.object_index for error in wrong if error.kind in _MENDED}
    missed = [k for k in np.flatnonzero(~is_found).tolist() if k not in mendable]
    return wrong, missed


def _kind(iou: np.ndarray, is_same: np.ndarray) -> tuple[str, int]:
    """Return the kind of one wrong detection, and which object it should have found.

    Args:
      iou: float [g], with each object of the image.
      is_same: bool [g], whether the object is of the detection's category.
    """
    if not iou.size:
        return "background", -1
    same, other = np.where(is_same, iou, 0.0), np.where(is_same, 0.0, iou)
    if BACKGROUND_IOU <= same.max() < FOREGROUND_IOU:
        return "localisation", int(same.argmax())
    if other.max() >= FOREGROUND_IOU:
        return "class", int(other.argmax())
    if same.max() >= FOREGROUND_IOU:
        return "duplicate", int(same.argmax())
    if other.max() >= BACKGROUND_IOU:
        return "both", int(other.argmax())
    return "background", -1


def _surest(wrong: list[Wrong], is_found: np.ndarray) -> dict[int, int]:
    """Return, per object that is not found, the surest detection that mending would put there."""
    surest: dict[int, int] = {}
    for error in wrong:  # by falling score
        if error.kind in _MENDED and not is_found[error.object_index]:
            surest.setdefault(error.object_index, error.index)
    return surest


def _mean_ap(
    category: np.ndarray, is_right: np.ndarray, there: np.ndarray, num_objects: np.ndarray
) -> float | None:
    """Return AP50 over the categories that have objects, None if none has.

    Args:
      category: int [D], by falling score.
      is_right: bool [D].
      there: bool [D], those that count.
      num_objects: int [K + 1], by category.
    """
    aps = []
    for k in np.flatnonzero(num_objects).tolist():
        right = is_right[there & (category == k)]
        ones = np.ones([1, right.size], np.int64)
        aps.append(float(average_precision(right, ones, num_objects[k : k + 1])[0]))
    return float(np.mean(aps)) if aps else None
