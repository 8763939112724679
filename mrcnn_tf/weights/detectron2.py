"""Detectron2's Mask R-CNN with FPN (`mask_rcnn_R_*_FPN_*`) into our model: names and layouts.

Classes are 0..N-2 there and background comes last; here it comes first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.weights import assign

NOT_NEEDED = {
    r"pixel_(mean|std)": "pixel statistics are configuration",
    r"(proposal_generator\.)?anchor_generator\.cell_anchors\.\d+": "anchors are configuration",
    r".*\.num_batches_tracked": "counts batches for a momentum that is not used",
}


def load(model: MaskRCNN, state_dict: Mapping[str, Any]) -> assign.Report:
    """Assign a state dict of Detectron2 to a model built with `preset: detectron2`.

    Args:
      model: ResNet-FPN with batch norms, its variables created, as many classes as the file.
      state_dict: {name: array or CPU tensor}, the `model` entry of a released pickle.

    Returns:
      What became of each tensor.

    Raises:
      ValueError: see `assign.assign`.
    """
    return assign.assign(entries(model), state_dict, model.weights, NOT_NEEDED)


def entries(model: MaskRCNN) -> list[assign.Entry]:
    """Say where each variable of the model comes from."""
    return [*_backbone(model.backbone), *_pyramid(model.pyramid), *_heads(model)]


def _backbone(resnet) -> list[assign.Entry]:
    body = "backbone.bottom_up"
    stem = f"{body}.stem.conv1"
    found = assign.conv_and_norm(resnet.stem.conv1, resnet.stem.norm1, stem, f"{stem}.norm")
    for level, index, name, conv, norm in assign.residual_convs(resnet):
        theirs = f"{body}.res{level}.{index}.{name}"
        found += assign.conv_and_norm(conv, norm, theirs, f"{theirs}.norm")
    return found


def _pyramid(fpn) -> list[assign.Entry]:
    found = []
    for level in range(2, 6):
        for kind in ("lateral", "output"):
            layer = getattr(fpn, f"{kind}{level}")
            found += assign.with_bias(layer, f"backbone.fpn_{kind}{level}")
    return found


def _heads(model: MaskRCNN) -> list[assign.Entry]:
    rpn, box, mask = model.rpn.head, model.roi_heads.box_head, model.roi_heads.mask_head
    rpn_name, box_name = "proposal_generator.rpn_head", "roi_heads.box_predictor"
    found = [
        *assign.with_bias(rpn.conv, f"{rpn_name}.conv"),
        *assign.with_bias(rpn.objectness, f"{rpn_name}.objectness_logits"),
        *assign.with_bias(rpn.deltas, f"{rpn_name}.anchor_deltas", rows=assign.box_rows),
        *assign.with_bias(
            box.hidden[0],
            "roi_heads.box_head.fc1",
            kernel=assign.dense_after_flatten(model.pyramid.channels),
        ),
        *assign.with_bias(box.hidden[1], "roi_heads.box_head.fc2", kernel=assign.dense),
        *assign.with_bias(
            box.class_logits, f"{box_name}.cls_score", rows=_background_first, kernel=assign.dense
        ),
        *assign.with_bias(
            box.box_deltas, f"{box_name}.bbox_pred", rows=assign.box_rows, kernel=assign.dense
        ),
    ]
    for i, layer in enumerate(mask.convs):
        found += assign.with_bias(layer, f"roi_heads.mask_head.mask_fcn{i + 1}")
    found += assign.with_bias(mask.deconv, "roi_heads.mask_head.deconv")
    logits = "roi_heads.mask_head.predictor"
    found += [
        assign.Entry(mask.predictor_kernel, (f"{logits}.weight",), assign.predictor),
        assign.Entry(mask.predictor_bias, (f"{logits}.bias",), assign.same),
    ]
    return found


def _background_first(rows: np.ndarray) -> np.ndarray:
    """[classes and background, ...] -> [background and classes, ...]."""
    return np.roll(rows, 1, axis=0)
