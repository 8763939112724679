"""What weights need besides themselves: the fields of `fields.Model` that go with a file.

The same numbers in another convention are another network: a stride one convolution later, a half
pixel, an epsilon. A file does not hold them, so they follow from the project and from what its
released models were trained with; what was concluded that way is said in words.
"""

import math
from collections.abc import Mapping
from typing import Any

from mrcnn_tf.weights.recognize import Recognized

Fields = dict[str, Any]

# Detectron2's settings where its backbone is torchvision's: RGB, 0..255.
_TORCHVISION_PIXELS = {
    "order": "rgb",
    "mean": [123.675, 116.280, 103.530],
    "std": [58.395, 57.120, 57.375],
}
# (features, whether an RPN alone) -> Detectron2's numbers of proposals.
_PROPOSAL_COUNTS = (
    "pre_nms_top_k_train",
    "post_nms_top_k_train",
    "pre_nms_top_k_test",
    "post_nms_top_k_test",
)
_DETECTRON2_PROPOSALS = {
    ("fpn", False): (2000, 1000, 1000, 1000),
    ("fpn", True): (2000, 1000, 1000, 2000),
    ("c4", False): (12000, 2000, 6000, 1000),
    ("c4", True): (12000, 2000, 12000, 2000),
}
# Model Garden's MEAN_RGB and STDDEV_RGB.
_MODEL_GARDEN_PIXELS = {
    "order": "rgb",
    "mean": [0.485 * 255, 0.456 * 255, 0.406 * 255],
    "std": [0.229 * 255, 0.224 * 255, 0.225 * 255],
}

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
        "rpn.loss_normalizer",
        "box_head.rois_per_image",
        "box_head.positive_fraction",
        "box_head.positive_iou",
        "box_head.smooth_l1_beta",
        "mask_head.target",
        "mask_head.target_sampling_ratio",
    }
)
_BATCH_NORMS = ("frozen_batch_norm", "batch_norm", "sync_batch_norm")  # infer alike


def model_fields(found: Recognized) -> tuple[Fields, list[str]]:
    """Return the fields of `fields.Model` that a file needs, and what was concluded.

    Args:
      found: what `recognize` says of the file.

    Returns:
      nested fields, `preset` among them, and sentences for the report.
    """
    fields: Fields = {"preset": "paper"} | {part: dict(s) for part, s in found.sizes.items()}
    if found.system != "backbone":
        fields |= {"system": found.system, "features": found.features}
    backbone: Fields = {"depth": found.depth, "base_width": found.base_width, "weights": ""}
    if (found.groups, found.width_per_group) != (1, 64):
        backbone |= {"groups": found.groups, "width_per_group": found.width_per_group}
    fields["backbone"] = backbone
    return _OF_PROJECT[found.project](found, fields, backbone)


def _torchvision(found: Recognized, fields: Fields, backbone: Fields) -> tuple[Fields, list[str]]:
    fields["preset"] = "torchvision"
    if found.system == "backbone":
        backbone["norm_epsilon"] = 1e-5
        return fields, ["norm epsilon 1e-5, as torchvision's classifiers have"]
    unused = "background's box deltas and its mask, which are never used, are dropped"
    if found.version == 2:
        backbone |= {"norm": "batch_norm", "norm_epsilon": 1e-5}
        return fields, [unused, "norm epsilon 1e-5 and norms that train, as in torchvision"]
    return fields, [
        unused,
        "norm epsilon 0, as torchvision runs its released COCO weights (one of your own that was "
        "built otherwise has 1e-5: --params_override=task.model.backbone.norm_epsilon=1.0e-5)",
    ]


def _detectron2(found: Recognized, fields: Fields, backbone: Fields) -> tuple[Fields, list[str]]:
    fields["preset"] = "detectron2"
    if found.system == "backbone" and found.spelling != "caffe2":
        backbone["stride_in_1x1"] = False
        fields["pixels"] = _TORCHVISION_PIXELS
        return fields, [
            "stride in the 3x3 and RGB pixels divided by a deviation: in these names Detectron2 "
            "has torchvision's ResNets only"
        ]
    if found.system != "backbone":
        counts = _DETECTRON2_PROPOSALS[found.features, found.system == "rpn"]
        fields["rpn"] = dict(zip(_PROPOSAL_COUNTS, counts, strict=True))
        fields["box_head"] = {"rois_per_image": 512} | fields.get("box_head", {})
    if found.features == "c4":  # no weight's shape tells
        fields["box_head"]["pool_size"] = 14
        fields["mask_head"] = {"mask_size": 14} | fields.get("mask_head", {})
    if found.groups > 1:
        backbone["stride_in_1x1"] = False
        fields["pixels"] = {"std": [57.375, 57.120, 58.395]}
        return fields, [
            "stride in the 3x3 and BGR pixels divided by a deviation, as Detectron2's X101-32x8d"
        ]
    return fields, [
        "stride in the 1x1 and BGR pixels minus a mean, as all ResNets of Detectron2's zoo (which "
        "start from MSRA's) have"
    ]


def _keras(found: Recognized, fields: Fields, backbone: Fields) -> tuple[Fields, list[str]]:
    return fields, ["tf_keras.applications: stride in the 1x1, BGR pixels minus a mean"]


def _model_garden(found: Recognized, fields: Fields, backbone: Fields) -> tuple[Fields, list[str]]:
    backbone |= {"stride_in_1x1": False, "norm_epsilon": 1e-5}
    fields["pixels"] = _MODEL_GARDEN_PIXELS
    return fields, [
        "norm epsilon 1e-5, as Model Garden's ImageNet experiments have",
        "Model Garden pads strided layers at the bottom and right only, this project on all "
        "sides: good to start training from, but the features are not the same numbers",
    ]


_OF_PROJECT = {
    "torchvision": _torchvision,
    "detectron2": _detectron2,
    "keras": _keras,
    "model_garden": _model_garden,
}


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
    for field, value in flat_needed.items():
        other = flat_given.get(field)
        if field.startswith(without_use) or _same(field, value, other):
            continue
        text = f"task.model.{field}: {other!r}, the weights need {value!r}"
        (free if field in FREE else answers).append(text)
    return answers, free


def _fields_without_use(system: str, features: str) -> tuple[str, ...]:
    """What the fields begin with that no part of such a network reads."""
    of_masks = ("mask_head.", "detection.mask_paste")
    return {
        "mask_rcnn": (),
        "faster_rcnn": of_masks,
        "rpn": (*of_masks, "box_head.", "roi_align.", "detection."),
    }[system] + {
        "fpn": (),
        "c4": (
            "fpn.",
            "box_head.fc_",
            "mask_head.conv_layers",
            "roi_align.log_epsilon",
            "roi_align.level_epsilon",
        ),
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
    if field.endswith("norm") and value in _BATCH_NORMS and other in _BATCH_NORMS:
        return True
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_close, value, other))
    return _close(value, other)


def _close(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-6)
    return value == other
