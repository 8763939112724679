"""An R50-FPN with random weights that finds 100 objects in any image, exported as users export."""

import pathlib

import tensorflow as tf

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.detector import Detector, preprocessor
from mrcnn_tf.experiment import loading
from mrcnn_tf.modeling import build

NUM_CATEGORIES = 90  # as COCO's ids count


def detector() -> Detector:
    """Build `maskrcnn_r50_fpn` with seeded weights whose features neither vanish nor overflow."""
    tf.random.set_seed(0)
    config = loading.load("maskrcnn_r50_fpn")
    config.task.model.override({"detection": {"score_threshold": 0.0}})
    ids = tuple(range(1, NUM_CATEGORIES + 1))
    labels = LabelMap(ids, tuple(f"category {k}" for k in ids))
    model = build.build_model(config.task.model, labels.num_classes)
    # Identity norms over random weights: without damping, features of 16 blocks would overflow.
    for stage in (model.backbone.stage2, model.backbone.stage3, model.backbone.stage4,
                  model.backbone.stage5):  # fmt: skip
        for block in stage.blocks:
            block.norm3.gamma.assign(tf.fill(block.norm3.gamma.shape, 0.2))
    logits = model.roi_heads.box_head.class_logits
    logits.kernel.assign(tf.random.stateless_normal(logits.kernel.shape, [1, 2], stddev=0.05))
    return Detector(model, labels, preprocessor(config), config.task.model.detection.mask_paste)


def export(folder: pathlib.Path) -> str:
    """Write it as a SavedModel, unless it is there; returns the folder."""
    if not (folder / "saved_model.pb").exists():
        detector().export(str(folder), "image_bytes")
    return str(folder)
