"""torchvision's `maskrcnn_resnet*_fpn` (and `_v1` files) into our model: names and layouts.

Two spellings exist: the released files' and, since torchvision 0.14, one where convolutions sit in
a `Conv2dNormActivation` (`.0` more). torchvision migrates the former itself when it loads them;
here both are taken.

Background is class 0 there as here; its rows of box deltas and its mask are never used and have no
counterpart in our model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.weights import assign

NOT_NEEDED = {
    r".*\.num_batches_tracked": "counts batches for a momentum that is not used",
}


def load(model: MaskRCNN, state_dict: Mapping[str, Any]) -> assign.Report:
    """Assign a state dict of torchvision to a model built with `preset: torchvision`.

    Args:
      model: ResNet-FPN with batch norms, its variables created, as many classes as the file.
      state_dict: {name: array or CPU tensor}.

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
    body = "backbone.body"
    found = assign.conv_and_norm(
        resnet.stem.conv1, resnet.stem.norm1, f"{body}.conv1", f"{body}.bn1"
    )
    for level, index, name, conv, norm in assign.residual_convs(resnet):
        block = f"{body}.layer{level - 1}.{index}"
        names = (
            (f"{block}.downsample.0", f"{block}.downsample.1")
            if name == "shortcut"
            else (f"{block}.{name}", f"{block}.{name.replace('conv', 'bn')}")
        )
        found += assign.conv_and_norm(conv, norm, *names)
    return found


def _pyramid(fpn) -> list[assign.Entry]:
    found = []
    for level in range(2, 6):
        for ours, theirs in (("lateral", "inner_blocks"), ("output", "layer_blocks")):
            name = f"backbone.fpn.{theirs}.{level - 2}"
            found += assign.with_bias(getattr(fpn, f"{ours}{level}"), name, f"{name}.0")
    return found


def _heads(model: MaskRCNN) -> list[assign.Entry]:
    rpn, box, mask = model.rpn.head, model.roi_heads.box_head, model.roi_heads.mask_head
    found = [
        *assign.with_bias(rpn.conv, "rpn.head.conv", "rpn.head.conv.0.0"),
        *assign.with_bias(rpn.objectness, "rpn.head.cls_logits"),
        *assign.with_bias(rpn.deltas, "rpn.head.bbox_pred", rows=assign.box_rows),
        *assign.with_bias(
            box.hidden[0],
            "roi_heads.box_head.fc6",
            kernel=assign.dense_after_flatten(model.pyramid.channels),
        ),
        *assign.with_bias(box.hidden[1], "roi_heads.box_head.fc7", kernel=assign.dense),
        *assign.with_bias(
            box.class_logits, "roi_heads.box_predictor.cls_score", kernel=assign.dense
        ),
        *assign.with_bias(
            box.box_deltas,
            "roi_heads.box_predictor.bbox_pred",
            rows=assign.then(_drop_background_box, assign.box_rows),
            kernel=assign.dense,
        ),
    ]
    for i, layer in enumerate(mask.convs):
        head = "roi_heads.mask_head"
        found += assign.with_bias(layer, f"{head}.mask_fcn{i + 1}", f"{head}.{i}.0")
    found += assign.with_bias(mask.deconv, "roi_heads.mask_predictor.conv5_mask")
    logits = "roi_heads.mask_predictor.mask_fcn_logits"
    found += [
        assign.Entry(
            mask.predictor_kernel,
            (f"{logits}.weight",),
            assign.then(_drop_background, assign.predictor),
        ),
        assign.Entry(mask.predictor_bias, (f"{logits}.bias",), _drop_background),
    ]
    return found


def _drop_background(rows: np.ndarray) -> np.ndarray:
    """[N, ...] -> [N-1, ...]."""
    return rows[1:]


def _drop_background_box(rows: np.ndarray) -> np.ndarray:
    """[N * 4, ...] -> [(N-1) * 4, ...]."""
    return rows[4:]
