"""What weights need besides themselves: the fields of `fields.Model` that go with a file.

The same numbers in another convention are another network: a stride one convolution later, a half
pixel, an epsilon. A file does not hold them, so they follow from the project and from what its
released models were trained with; what was concluded that way is said in words.
"""

from collections.abc import Sequence
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
    ("dc5", False): (12000, 2000, 6000, 1000),
    ("dc5", True): (12000, 2000, 6000, 1000),  # none was released
}
_LVIS = (1203, 1230)  # classes of LVIS v1 and v0.5
_DETECTRON2_CASCADE = {"positive_ious": [0.6, 0.7], "regression_factors": [2.0, 3.0]}
# Model Garden's MEAN_RGB and STDDEV_RGB.
_MODEL_GARDEN_PIXELS = {
    "order": "rgb",
    "mean": [0.485 * 255, 0.456 * 255, 0.406 * 255],
    "std": [0.229 * 255, 0.224 * 255, 0.225 * 255],
}

_DEFAULT_ANCHORS = "sizes 32, 64, 128, 256, 512 with ratios 0.5, 1, 2"
OVERRIDE = "--params_override=task.model.rpn.anchor_sizes=[...],task.model.rpn.anchor_ratios=[...]"


def model_fields(recognized: Recognized) -> tuple[Fields, list[str]]:
    """Return the fields of `fields.Model` that a file needs, and what was concluded.

    Args:
      recognized: what `recognize` says of the file.

    Returns:
      nested fields, `preset` among them, and sentences for the report.
    """
    fields: Fields = {"preset": "paper"} | {part: dict(s) for part, s in recognized.sizes.items()}
    if recognized.system != "backbone":
        fields |= {"system": recognized.system, "features": recognized.features}
    backbone: Fields = {
        "depth": recognized.depth,
        "base_width": recognized.base_width,
        "weights": "",
    }
    if (recognized.groups, recognized.width_per_group) != (1, 64):
        backbone |= {"groups": recognized.groups, "width_per_group": recognized.width_per_group}
    fields["backbone"] = backbone
    return _OF_PROJECT[recognized.project](recognized, fields, backbone)


def _torchvision(
    recognized: Recognized, fields: Fields, backbone: Fields
) -> tuple[Fields, list[str]]:
    fields["preset"] = "torchvision"
    if recognized.system == "backbone":
        backbone["norm_epsilon"] = 1e-5
        return fields, ["norm epsilon 1e-5, as torchvision's classifiers have"]
    of_keypoints: list[str] = []
    if recognized.num_keypoints:  # what training differs in from the experiment's
        fields["rpn"] = {"post_nms_top_k_train": 2000} | fields.get("rpn", {})
        fields["box_head"] = {"smooth_l1_beta": 1.0 / 9.0} | fields.get("box_head", {})
        of_keypoints = [
            "torchvision learns COCO's coordinates as they are, in which the middle of a pixel is "
            "a whole number: keypoints found lie half a pixel of the photo up and to the left"
        ]
    notes = [
        *of_keypoints,
        "background's box deltas and its mask, which are never used, are dropped",
        "torchvision's files hold neither anchors nor pixel statistics: its defaults are taken, "
        f"{_DEFAULT_ANCHORS} and ImageNet's pixels in RGB. Others are set by "
        f"{OVERRIDE} and task.model.pixels",
    ]
    if recognized.version == 2 or recognized.told.get("backbone"):
        backbone |= {"norm": "batch_norm", "norm_epsilon": 1e-5}
        return fields, [*notes, "norm epsilon 1e-5 and norms that train, as in torchvision"]
    return fields, [
        *notes,
        "norm epsilon 0, as torchvision runs its released COCO weights (one of your own that was "
        "built otherwise has 1e-5: --params_override=task.model.backbone.norm_epsilon=1.0e-5)",
    ]


def _detectron2(
    recognized: Recognized, fields: Fields, backbone: Fields
) -> tuple[Fields, list[str]]:
    fields["preset"] = "detectron2"
    if recognized.system == "backbone" and recognized.spelling != "caffe2":
        backbone["stride_in_1x1"] = False
        fields["pixels"] = _TORCHVISION_PIXELS
        return fields, [
            "stride in the 3x3 and RGB pixels divided by a deviation: in these names Detectron2 "
            "has torchvision's ResNets only"
        ]
    notes = []
    if recognized.system != "backbone":
        notes = _told_by_detectron2(recognized, fields)
        counts = _DETECTRON2_PROPOSALS[recognized.features, recognized.system == "rpn"]
        fields["rpn"] = dict(zip(_PROPOSAL_COUNTS, counts, strict=True)) | fields.get("rpn", {})
        fields["box_head"] = {"rois_per_image": 512} | fields.get("box_head", {})
    if recognized.num_keypoints:
        fields["rpn"]["post_nms_top_k_train"] = 1500
        fields["box_head"] = {"smooth_l1_beta": 0.5} | fields["box_head"]
    if recognized.num_classes - 1 in _LVIS:
        fields |= {"max_instances": 300, "detection": {"score_threshold": 1e-4}}
        notes.append(
            f"{recognized.num_classes - 1} classes, as many as LVIS has: 300 detections from a "
            "score of 0.0001 on, and a softmax; one that learnt by USE_SIGMOID_CE has "
            "--params_override=task.model.federated.classes_per_image=50"
        )
    if recognized.num_box_heads > 1:
        fields["cascade"] = dict(_DETECTRON2_CASCADE)
        fields["rpn"]["post_nms_top_k_train"] = 2000
        notes.append(
            "regression weights 10/5, 20/10 and 30/15 of the three box heads, Detectron2's default "
            "(MODEL.ROI_BOX_CASCADE_HEAD); others are set by "
            "--params_override=task.model.cascade.regression_factors=[...]"
        )
    if recognized.features == "c4":  # no weight's shape tells
        fields["box_head"]["pool_size"] = 14
        fields["mask_head"] = {"mask_size": 14} | fields.get("mask_head", {})
    if recognized.features == "dc5":
        notes.append(
            "stage 5 dilated, as Detectron2's DC5 models; no weight's shape tells. If it was "
            "trained with RES5_DILATION 1, --params_override=task.model.features=c5"
        )
    told = recognized.told.get("pixels")
    if recognized.norm:
        return fields, [*notes, *_norms_of_detectron2(recognized, backbone)]
    if recognized.groups > 1:
        backbone["stride_in_1x1"] = False
        fields.setdefault("pixels", {"std": [57.375, 57.120, 58.395]})
        return fields, [
            *notes,
            "stride in the 3x3, as Detectron2's X101-32x8d"
            + ("" if told else ", and BGR pixels divided by a deviation"),
        ]
    if told and told["std"] != [1.0, 1.0, 1.0]:
        backbone["stride_in_1x1"] = False
        if recognized.depth < 50:  # blocks without a 1x1
            return fields, notes
        return fields, [
            *notes,
            "stride in the 3x3: pixels that are divided by a deviation go with PyTorch's ResNets; "
            "if it was trained with RESNETS.STRIDE_IN_1X1, "
            "--params_override=task.model.backbone.stride_in_1x1=true",
        ]
    return fields, [
        *notes,
        "stride in the 1x1" + ("" if told else " and BGR pixels minus a mean") + ", as all ResNets "
        "of Detectron2's zoo (which start from MSRA's) have",
    ]


def _norms_of_detectron2(recognized: Recognized, backbone: Fields) -> list[str]:
    """Take norms other than frozen ones, and say what goes with them."""
    backbone["norm"] = recognized.norm
    told = recognized.told.get("pixels")
    notes = []
    if told is None and recognized.system != "backbone":
        notes.append(
            "BGR pixels minus a mean; those that were trained from scratch for 9x were divided by "
            "a deviation too: --params_override=task.model.pixels.std=[57.375,57.12,58.395]"
        )
    if recognized.norm == "group_norm":
        backbone["stride_in_1x1"] = False
        return ["group norms, with which Detectron2 has the stride in the 3x3", *notes]
    backbone["stride_in_1x1"] = told is None or told["std"] == [1.0, 1.0, 1.0]
    place = "1x1" if backbone["stride_in_1x1"] else "3x3"
    return [
        f"batch norms that train, stride in the {place}: Detectron2 has it in the 1x1 where "
        "training begins with MSRA's weights, and in the 3x3 where pixels are divided by a "
        "deviation; --params_override=task.model.backbone.stride_in_1x1=... says otherwise",
        *notes,
    ]


def _told_by_detectron2(recognized: Recognized, fields: Fields) -> list[str]:
    """Take what the file says itself, and say so; what it does not say are defaults."""
    notes = []
    rpn, pixels = recognized.told.get("rpn"), recognized.told.get("pixels")
    if rpn:
        fields["rpn"] = fields.get("rpn", {}) | rpn
        sizes, ratios = rpn["anchor_sizes"], rpn["anchor_ratios"]
        notes.append(f"anchors from the file: {anchors_in_words(sizes, ratios)}")
    else:
        notes.append(
            f"the file does not hold its anchors: Detectron2's defaults are taken, "
            f"{_DEFAULT_ANCHORS}. Others are set by {OVERRIDE}"
        )
    if pixels:
        fields["pixels"] = pixels
        said = f"pixels from the file: minus {pixels['mean']}, divided by {pixels['std']}"
        if "order" in pixels:
            notes.append(f"{said}, in {pixels['order'].upper()}, in which these are ImageNet's")
        else:
            notes.append(
                f"{said}; their order cannot be told from these numbers: BGR is assumed, "
                "Detectron2's default. If it was trained with INPUT.FORMAT RGB, "
                "--params_override=task.model.pixels.order=rgb"
            )
    return notes


def anchors_in_words(sizes: Sequence[float], ratios: Sequence[float]) -> str:
    """Say which anchors these are."""
    listed = [", ".join(f"{number:g}" for number in numbers) for numbers in (sizes, ratios)]
    return f"sizes {listed[0]}, ratios {listed[1]}"


def _keras(recognized: Recognized, fields: Fields, backbone: Fields) -> tuple[Fields, list[str]]:
    return fields, ["tf_keras.applications: stride in the 1x1, BGR pixels minus a mean"]


def _model_garden(
    recognized: Recognized, fields: Fields, backbone: Fields
) -> tuple[Fields, list[str]]:
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
