"""torchvision's `maskrcnn_resnet*_fpn` and relatives into our model and back: names and layouts.

Two spellings exist: the released files' and, since torchvision 0.14, one where convolutions sit in
a `Conv2dNormActivation` (`.0` more). torchvision migrates the former itself when it loads them;
here both are taken, and the former is written, which every version of torchvision reads.

Background is class 0 there as here; its rows of box deltas and its mask are never used and have no
counterpart in our model: they are dropped, and written as zeros.
"""

from collections.abc import Mapping
from typing import Any

import tf_keras

from mrcnn_tf.modeling.keypoint_head import KeypointRoIHeads
from mrcnn_tf.modeling.resnet import ResNet
from mrcnn_tf.weights import assign, layouts
from mrcnn_tf.weights.assign import Entry

NOT_NEEDED = {
    r"(.*\.)?num_batches_tracked": "counts batches for a momentum that is not used",
}
NOT_NEEDED_OF_BACKBONES = NOT_NEEDED | {
    r"fc\.(weight|bias)": "ImageNet's classifier, which a detector has no use for",
}


def load(model: tf_keras.Model, state_dict: Mapping[str, Any]) -> assign.Report:
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


def load_backbone(resnet: ResNet, state_dict: Mapping[str, Any]) -> assign.Report:
    """Assign the state dict of a classifier (`resnet50`, ...) to a backbone; see `load`."""
    return assign.assign(
        backbone_entries(resnet, ""), state_dict, resnet.weights, NOT_NEEDED_OF_BACKBONES
    )


def entries(model: tf_keras.Model) -> list[Entry]:
    """Say where each variable of the model comes from.

    Raises:
      ValueError: torchvision has no such model.
    """
    if model.pyramid is None:
        raise ValueError("torchvision has no models without a feature pyramid")
    if hasattr(model, "roi_heads") and model.roi_heads.box_head.class_agnostic:
        raise ValueError(
            "torchvision has no models with class-agnostic boxes (box_head.class_agnostic), and so "
            "no cascades"
        )
    listed = assign.backbone_entries("torchvision", model.backbone, "backbone.body.")
    listed += _pyramid(model.pyramid)
    if model.rpn is not None:  # else its proposals come from a file
        listed += _rpn(model.rpn.head)
    if hasattr(model, "roi_heads"):
        listed += _box_head(model.roi_heads.box_head, model.pyramid.channels)
        if model.roi_heads.mask_head is not None:
            listed += _mask_head(model.roi_heads.mask_head)
        if isinstance(model.roi_heads, KeypointRoIHeads):
            listed += _keypoint_head(model.roi_heads.keypoint_head)
    return listed


def backbone_entries(resnet: ResNet, prefix: str) -> list[Entry]:
    """Entries of a ResNet whose names begin with `prefix`."""
    listed = assign.conv_and_norm(
        resnet.stem.conv1, resnet.stem.norm1, f"{prefix}conv1", f"{prefix}bn1"
    )
    for level, index, name, conv, norm in assign.residual_convs(resnet):
        block = f"{prefix}layer{level - 1}.{index}"
        names = (
            (f"{block}.downsample.0", f"{block}.downsample.1")
            if name == "shortcut"
            else (f"{block}.{name}", f"{block}.{name.replace('conv', 'bn')}")
        )
        listed += assign.conv_and_norm(conv, norm, *names)
    return listed


def _pyramid(fpn: Any) -> list[Entry]:
    listed = []
    for level in range(2, 6):
        for ours, theirs in (("lateral", "inner_blocks"), ("output", "layer_blocks")):
            name = f"backbone.fpn.{theirs}.{level - 2}"
            layer = getattr(fpn, f"{ours}{level}")
            if not fpn.norm:
                listed += assign.with_bias(layer, name, f"{name}.0")
            else:
                norm = getattr(fpn, f"{ours}{level}_norm")
                listed += assign.conv_and_norm(layer, norm, f"{name}.0", f"{name}.1")
    return listed


def _rpn(head: Any) -> list[Entry]:
    listed = []
    for i, layer in enumerate(head.convs):
        names = [f"rpn.head.conv.{i}.0"]
        if len(head.convs) == 1:
            names.insert(0, "rpn.head.conv")
        listed += assign.with_bias(layer, *names)
    return [
        *listed,
        *assign.with_bias(head.objectness, "rpn.head.cls_logits"),
        *assign.with_bias(head.deltas, "rpn.head.bbox_pred", rows=layouts.BOX_ROWS),
    ]


def _box_head(head: Any, channels: int) -> list[Entry]:
    """Entries of a box head on RoI features of so many channels.

    With convolutions it is a sequence there: those, a flattening, then each dense layer with its
    ReLU. Without, its two layers have the names of VGG's.
    """
    name = "roi_heads.box_head"
    listed = []
    for i, layer in enumerate(head.convs):
        listed += assign.head_conv(layer, [f"{name}.{i}.0"], f"{name}.{i}.1")
        channels = layer.conv.filters
    for i, layer in enumerate(head.hidden):
        kernel = layouts.DENSE if i else layouts.dense_after_flatten(channels)
        place = len(head.convs) + 1 + 2 * i if head.convs else f"fc{i + 6}"
        listed += assign.with_bias(layer, f"{name}.{place}", kernel=kernel)
    deltas = layouts.then(layouts.without_background(4), layouts.BOX_ROWS)
    predictor = "roi_heads.box_predictor"
    return [
        *listed,
        *assign.with_bias(head.class_logits, f"{predictor}.cls_score", kernel=layouts.DENSE),
        *assign.with_bias(
            head.box_deltas, f"{predictor}.bbox_pred", rows=deltas, kernel=layouts.DENSE
        ),
    ]


def _mask_head(head: Any) -> list[Entry]:
    assign.check_mask_head(head, "torchvision", ("independent",))
    listed = []
    for i, layer in enumerate(head.convs):
        name = "roi_heads.mask_head"
        names = [f"{name}.mask_fcn{i + 1}", f"{name}.{i}.0"]
        listed += assign.head_conv(layer, names, f"{name}.{i}.1")
    listed += assign.with_bias(head.deconv, "roi_heads.mask_predictor.conv5_mask")
    logits = "roi_heads.mask_predictor.mask_fcn_logits"
    rows = layouts.without_background(1)
    kernel = layouts.then(rows, layouts.PREDICTOR)
    return [
        *listed,
        Entry(head.predictor_kernel, (f"{logits}.weight",), kernel),
        Entry(head.predictor_bias, (f"{logits}.bias",), rows),
    ]


def _keypoint_head(head: Any) -> list[Entry]:
    """Entries of a keypoint head: a sequence there, each convolution followed by its ReLU."""
    listed = []
    for i, layer in enumerate(head.convs):
        listed += assign.with_bias(layer.conv, f"roi_heads.keypoint_head.{2 * i}")
    predictor = "roi_heads.keypoint_predictor.kps_score_lowres"
    return [*listed, *assign.with_bias(head.deconv, predictor)]
