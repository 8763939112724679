"""Detectron2's R-CNN models and backbones into our model and back: names and layouts.

Classes are 0..N-2 there and background comes last; here it comes first.

The backbones that Detectron2 starts from are in two spellings: Caffe2's (`res2_0_branch2a_w`) and
its own. The norms of most of the former are scale and offset only, `_bn_s` and `_bn_b`; group norms
are `_gn_s` and `_gn_b`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import tf_keras

from mrcnn_tf.modeling.c4 import C4RoIHeads
from mrcnn_tf.modeling.cascade import CascadeRoIHeads
from mrcnn_tf.modeling.keypoint_head import KeypointRoIHeads
from mrcnn_tf.modeling.point_rend import PointRendMaskHead
from mrcnn_tf.modeling.resnet import ResNet
from mrcnn_tf.weights import assign, layouts
from mrcnn_tf.weights.assign import Entry

NOT_NEEDED = {
    r"pixel_(mean|std)": "pixel statistics are configuration",
    r"(proposal_generator\.)?anchor_generator\.cell_anchors\.\d+": "anchors are configuration",
    r"(.*\.)?num_batches_tracked": "counts batches for a momentum that is not used",
}
NOT_NEEDED_OF_BACKBONES = NOT_NEEDED | {
    r"(stem\.)?fc\.(weight|bias)|(fc1000|pred)_[wb]": (
        "ImageNet's classifier, which a detector has no use for"
    ),
    r"(conv1|res\d_\d+_branch\w+)_b": (
        "bias in front of a norm, which Detectron2 does not have and drops too"
    ),
    r".*_momentum": "state of an optimizer",
}
# What norms without running statistics stand for: Caffe2 folded them into scale and offset.
_FOLDED = {"running_mean": 0.0, "running_var": 1.0}
# {leaf of a norm's names: Caffe2's}. `riv` holds the variance, not its inverse.
_CAFFE2_NORM = {
    "weight": ("bn_s", "bn_gamma", "gn_s"),
    "bias": ("bn_b", "bn_beta", "gn_b"),
    "running_mean": ("bn_rm", "bn_running_mean"),
    "running_var": ("bn_riv", "bn_running_var"),
}
_STATISTICS = tuple(
    ending
    for leaf in _FOLDED
    for ending in (f".{leaf}", *(f"_{name}" for name in _CAFFE2_NORM[leaf]))
)


def load(model: tf_keras.Model, state_dict: Mapping[str, Any]) -> assign.Report:
    """Assign a state dict of Detectron2 to a model built with `preset: detectron2`.

    Args:
      model: RPN, Faster or Mask R-CNN, with a cascade, PointRend or keypoints or without, with
        batch or group norms, its variables created, as many classes as the file.
      state_dict: {name: array or CPU tensor}, the `model` entry of a released pickle.

    Returns:
      What became of each tensor.

    Raises:
      ValueError: see `assign.assign`.
    """
    listed = entries(model, norms_folded=_norms_folded(state_dict))
    return assign.assign(listed, state_dict, model.weights, NOT_NEEDED)


def load_backbone(resnet: ResNet, state_dict: Mapping[str, Any]) -> assign.Report:
    """Assign one of the backbones that Detectron2 starts from, in either spelling; see `load`."""
    listed = backbone_entries(resnet, "", norms_folded=_norms_folded(state_dict))
    return assign.assign(listed, state_dict, resnet.weights, NOT_NEEDED_OF_BACKBONES)


def _norms_folded(state_dict: Mapping[str, Any]) -> bool:
    """Whether no norm has running statistics; if one has, all must."""
    return not any(name.endswith(_STATISTICS) for name in state_dict)


def entries(model: tf_keras.Model, norms_folded: bool = False) -> list[Entry]:
    """Say where each variable of the model comes from.

    Args:
      model: as for `load`.
      norms_folded: the file has no running statistics, as Detectron2's oldest.

    Raises:
      ValueError: Detectron2 has no such model.
    """
    of_backbone = functools.partial(assign.backbone_entries, "detectron2", model.backbone)
    if model.pyramid is not None:
        listed = of_backbone("backbone.bottom_up.", norms_folded=norms_folded)
        listed += _pyramid(model.pyramid)
    elif isinstance(getattr(model, "roi_heads", None), C4RoIHeads):  # they have stage 5
        listed = of_backbone("backbone.", "roi_heads.", norms_folded)
    else:
        listed = of_backbone("backbone.", norms_folded=norms_folded)
    if model.rpn is not None:  # else its proposals come from a file
        listed += _rpn(model.rpn.head)
    if hasattr(model, "roi_heads"):
        last = max(model.backbone.out_channels)
        channels = model.pyramid.channels if model.pyramid else model.backbone.out_channels[last]
        listed += _box_heads(model.roi_heads, channels)
        if model.roi_heads.mask_head is not None:
            listed += _mask_head(model.roi_heads.mask_head)
        if isinstance(model.roi_heads, KeypointRoIHeads):
            listed += _keypoint_head(model.roi_heads.keypoint_head)
    return listed


def backbone_entries(
    resnet: ResNet, prefix: str, stage5_prefix: str | None = None, norms_folded: bool = False
) -> list[Entry]:
    """Entries of a ResNet, in Detectron2's names or in Caffe2's.

    Args:
      resnet: built.
      prefix: what Detectron2's names begin with.
      stage5_prefix: what those of stage 5 begin with, if they are elsewhere.
      norms_folded: see `entries`.
    """
    stem = f"{prefix}stem.conv1"
    listed = _conv_and_norm(resnet.stem.conv1, resnet.stem.norm1, stem, "conv1", "res_conv1")
    for level, index, name, conv, norm in assign.residual_convs(resnet):
        branch = "1" if name == "shortcut" else "2" + "abc"[int(name[-1]) - 1]
        caffe2 = f"res{level}_{index}_branch{branch}"
        place = stage5_prefix if level == 5 and stage5_prefix is not None else prefix
        theirs = f"{place}res{level}.{index}.{name}"
        listed += _conv_and_norm(conv, norm, theirs, caffe2, caffe2)
    if norms_folded:
        listed = [e._replace(default=_FOLDED.get(e.names[0].rsplit(".", 1)[-1])) for e in listed]
    return listed


def _conv_and_norm(conv: Any, norm: Any, name: str, caffe2: str, caffe2_norm: str) -> list[Entry]:
    kernel, *of_norm = assign.conv_and_norm(conv, norm, name, f"{name}.norm", group_norm=True)
    listed = [kernel._replace(names=(*kernel.names, f"{caffe2}_w"))]
    for entry in of_norm:
        leaf = entry.names[0].rsplit(".", 1)[-1]
        # The stem is `res_conv1_bn_s`, but `conv1_gn_s`.
        spellings = dict.fromkeys(
            f"{place}_{ending}" for ending in _CAFFE2_NORM[leaf] for place in (caffe2_norm, caffe2)
        )
        listed.append(entry._replace(names=(*entry.names, *spellings)))
    return listed


def _pyramid(fpn: Any) -> list[Entry]:
    listed = []
    for level in range(2, 6):
        for kind in ("lateral", "output"):
            name, layer = f"backbone.fpn_{kind}{level}", getattr(fpn, f"{kind}{level}")
            if not fpn.norm:
                listed += assign.with_bias(layer, name)
            else:
                norm = getattr(fpn, f"{kind}{level}_norm")
                listed += assign.conv_and_norm(layer, norm, name, f"{name}.norm", group_norm=True)
    return listed


def _rpn(head: Any) -> list[Entry]:
    name = "proposal_generator.rpn_head"
    listed = []
    for i, layer in enumerate(head.convs):
        conv = "conv" if len(head.convs) == 1 else f"conv.conv{i}"
        listed += assign.with_bias(layer, f"{name}.{conv}")
    return [
        *listed,
        *assign.with_bias(head.objectness, f"{name}.objectness_logits"),
        *assign.with_bias(head.deltas, f"{name}.anchor_deltas", rows=layouts.BOX_ROWS),
    ]


def _box_heads(roi_heads: Any, channels: int) -> list[Entry]:
    """Entries of the box head, or of all those of a cascade, which are numbered there."""
    if not isinstance(roi_heads, CascadeRoIHeads):
        return _box_head(roi_heads.box_head, channels)
    numbered = enumerate(roi_heads.box_heads)
    return [entry for k, head in numbered for entry in _box_head(head, channels, f".{k}")]


def _box_head(head: Any, channels: int, number: str = "") -> list[Entry]:
    """Entries of a box head.

    Args:
      head: built.
      channels: of the RoI features, where hidden layers flatten them.
      number: what follows the names of head and predictor, ".0" for one.
    """
    listed = []
    for i, layer in enumerate(head.convs):
        name = f"roi_heads.box_head{number}.conv{i + 1}"
        listed += assign.head_conv(layer, [name], f"{name}.norm", group_norm=True)
        channels = layer.conv.filters
    for i, layer in enumerate(head.hidden):
        kernel = layouts.dense_after_flatten(channels) if i == 0 else layouts.DENSE
        listed += assign.with_bias(layer, f"roi_heads.box_head{number}.fc{i + 1}", kernel=kernel)
    return [*listed, *_box_predictor(head, f"roi_heads.box_predictor{number}")]


def _box_predictor(head: Any, name: str) -> list[Entry]:
    return [
        *assign.with_bias(
            head.class_logits,
            f"{name}.cls_score",
            rows=layouts.BACKGROUND_FIRST,
            kernel=layouts.DENSE,
        ),
        *assign.with_bias(
            head.box_deltas, f"{name}.bbox_pred", rows=layouts.BOX_ROWS, kernel=layouts.DENSE
        ),
    ]


def _mask_head(head: Any) -> list[Entry]:
    if isinstance(head, PointRendMaskHead):
        return _point_rend(head)
    assign.check_mask_head(head, "Detectron2", ("independent", "agnostic"))
    name = "roi_heads.mask_head"
    listed = []
    for i, layer in enumerate(head.convs):
        conv = f"{name}.mask_fcn{i + 1}"
        listed += assign.head_conv(layer, [conv], f"{conv}.norm", group_norm=True)
    return [
        *listed,
        *assign.with_bias(head.deconv, f"{name}.deconv"),
        Entry(head.predictor_kernel, (f"{name}.predictor.weight",), layouts.PREDICTOR),
        Entry(head.predictor_bias, (f"{name}.predictor.bias",), layouts.SAME),
    ]


def _point_rend(head: PointRendMaskHead) -> list[Entry]:
    """Entries of both heads, whose names were others in PointRend's first files."""

    def names(part: str, layer: str) -> tuple[str, ...]:
        old = f"roi_heads.mask_{part}.{layer}"
        renamed = old.replace("coarse_head.fc", "coarse_head.coarse_mask_fc")
        return f"roi_heads.mask_head.{part}.{layer}", renamed, old

    coarse, points = head.coarse_head, head.point_head
    listed = assign.with_bias(coarse.conv, *names("coarse_head", "reduce_spatial_dim_conv"))
    for i, layer in enumerate(coarse.hidden):
        channels = coarse.conv.filters if i == 0 else 1
        kernel = layouts.dense_after_flatten(channels)
        listed += assign.with_bias(layer, *names("coarse_head", f"fc{i + 1}"), kernel=kernel)
    listed += assign.with_bias(
        coarse.mask_logits,
        *names("coarse_head", "prediction"),
        rows=layouts.classes_last(points.num_classes - 1),
        kernel=layouts.DENSE,
    )
    for i, layer in enumerate(points.hidden):
        listed += assign.with_bias(
            layer, *names("point_head", f"fc{i + 1}"), kernel=layouts.CONV_1D
        )
    weight, bias = (
        tuple(f"{name}.{leaf}" for name in names("point_head", "predictor"))
        for leaf in ("weight", "bias")
    )
    return [
        *listed,
        Entry(points.predictor_kernel, weight, layouts.CONV_1D),
        Entry(points.predictor_bias, bias, layouts.SAME),
    ]


def _keypoint_head(head: Any) -> list[Entry]:
    name = "roi_heads.keypoint_head"
    listed = []
    for i, layer in enumerate(head.convs):
        listed += assign.with_bias(layer.conv, f"{name}.conv_fcn{i + 1}")
    return [*listed, *assign.with_bias(head.deconv, f"{name}.score_lowres")]
