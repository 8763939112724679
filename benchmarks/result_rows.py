"""What docs/results.md compares: each row one training run that differs from another in one thing.

A row to add is an entry of `GROUPS`; data that it needs, an entry of `result_data.COMMANDS`.
"""

import dataclasses
from typing import Any

STEPS = 800  # of every run, of four images
TINY_STEPS = 2
_MODEL, _TRAIN = "task.model", "task.train_data"
MASKS = ("mask_ap", "box_ap", "boundary_ap")


@dataclasses.dataclass(frozen=True)
class Row:
    """One network or recipe.

    Attributes:
      name: of its folder, and for --only.
      what: differs, for a reader.
      fields: laid over the experiment, {"task.model.features": "c5"}.
      beside: name of the row that it is compared with; "" for none.
      published: by the authors or a peer of it, on COCO, as published; "" for nothing.
      experiment: that it is.
      data: entry of `result_data.COMMANDS`.
      seeds: so many runs, with seeds 0, 1, ...
      scores_of: name of the row whose checkpoints are scored, without a training of its own.
    """

    name: str
    what: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    beside: str = "baseline"
    published: str = ""
    experiment: str = "maskrcnn_shapes"
    data: str = "shapes"
    seeds: int = 1
    scores_of: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that stand in one table.

    Attributes:
      title: above it.
      rows: in order; a row with which one is compared may stand in another group.
      metrics: names in metrics.jsonl; by the first of them differences are judged.
      text: what has to be known to read it.
    """

    title: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = MASKS
    text: str = ""


def _pooling(kind: str, aggregate: str) -> dict[str, Any]:
    return {f"{_MODEL}.roi_align.type": kind, f"{_MODEL}.roi_align.aggregate": aggregate}


def _heads_with(norm: str) -> dict[str, Any]:
    """Norms in pyramid and heads too, and the box head that goes with them."""
    parts = ("fpn", "box_head", "mask_head")
    return {f"{_MODEL}.{part}.norm": norm for part in parts} | {
        f"{_MODEL}.box_head.conv_layers": 4,
        f"{_MODEL}.box_head.conv_channels": 64,
        f"{_MODEL}.box_head.fc_layers": 1,
    }


_NO_BOUNDARIES = {"task.boundary_ap": False}  # they are scored class by class, in Python
_RESNET50 = {f"{_MODEL}.backbone.depth": 50, f"{_MODEL}.backbone.stride_in_1x1": False}

GROUPS = (
    Group(
        "The paper's Table 2 and its neighbours",
        (
            Row("baseline", "ResNet-18-FPN, sigmoid masks, RoIAlign", beside="", seeds=3),
            Row(
                "softmax",
                "a softmax over classes in place of sigmoids",
                {f"{_MODEL}.mask_head.classes": "softmax"},
                published="mask 24.8, sigmoid 30.3 (-5.5; R50-C4, table 2b)",
                seeds=3,
            ),
            Row(
                "agnostic",
                "class-agnostic masks",
                {f"{_MODEL}.mask_head.classes": "agnostic"},
                published="mask 29.7, per class 30.3 (-0.6; R50-C4, section 4.2)",
            ),
            Row(
                "roi_pool",
                "RoIPool",
                _pooling("roi_pool", "max"),
                published="mask 26.9, RoIAlign 30.3 (-3.4; R50-C4, table 2c)",
                seeds=3,
            ),
            Row(
                "roi_warp",
                "RoIWarp, average",
                _pooling("roi_warp", "average"),
                published="mask 27.1, RoIAlign 30.3 (-3.2; R50-C4, table 2c)",
            ),
            Row(
                "roi_warp_max",
                "RoIWarp, maximum",
                _pooling("roi_warp", "max"),
                published="mask 27.2, RoIAlign 30.3 (-3.1; R50-C4, table 2c)",
            ),
            Row(
                "roi_align_max",
                "RoIAlign, maximum",
                _pooling("roi_align", "max"),
                published="mask 30.2, average 30.3 (-0.1; R50-C4, table 2c)",
            ),
            Row(
                "c5",
                "C5 of stride 32, no pyramid",
                {f"{_MODEL}.features": "c5"},
                published="mask 30.9 (table 2d), pyramid 33.6 (table 2a)",
            ),
            Row(
                "c5_roi_pool",
                "C5 of stride 32, RoIPool",
                {f"{_MODEL}.features": "c5"} | _pooling("roi_pool", "max"),
                beside="c5",
                published="mask 23.6, RoIAlign 30.9 (-7.3); box 28.2, 34.0 (-5.8; table 2d)",
            ),
            Row(
                "dc5",
                "C5 dilated to stride 16",
                {f"{_MODEL}.features": "dc5"},
                published="mask 34.2, pyramid 35.2 (-1.0); box 38.3, 38.6 (Detectron2, 1x)",
            ),
            Row(
                "mlp2",
                "mask branch of two hidden layers (MLP)",
                {f"{_MODEL}.mask_head.type": "mlp", f"{_MODEL}.mask_head.fc_channels": 256},
                published="mask 31.5, FCN 33.6 (-2.1; table 2e)",
            ),
            Row(
                "mlp3",
                "mask branch of three hidden layers",
                {
                    f"{_MODEL}.mask_head.type": "mlp",
                    f"{_MODEL}.mask_head.fc_layers": 3,
                    f"{_MODEL}.mask_head.fc_channels": 256,
                },
                published="mask 31.5, FCN 33.6 (-2.1; table 2e)",
            ),
            Row("resnet50", "ResNet-50 in place of ResNet-18", _RESNET50),
            Row(
                "resnext50",
                "ResNeXt-50, 8 groups of 16 in its stage 2",
                _RESNET50
                | {f"{_MODEL}.backbone.groups": 8, f"{_MODEL}.backbone.width_per_group": 16},
                beside="resnet50",
                published="mask 36.7, ResNet-101 35.4 (+1.3; table 2a)",
            ),
        ),
    ),
    Group(
        "Better boxes, and recipes",
        (
            Row(
                "cascade",
                "Cascade: three box heads",
                experiment="cascade_maskrcnn_shapes",
                published="box 42.1, 38.6 without (+3.5); mask 36.4, 35.2 (+1.2; Detectron2, 1x)",
                seeds=3,
            ),
            Row(
                "tta",
                "the baseline's checkpoints with test-time augmentation: 96, 128, 160, and flips",
                {"task.tta.short_edges": [96, 128, 160], "task.tta.flips": True},
                published="box 51.9, 50.2 without (+1.7); mask 45.9, 44.0 (+1.9; Detectron2, "
                "X152 cascade, 9 sizes)",
                seeds=3,
                scores_of="baseline",
            ),
            Row(
                "group_norm",
                "group norm in pyramid and heads too; box head of 4 convolutions",
                _heads_with("group_norm"),
                published="mask 38.6, 37.2 without; box 42.6, 41.0 (Detectron2, 3x)",
            ),
            Row(
                "sync_batch_norm",
                "the same with synchronised batch norm everywhere",
                _heads_with("sync_batch_norm") | {f"{_MODEL}.backbone.norm": "sync_batch_norm"},
                published="mask 37.8, 37.2 without; box 41.9, 41.0 (Detectron2, 3x)",
            ),
            Row("ema", "moving averages of the weights, decay 0.99", {"trainer.ema_decay": 0.99}),
            Row(
                "accumulation",
                "gradient accumulation: the step's 4 images 2 by 2",
                {f"{_TRAIN}.global_batch_size": 2, f"{_TRAIN}.images_per_update": 4},
            ),
        ),
        ("box_ap", "mask_ap", "boundary_ap"),
    ),
    Group(
        "Better masks",
        (
            Row(
                "point_rend",
                "PointRend, masks of 56x56",
                experiment="pointrend_shapes",
                published="mask 36.2, 35.2 without (+1.0; Detectron2, 1x)",
            ),
            Row(
                "mask_scoring",
                "Mask Scoring",
                experiment="maskscoring_shapes",
                published="mask 35.6, 34.2 without (+1.4; the authors)",
            ),
            Row("mask56", "masks of 56x56", {f"{_MODEL}.mask_head.mask_size": 56}),
        ),
    ),
    Group(
        "Copy-paste",
        (
            Row(
                "jitter",
                "jitter of the size, 0.5 to 1.5, nothing pasted",
                {f"{_TRAIN}.scale_jitter": [0.5, 1.5]},
                seeds=3,
            ),
            Row(
                "copy_paste",
                "the same, objects of a second image pasted onto each",
                beside="jitter",
                published="mask 40.3, 39.1 without (+1.2); box 45.1, 43.5 (+1.6) after 270k steps "
                "of 64; +0.0 and +0.6 after 90k (MMDetection)",
                experiment="maskrcnn_shapes_copypaste",
                seeds=3,
            ),
        ),
    ),
    Group(
        "A rare category",
        (
            Row(
                "uneven",
                "no repeats",
                beside="",
                data="uneven",
            ),
            Row(
                "repeat_factors",
                "repeat-factor sampling, threshold 0.45: the images with stars 5 times an epoch",
                {f"{_TRAIN}.repeat_threshold": 0.45},
                beside="uneven",
                published="mask 26.4, 25.0 without (+1.4); box 27.6, 25.6 (+2.0; MMDetection, LVIS "
                "v1, Seesaw loss)",
                data="uneven",
            ),
        ),
        ("mask_ap/star", "box_ap/star", "mask_ap", "box_ap"),
        "Of the training images only those without a star, and 16 with one; the validation images "
        "are those of the other tables.",
    ),
    Group(
        "Keypoints",
        (
            Row("arrows", "boxes and masks only", beside="", data="arrows"),
            Row(
                "keypoints",
                "a keypoint branch beside them: the five corners of arrows",
                beside="arrows",
                published="keypoint 64.0, box 53.6 (Detectron2, 1x, no masks); box 52.0, 53.6 "
                "without (-1.6), mask 45.1, 45.8 (-0.7), keypoint 64.7 (table 5); of persons",
                experiment="keypointrcnn_shapes",
                data="arrows",
            ),
        ),
        ("keypoint_ap", "box_ap", "mask_ap"),
        "Other images, with arrows as a sixth class. Keypoints are scored by OKS, sigma 0.05.",
    ),
    Group(
        "1,203 categories",
        (
            Row(
                "lvis_softmax",
                "a softmax over all classes",
                {f"{_MODEL}.federated.classes_per_image": 0} | _NO_BOUNDARIES,
                beside="",
                experiment="maskrcnn_shapes_lvis",
                data="lvis",
            ),
            Row(
                "lvis_sigmoid",
                "a sigmoid per class, each taught by every image",
                {
                    f"{_MODEL}.federated.classes_per_image": 1203,
                    f"{_MODEL}.federated.frequency_power": 0.0,
                    f"{_MODEL}.federated.image_lists": False,
                }
                | _NO_BOUNDARIES,
                beside="lvis_softmax",
                experiment="maskrcnn_shapes_lvis",
                data="lvis",
            ),
            Row(
                "lvis",
                "the federated loss, 50 classes an image",
                _NO_BOUNDARIES,
                beside="lvis_softmax",
                published="mask 38.2, box 40.2 (Detectron2, LVIS v1, ViT-B, 100 epochs); no number "
                "without it",
                experiment="maskrcnn_shapes_lvis",
                data="lvis",
            ),
        ),
        ("mask_ap", "mask_ap_rare", "mask_ap_common", "mask_ap_frequent", "box_ap"),
        "The images of the other tables; a category is a shape and about a colour. Annotated and "
        "scored as LVIS is: rare categories are in at most 10 images of training, common ones in "
        "at most 100.",
    ),
)
ROWS = {row.name: row for group in GROUPS for row in group.rows}
# Networks whose evaluations are timed in turn with the baseline's.
TIMED = ("baseline", "cascade", "point_rend", "tta")

# Of the shapes experiments as they are: masks by their boundaries too, nothing that only slows
# down, and the paper's 2 x 2 samples, so that average and maximum differ.
_OF_ALL = {
    "task.boundary_ap": True,
    "task.validation_loss": False,
    "task.allow_image_summary": False,
    f"{_MODEL}.roi_align.sampling_ratio": 2,
}
_TINY = {
    "task.validation_data.short_edges": [64],
    "task.validation_data.long_edge": 96,
    f"{_TRAIN}.short_edges": [64],
    f"{_TRAIN}.long_edge": 96,  # several canvases, as in earnest
    f"{_MODEL}.backbone.base_width": 8,
    f"{_MODEL}.fpn.channels": 16,
    f"{_MODEL}.rpn.post_nms_top_k_test": 20,
    f"{_MODEL}.box_head.fc_channels": 32,
    f"{_MODEL}.box_head.rois_per_image": 16,
    f"{_MODEL}.mask_head.conv_channels": 8,
}


def fields_of(row: Row, seed: int, tiny: bool = False) -> dict[str, Any]:
    """Everything that is laid over a row's experiment, but where its records are.

    Args:
      row: which.
      seed: of weights, sampling, and order and augmentation of the images.
      tiny: a network and images as small as they may be, to see whether the row runs.
    """
    steps = TINY_STEPS if tiny else STEPS
    schedule = {
        "trainer.train_steps": steps,
        "trainer.validation_interval": steps,
        "trainer.checkpoint_interval": 200,
        "trainer.optimizer_config.learning_rate.cosine.decay_steps": steps,
    }
    seeds = {"task.seed": seed, f"{_TRAIN}.seed": seed}
    return _OF_ALL | schedule | seeds | (_TINY if tiny else {}) | row.fields
