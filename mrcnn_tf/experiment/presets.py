"""Presets: what goes together, as fields of `fields.Model` that differ from their defaults."""

# `features: c4` has other numbers than FPN (section 3.1: N = 64, 300 proposals, 14x14 masks); those
# before NMS are Detectron's. For C5, on which the paper has FPN's heads, it gives none: they are
# Detectron2's for its DC5, C4's before NMS and FPN's behind it.
_ONE_LEVEL = {"pre_nms_top_k_train": 12000, "pre_nms_top_k_test": 6000}
FEATURES: dict[str, dict] = {
    "fpn": {},
    "c4": {
        "rpn": _ONE_LEVEL | {"post_nms_top_k_test": 300},
        "box_head": {"pool_size": 14, "rois_per_image": 64},
        "mask_head": {"mask_size": 14},
    },
    "c5": {"rpn": _ONE_LEVEL},
    "dc5": {"rpn": _ONE_LEVEL},
}

# `preset`: every convention that trained weights carry, by the project they come from.

# The defaults are the preset "paper": its text where it speaks, Detectron (its code) where it is
# silent, and the pixel statistics and norm epsilon of the ImageNet weights of
# tf_keras.applications, which it starts from.
PRESETS: dict[str, dict] = {
    "paper": {},
    "torchvision": {
        "ignore_crowds": False,
        "pixels": {
            "order": "rgb",
            "mean": (0.485 * 255, 0.456 * 255, 0.406 * 255),
            "std": (0.229 * 255, 0.224 * 255, 0.225 * 255),
            "resize": "torchvision",
        },
        # The released COCO weights run with epsilon 0 (`overwrite_eps`).
        "backbone": {"stride_in_1x1": False, "norm_epsilon": 0.0, "weights": ""},
        "rpn": {
            "anchors_rounded": True,
            "anchor_strides": "grid",
            "min_box_size": 1e-3,
            "ignore_anchors_across_border": False,
        },
        "roi_align": {
            "aligned": False,
            "sampling_ratio": 2,
            "log_epsilon": 0.0,
            "level_epsilon": 1e-6,
        },
        "box_head": {"smooth_l1_beta": 1.0 / 9.0},
        "mask_head": {"target": "torchvision", "target_sampling_ratio": 0},
        "detection": {"mask_paste": "torchvision", "min_box_size": 1e-2},
    },
    "detectron2": {
        "ignore_crowds": False,
        "pixels": {"mean": (103.530, 116.280, 123.675)},
        "backbone": {"norm_epsilon": 1e-5},
        "rpn": {
            "post_nms_top_k_train": 1000,
            "smooth_l1_beta": 0.0,
            "ignore_anchors_across_border": False,
            "loss_normalizer": "anchors_per_image",
        },
        "roi_align": {"sampling_ratio": 0},
        "box_head": {"smooth_l1_beta": 0.0},
        "mask_head": {"target_sampling_ratio": 0},
    },
}
