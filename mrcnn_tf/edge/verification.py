"""The check that follows every export: does the file, in its own runtime, answer as the network?

A converter's exit code says nothing: it has been seen to write files that answer something else.
Pictures go through both, and what is found is compared. Without quantisation with the tolerances
of `serving/verification.py`. With it single detections move, most of all those that the network is
not sure of; so a pair needs its class, an overlap and a like score, and each detection counts as
much as its score. Where records are given, AP is compared too, and for int8 it alone decides.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.edge import device, scored
from mrcnn_tf.edge.formats import INT8
from mrcnn_tf.serving import verification as serving

Picture = tuple[np.ndarray, np.ndarray]  # what `device.fit` returns
Answer = Callable[[np.ndarray, np.ndarray], device.Outputs]


MAX_PICTURES = 8  # that are compared, of those that are given


class Closeness(NamedTuple):
    """How close a quantised file has to come.

    Attributes:
      iou: of a pair's boxes, at least.
      score: by which a pair's scores differ, at most; those of its masks too, if there are some.
      agreement: share of the detections, each counted by its score, that have a partner, at least.
      lost_ap: by which AP is lower than the network's, at most, where records are given.
    """

    iou: float
    score: float
    agreement: float
    lost_ap: float


# float16 rounds weights to 11 bits: boxes move by fractions of a pixel. int8 moves boxes and scores
# visibly; what it costs in AP is measured where records are given.
CLOSENESS = {
    "float16": Closeness(0.9, 0.05, 0.9, 0.005),
    "dynamic": Closeness(0.5, 0.2, 0.8, 0.01),
    "full": Closeness(0.5, 0.2, 0.7, 0.03),
}
LOST_AP = 0.002  # without quantisation


class Verification(NamedTuple):
    """What was compared.

    Attributes:
      num_pictures: how many.
      num_detections: of the network, on all of them.
      agreement: share of the detections of both sides that have a partner, in [0, 1]; quantised,
        counted by their scores.
      max_score_difference: over pairs.
      ap: {"box_ap": (the file's, the network's), ...}; empty without records.
    """

    num_pictures: int
    num_detections: int
    agreement: float
    max_score_difference: float
    ap: dict[str, tuple[float, float]]


def verify(
    name: str,
    file: device.Network,
    expected: Answer,
    pictures: Sequence[Picture],
    records: str = "",
) -> Verification:
    """Compare a file, in its runtime, with the network.

    Args:
      name: of the file, for messages.
      file: the file, loaded; its description says how it is quantised.
      expected: the network, see `graph.reference`.
      pictures: what both are given.
      records: pattern of TFRecord files for AP; "" for none.

    Returns:
      What was found, all within tolerance.

    Raises:
      serving.VerificationError: outputs of other names, types or shapes; other detections; or
        none at all, so that nothing was compared; or a lower AP.
    """
    quantize = file.description["quantize"]
    answers = []
    for number, (image, size_hw) in enumerate(pictures):
        # What lies outside of the picture must not matter.
        noisy = np.random.default_rng(number).integers(0, 256, image.shape, np.uint8)
        noisy[0, : size_hw[0], : size_hw[1]] = image[0, : size_hw[0], : size_hw[1]]
        pair = file.run(noisy, size_hw), expected(image, size_hw)
        _compare_outputs(name, *pair)
        answers.append((*pair, size_hw))
    compare = _exactly if quantize == "none" else _closely
    found = compare(answers, quantize)
    if records:
        found = found._replace(ap=_compare_ap(name, file, expected, records))
        if quantize in INT8 and all(of_network > 0 for _, of_network in found.ap.values()):
            return found  # AP says it all, where the network has one
    least = serving.MIN_MATCHED_FRACTION if quantize == "none" else CLOSENESS[quantize].agreement
    if not found.num_detections:
        raise serving.VerificationError(
            f"{name}: the network found nothing in {found.num_pictures} pictures, so that nothing "
            "could be compared; name some that show what it knows: --pictures"
        )
    if not found.agreement >= least:
        raise serving.VerificationError(
            f"{name}: only {found.agreement:.1%} of what the file and the network find in "
            f"{found.num_pictures} pictures agree, {least:.0%} are needed; the file was not kept"
        )
    return found


def _compare_ap(
    name: str, file: device.Network, expected: Answer, records: str
) -> dict[str, tuple[float, float]]:
    """Return AP of file and network, {"box_ap": (file's, network's), ...}."""
    of_file, of_network = (
        scored.average_precision(answer, records, file.input_hw, file.description)
        for answer in (file.run, expected)
    )
    quantize = file.description["quantize"]
    most = LOST_AP if quantize == "none" else CLOSENESS[quantize].lost_ap
    for kind, ap in of_file.items():
        if not ap >= of_network[kind] - most:
            raise serving.VerificationError(
                f"{name}: {kind} on {records} is {ap:.4f}, and {of_network[kind]:.4f} of the "
                f"network; {most} less would do; the file was not kept"
            )
    return {kind: (ap, of_network[kind]) for kind, ap in of_file.items()}


def _compare_outputs(name: str, actual: device.Outputs, expected: device.Outputs) -> None:
    signs = [{k: (v.dtype.name, v.shape) for k, v in sorted(a.items())} for a in (actual, expected)]
    if signs[0] != signs[1]:
        raise serving.VerificationError(f"{name}: its outputs are {signs[0]}, not {signs[1]}")


_Answers = Sequence[tuple[device.Outputs, device.Outputs, np.ndarray]]


def _exactly(answers: _Answers, _: str) -> Verification:
    """Compare as an exported SavedModel is compared."""
    found = serving.compare_detections(
        _batch([(actual, size_hw) for actual, _, size_hw in answers]),
        _batch([(expected, size_hw) for _, expected, size_hw in answers]),
    )
    return Verification(
        len(answers), found.num_detections, found.matched_fraction, found.max_score_difference, {}
    )


def _batch(outputs: Sequence[tuple[device.Outputs, np.ndarray]]) -> serving.Answer:
    """Put answers together as `serving.compare_detections` wants them."""
    answer = {
        "num_detections": np.array([out["count"] for out, _ in outputs]),
        "detection_boxes": np.stack([out["boxes"] / np.tile(hw, 2) for out, hw in outputs]),
        "detection_class_ids": np.stack([out["classes"] for out, _ in outputs]),
        "detection_scores": np.stack([out["scores"] for out, _ in outputs]),
    }
    if "masks" in outputs[0][0]:
        answer["detection_masks"] = np.stack([out["masks"] for out, _ in outputs])
    if "mask_scores" in outputs[0][0]:
        answer["detection_mask_scores"] = np.stack([out["mask_scores"] for out, _ in outputs])
    return answer


def _closely(answers: _Answers, quantize: str) -> Verification:
    closeness = CLOSENESS[quantize]
    paired = total = 0.0
    num_detections, worst = 0, 0.0
    for actual, expected, _ in answers:
        rows = range(int(expected["count"]))
        left = list(range(int(actual["count"])))
        total += float(sum(expected["scores"][k] for k in rows))
        total += float(sum(actual["scores"][k] for k in left))
        num_detections += len(rows)
        for row in rows:
            close = [(_apart(actual, k, expected, row), k) for k in left]
            close = [
                ((iou, difference), k)
                for (iou, difference), k in close
                if iou >= closeness.iou and difference <= closeness.score
            ]
            if close:
                (_, difference), k = max(close, key=lambda pair: (pair[0][0], -pair[0][1]))
                left.remove(k)
                paired += float(expected["scores"][row] + actual["scores"][k])
                worst = max(worst, difference)
    return Verification(len(answers), num_detections, paired / total if total else 1.0, worst, {})


def _apart(a: device.Outputs, i: int, b: device.Outputs, j: int) -> tuple[float, float]:
    """Return the IoU of two rows' boxes, -1 for other classes, and their scores' difference.

    Of the score and of the mask's score, if there is one, the larger difference.
    """
    if a["classes"][i] != b["classes"][j]:
        return -1.0, np.inf
    first, second = a["boxes"][i].astype(np.float64), b["boxes"][j].astype(np.float64)
    shared = np.prod(
        np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0)
    )
    both = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - shared
    scores = [name for name in ("scores", "mask_scores") if name in b]
    difference = float(np.max([abs(a[name][i] - b[name][j]) for name in scores]))
    return float(shared / both) if both > 0 else 0.0, difference
