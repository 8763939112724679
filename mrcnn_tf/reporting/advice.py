"""What follows from the numbers, in sentences for who trained the network.

Each rule looks at one thing, says what it saw with its number, and what would help. The numbers at
which a rule speaks are rules of thumb.
"""

import math

import numpy as np

from mrcnn_tf.analysis.coco_numbers import Number
from mrcnn_tf.reporting.history import History
from mrcnn_tf.reporting.scored import Scored

_WIDE = 0.1  # AP; an interval this wide hides most changes
_FEW_IMAGES = 50
_FEW_OBJECTS = 20  # of a category, in validation
_GAIN = 0.03  # AP50; smaller gains are not worth a sentence
_NUM_KINDS = 3  # error kinds that are spoken of
_SIZES = (("small", "32 x 32"), ("large", "96 x 96"))

# {kind of error: (what it is, what would help)}
KINDS = {
    "class": (
        "the object is there, but is called by another category's name",
        "More pictures of the categories that are confused, and a look at their annotations: are "
        "the same things always called the same?",
    ),
    "localisation": (
        "the right category, but the outline or box covers too little or too much of the object",
        "Tighter annotations, larger images in training (task.train_data.short_edges), or longer "
        "training.",
    ),
    "both": (
        "near an object, but of another category and badly placed",
        "Mostly what helps against wrong categories and bad places helps here too.",
    ),
    "duplicate": (
        "an object that was found already is found a second time",
        "A lower overlap at which detections suppress each other (task.model.detection.nms_iou).",
    ),
    "background": (
        "something is seen where nothing is annotated",
        "Look at those images first: often the object is there and its annotation is missing. "
        "Otherwise add pictures of such places without objects.",
    ),
    "missed": (
        "an annotated object is not seen at all",
        "More pictures of such objects, longer training; if they are small, larger images in "
        "training (task.train_data.short_edges) and smaller anchors.",
    ),
}


def advice(scored: Scored, history: History | None = None) -> list[str]:
    """Return what would help, the most important first.

    Args:
      scored: the numbers.
      history: of the training, if there is one.
    """
    if not scored.num_objects:
        return [
            "There is no object in these annotations, so nothing can be scored: annotate some "
            "validation images."
        ]
    if not scored.rows.detections:
        return [
            "The network found nothing at all. Train longer, or check that training went: its loss "
            "should have fallen."
        ]
    if scored.threshold is None:
        return [
            "Nothing that the network found is right: no detection lies on an object of its "
            "category. Train longer, look whether the loss fell, and check the annotations of "
            "training and validation images: do both mean the same by each category?"
        ]
    return [
        *_by_error_kind(scored),
        *_by_confusion(scored),
        *_by_size(scored),
        *_by_category(scored),
        *_by_history(scored, history),
        *_by_calibration(scored),
        *_by_certainty(scored),
    ]


def _by_error_kind(scored: Scored) -> list[str]:
    gains = [(gain or 0.0, kind) for kind, gain in scored.errors.gain.items()]
    return [
        f"{kind.capitalize()} errors cost most: without them, AP50 would be {gain:.2f} higher. "
        f"{KINDS[kind][1]}"
        if k == 0
        else f"{kind.capitalize()} errors cost {gain:.2f} of AP50. {KINDS[kind][1]}"
        for k, (gain, kind) in enumerate(sorted(gains, reverse=True)[:_NUM_KINDS])
        if gain >= _GAIN
    ]


def _by_confusion(scored: Scored) -> list[str]:
    for there, taken, count in scored.confusion.pairs()[:1]:
        if count >= 3:
            return [
                f"{scored.names[there - 1]!r} was taken for {scored.names[taken - 1]!r} {count} "
                "times, the most frequent confusion: compare pictures of both, and annotate more "
                "in which they differ clearly."
            ]
    return []


def _by_size(scored: Scored) -> list[str]:
    numbers = scored.numbers[scored.kind]
    small, large = (numbers.get("ap", size=size) for size, _ in _SIZES)
    rest = large if large.objects >= _FEW_OBJECTS else numbers.get("ap", size="medium")
    if small.value is None or rest.value is None:
        return []
    if min(small.objects, rest.objects) < _FEW_OBJECTS:
        return []
    if rest.value - small.value < _WIDE:
        return []
    return [
        f"Small objects (fewer than {_SIZES[0][1]} pixels) reach AP {small.value:.2f}, larger ones "
        f"{rest.value:.2f}: train on larger images (task.train_data.short_edges), or take photos "
        "from nearer."
    ]


def _by_category(scored: Scored) -> list[str]:
    numbers = scored.numbers[scored.kind]
    measured = [
        (number.value, number, name)
        for k, name in enumerate(scored.names)
        if (number := numbers.get("ap", k + 1)).value is not None
    ]
    said = []
    few = [name for _, number, name in measured if number.objects < _FEW_OBJECTS]
    if few and len(measured) > 1:
        said.append(
            f"{len(few)} of {len(measured)} categories have fewer than {_FEW_OBJECTS} objects here "
            f"({', '.join(few[:5])}{', ...' if len(few) > 5 else ''}): their scores say little. "
            "Annotate more of them."
        )
    if len(measured) > 1:
        value, number, name = min(measured, key=lambda entry: entry[0])
        mean = numbers.get("ap").value or 0.0
        if mean - value > min(_WIDE, mean / 3):
            said.append(
                f"{name!r} is the weakest category (AP {value:.2f}, the mean is {mean:.2f}): more "
                "training pictures of it help more than pictures of the others."
            )
    return said


def _by_history(scored: Scored, history: History | None) -> list[str]:
    if history is None:
        return []
    key = f"{scored.kind}_ap"
    found = [
        (row["step"], row[key])
        for row in history.evaluations
        if math.isfinite(row.get(key, math.nan)) and row[key] >= 0
    ]
    if len(found) < 3:
        return []
    best_step, best = max(found, key=lambda pair: pair[1])
    last_step, last = found[-1]
    width = _width(scored.numbers[scored.kind].get("ap"))
    if width is not None and best - last > max(0.02, width / 2):
        if best_step == history.step:
            take = "This report is of that step: take its checkpoint, "
        elif best_step == history.best_step:
            take = "Take the checkpoint in best/, "
        else:
            take = "Next time "
        return [
            f"The score was best at step {best_step:,} ({best:.2f}) and {last:.2f} at the end: the "
            f"network began to learn its training pictures by heart. {take}train shorter, or add "
            "pictures."
        ]
    if best_step == last_step and last - found[-2][1] > 0.01:
        return ["The score was still rising when training ended: longer training would help."]
    return []


def _width(number: Number) -> float | None:
    """Return how wide an interval is, None if there is none."""
    return None if number.low is None or number.high is None else number.high - number.low


def _by_calibration(scored: Scored) -> list[str]:
    error = scored.calibration.error
    if error is None or error < _WIDE:
        return []
    count = sum(b.count for b in scored.calibration.bins)
    mean = sum(b.mean_score * b.count for b in scored.calibration.bins) / count
    right = sum(b.part_right * b.count for b in scored.calibration.bins) / count
    direction = "surer than it should be" if mean > right else "less sure than it could be"
    return [
        f"The network is {direction}: scores are off by {error:.2f} in the mean. Do not read a "
        "score as a probability; choose by the threshold above."
    ]


def _by_certainty(scored: Scored) -> list[str]:
    numbers = scored.numbers[scored.kind]
    width = _width(numbers.get("ap"))
    images = len(scored.rows.images)
    if width is not None and width < _WIDE and images >= _FEW_IMAGES:
        return []
    if width is None or width < 0.01:
        count = len(np.unique(numbers.matches.object_image))
        return [
            f"There are objects on {count} validation image{'s' if count > 1 else ''}, too few to "
            "tell how much of the score is chance: annotate more of them."
        ]
    return [
        f"On {images} validation images, AP may be {width / 2:.2f} higher or lower by chance: a "
        "smaller change says nothing. More validation images make the score surer, not the "
        "network better."
    ]
