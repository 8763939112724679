"""Two opinions on how weights must be used: an experiment's, and the file's or its project's."""

import math
from collections.abc import Mapping
from typing import Any

from mrcnn_tf.weights import conventions
from mrcnn_tf.weights.recognize import Recognized

# Fields that weights do not carry: those of training, and how many detections are wanted.
FREE = frozenset(
    {
        "preset",
        "num_classes",
        "max_instances",
        "ignore_crowds",
        "detection.score_threshold",
        "detection.soft_nms_sigma",
        "fpn.frozen",
        "backbone.freeze_at",
        "backbone.norm_momentum",
        "backbone.weights",
        "rpn.positive_iou",
        "rpn.negative_iou",
        "rpn.anchors_per_image",
        "rpn.positive_fraction",
        "rpn.pre_nms_top_k_train",
        "rpn.post_nms_top_k_train",
        "rpn.smooth_l1_beta",
        "rpn.ignore_anchors_across_border",
        "rpn.loss_normalizer",
        "box_head.rois_per_image",
        "box_head.positive_fraction",
        "box_head.positive_iou",
        "box_head.smooth_l1_beta",
        "cascade.positive_ious",
        "federated.frequency_power",
        "federated.image_lists",
        "mask_head.target",
        "mask_head.target_sampling_ratio",
        "point_rend.oversampling",
        "point_rend.uncertain_fraction",
        "point_rend.on_refined_boxes",
    }
)
_BATCH_NORMS = ("frozen_batch_norm", "batch_norm", "sync_batch_norm")  # infer alike


def differences(needed: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compare two models' fields.

    Args:
      needed: `fields.Model.as_dict()` that the weights were made for.
      given: that of the experiment that would use them.

    Returns:
      "field: X, the weights need Y" of what changes the network's answers, and of what does not.
    """
    flat_needed, flat_given = _flat(needed), _flat(given)
    answers: list[str] = []
    free: list[str] = []
    without_use = _fields_without_use(needed["system"], needed["features"])
    if not needed["keypoint_head"]["num_keypoints"]:
        without_use += ("keypoint_head.pool_size", "keypoint_head.conv_")
    for field, value in flat_needed.items():
        other = flat_given.get(field)
        if field.startswith(without_use) or _same(field, value, other):
            continue
        text = f"task.model.{field}: {other!r}, the weights need {value!r}"
        (free if field in FREE else answers).append(text)
    return answers, free


def check_anchors(recognized: Recognized, model: Mapping[str, Any]) -> None:
    """Refuse fields of a model whose RPN has another number of anchors than the file's.

    Raises:
      ValueError: it has; the file's shapes tell how many, not which.
    """
    rpn = model["rpn"]
    sizes, ratios = list(rpn["anchor_sizes"]), list(rpn["anchor_ratios"])
    per_place = len(ratios) * (1 if model["features"] == "fpn" else len(sizes))
    if recognized.anchors_per_place not in (0, per_place):
        ours = conventions.anchors_in_words(sizes, ratios)
        raise ValueError(
            f"its RPN has {recognized.anchors_per_place} anchors at every place, the experiment "
            f"{per_place} ({ours}). Say which they are, in the order of training: "
            f"{conventions.OVERRIDE}"
        )


def contradictions(recognized: Recognized, model: Mapping[str, Any]) -> list[str]:
    """Say where fields of a model are not what the file says itself."""
    flat = _flat(model)
    return [
        f"task.model.{field} is {flat[field]!r}, but the file says {value!r}"
        for field, value in _flat(recognized.told).items()
        if not _same(field, value, flat[field])
    ]


def _fields_without_use(system: str, features: str) -> tuple[str, ...]:
    """What the fields begin with that no part of such a network reads."""
    of_masks = ("mask_head.", "point_rend.", "mask_scoring.", "detection.mask_paste")
    of_one_level = ("fpn.", "roi_align.log_epsilon", "roi_align.level_epsilon")
    return {
        "mask_rcnn": (),
        "faster_rcnn": of_masks,
        "rpn": (*of_masks, "box_head.", "cascade.", "federated.", "roi_align.", "detection."),
    }[system] + {
        "fpn": (),
        "c4": (*of_one_level, "box_head.fc_", "mask_head.conv_layers"),
        "c5": of_one_level,
        "dc5": of_one_level,
    }[features]


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _same(field: str, value: Any, other: Any) -> bool:
    if field == "federated.classes_per_image":  # a sigmoid per class, however it was learnt
        return bool(value) == bool(other)
    if field.endswith("norm") and value in _BATCH_NORMS and other in _BATCH_NORMS:
        return True
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_close, value, other))
    return _close(value, other)


def _close(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-6)
    return value == other
