"""What a weight file holds, from names and shapes alone.

`recognize` names project, system, backbone and sizes, or refuses what has no counterpart here, by
name. What else the weights need is in `conventions.py`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mrcnn_tf.weights import evidence, model_garden

Shape = tuple[int, ...]
PROJECTS = ("detectron2", "torchvision", "keras", "model_garden")

SYSTEMS = {
    "mask_rcnn": "Mask R-CNN",
    "faster_rcnn": "Faster R-CNN",
    "rpn": "RPN without RoI heads",
    "backbone": "ImageNet backbone",
}
# What Detectron2 puts a number into, if there are several box heads.
_NUMBERED = r"(roi_heads\.box_(?:head|predictor)\.)(\d)\.((?:fc|conv|cls_score|bbox_pred).*)"
_DEPTHS: dict[
    tuple[tuple[int, ...], bool], int
] = {  # (blocks per stage, whether they have three convolutions)
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
# Names that only a model of another kind has; the first that is found is reported.
_REFUSED = {
    r"sem_seg_head\.": "a model for panoptic or semantic segmentation: there is no such head here",
    r"roi_heads\.mask_head\.parameter_head\.": "Implicit PointRend, whose head does not exist here",
    r"\.reduce_channel_dim_conv\.": "a PointRend on features of several levels, which ours is not",
    r"head\.regression_head\.bbox_ctrness|fcos": "FCOS, a one-stage detector",
    r"head\.classification_head\.module_list\.": "SSD, a one-stage detector",
    r"head\.(cls_subnet|bbox_subnet|classification_head)\.": "a RetinaNet, a one-stage detector",
    r"class_embed|transformer\.encoder": "a DETR, which has no RoIs",
    r"(pos_embed|patch_embed|relative_position|encoder_layer_0|blocks\.\d+\.attn)": (
        "a network on a vision transformer; only ResNets are converted"
    ),
    r"^_?blocks\.\d+\.(\d+\.)?(_depthwise_conv|conv_dw)\.": (
        "an EfficientNet or MobileNet; only ResNets are converted. ImageNet's EfficientNet-Lite0 "
        "needs no conversion: task.model.backbone.type: efficientnet_lite0"
    ),
    r"(^|backbone\.body\.|features\.)\d+\.(block\.|\d+\.|conv\.)": (
        "a network on a MobileNet, EfficientNet or ConvNeXt; only ResNets are converted"
    ),
    r"conv2_offset": "a network with deformable convolutions, which do not exist here",
    r"stem\.conv1_[123]|stem\.conv[23]\.": "a ResNet with a stem of three convolutions",
    r"conv\d_block\d+_preact_bn": "a ResNet V2 of Keras, whose norms come first",
}


@dataclasses.dataclass(frozen=True)
class Recognized:
    """What a file holds.

    Attributes:
      project: one of `PROJECTS`.
      system: one of `SYSTEMS`.
      features: "fpn", "c4", "dc5", or "" for a backbone.
      version: 2 for torchvision's `_v2` models.
      spelling: "caffe2" for backbones in Caffe2's names, "" else.
      depth: of the ResNet.
      base_width: channels of the stem.
      groups: of the 3x3 convolutions, 1 unless a ResNeXt.
      width_per_group: as in `fields.Backbone`.
      num_classes: with background; 0 where there is no classifier.
      norm: of the backbone, as `backbone.norm`; "" for batch norms that stay as they are.
      sizes: layer sizes as fields of `fields.Model`, {"fpn": {"channels": 256}, ...}.
      anchors_per_place: of the RPN; 0 where there is none.
      num_box_heads: more than 1 in a cascade.
      told: what else the file says of the same fields (`evidence.py`).
    """

    project: str
    system: str
    features: str
    version: int
    spelling: str
    depth: int
    base_width: int
    groups: int
    width_per_group: int
    num_classes: int
    norm: str
    sizes: dict[str, dict[str, Any]]
    anchors_per_place: int
    num_box_heads: int
    told: dict[str, dict[str, Any]]

    @property
    def num_keypoints(self) -> int:
        """Of the keypoint head; 0 where there is none."""
        return self.sizes.get("keypoint_head", {}).get("num_keypoints", 0)

    def __str__(self) -> str:
        """E.g. detectron2: Mask R-CNN, ResNet-50-FPN, 80 classes and background."""
        backbone = f"{'ResNet' if self.groups == 1 else 'ResNeXt'}-{self.depth}"
        system = ("Cascade " if self.num_box_heads > 1 else "") + SYSTEMS[self.system]
        if "point_rend" in self.sizes:
            system += " with PointRend"
        if self.num_keypoints:
            is_plain = self.system == "faster_rcnn"
            system = "Keypoint R-CNN" if is_plain else f"{system} with keypoints"
        parts = [system, "-".join(filter(None, (backbone, self.features.upper())))]
        if self.num_classes:
            count = self.num_classes - 1
            parts.append(f"{count} class{'es' if count != 1 else ''} and background")
        if self.num_keypoints:
            parts.append(f"{self.num_keypoints} keypoints")
        version = " version 2" if self.version == 2 else ""
        return f"{self.project}{version}: {', '.join(parts)}"


def recognize(state_dict: Mapping[str, Any]) -> Recognized:
    """Say what a state dict is.

    Args:
      state_dict: {name: array}, as `files.read` returns it.

    Raises:
      ValueError: it is nothing that can be converted; says what it is, where that is known.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    shapes, num_box_heads = _first_box_head(shapes)
    for pattern, what in _REFUSED.items():
        name = next((n for n in shapes if re.search(pattern, n)), None)
        if name:
            raise ValueError(f"this is {what} ({name!r})")
    project, spelling, convs = _residual_convs(shapes)
    if not convs:
        some = ", ".join(sorted(shapes)[:4])
        raise ValueError(
            "not recognized: no residual blocks in the names of torchvision, Detectron2, Keras or "
            f"Model Garden. Among its {len(shapes)} tensors are {some}"
        )
    detects = project in ("torchvision", "detectron2")
    system, features = _system(shapes) if detects else ("backbone", "")
    if not {(2, 0, 1), (2, 0, 2)} <= convs.keys():
        raise ValueError("the first residual block is incomplete: is the file cut off?")
    stem_channels, inner = convs[2, 0, 1][1], convs[2, 0, 1][0]
    groups = inner // convs[2, 0, 2][1]
    recognized = Recognized(
        project=project,
        system=system,
        features=features,
        version=2 if "rpn.head.conv.1.0.weight" in shapes else 1,
        spelling=spelling,
        # An RPN on C4 has no fifth stage.
        depth=_depth(list(convs), num_stages=3 if (system, features) == ("rpn", "c4") else 4),
        base_width=stem_channels,
        groups=groups,
        width_per_group=inner * 64 // (stem_channels * groups),
        num_classes=_num_classes(shapes),
        norm=_norm_of_backbone(shapes),
        sizes=_sizes(shapes, num_box_heads) if detects else {},
        anchors_per_place=_anchors_per_place(shapes),
        num_box_heads=num_box_heads,
        told=evidence.told(state_dict, features) if features else {},
    )
    _check_variants(recognized, shapes)
    return recognized


def _first_box_head(shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], int]:
    """Name a cascade's first box head as if it were the only one, leave out the others, count."""
    found, numbers = {}, {0}
    for name, shape in shapes.items():
        match = re.fullmatch(_NUMBERED, name)
        if not match:
            found[name] = shape
            continue
        numbers.add(int(match[2]))
        if match[2] == "0":
            found[match[1] + match[3]] = shape
    return found, len(numbers)


def _residual_convs(
    shapes: Mapping[str, Shape],
) -> tuple[str, str, dict[tuple[int, int, int], Shape]]:
    """Project, spelling, and the shapes [out, in, ...] of (level 2.., block 0.., conv 1..3)."""
    spellings = {
        ("detectron2", ""): r"(?:.*\.)?res(\d)\.(\d+)\.conv(\d)\.weight",
        ("detectron2", "caffe2"): r"res(\d)_(\d+)_branch2([abc])_w",
        ("torchvision", ""): r"(?:backbone\.body\.)?layer(\d)\.(\d+)\.conv(\d)\.weight",
        ("keras", ""): r"conv(\d)_block(\d+)_(\d)_conv/kernel",
    }
    for (project, spelling), pattern in spellings.items():
        convs = {}
        for name, shape in shapes.items():
            match = re.fullmatch(pattern, name)
            if match and match[3] != "0":  # Keras' shortcut
                k = "abc".index(match[3]) + 1 if match[3] in "abc" else int(match[3])
                level = int(match[1]) + (project == "torchvision")
                index = int(match[2]) - (project == "keras")
                convs[level, index, k] = shape[::-1] if project == "keras" else shape
        if convs:
            return project, spelling, convs
    return "model_garden", "", _convs_of_model_garden(shapes)


def _convs_of_model_garden(shapes: Mapping[str, Shape]) -> dict[tuple[int, int, int], Shape]:
    """As `_residual_convs`: blocks are counted through, and one with a shortcut begins a stage."""
    short = {short: shapes[name] for name, short in model_garden.backbone_names(shapes).items()}
    convs = {}
    level, index = 1, 0
    for layer in range(2, len(short)):
        name = f"layer_with_weights-{layer}"
        if f"{name}/_shortcut/kernel" in short:
            level, index = level + 1, 0
        for k in (1, 2, 3):
            if f"{name}/_conv{k}/kernel" in short:
                convs[level, index, k] = short[f"{name}/_conv{k}/kernel"][::-1]
        index += 1
    return convs


def _depth(convs: Sequence[tuple[int, int, int]], num_stages: int) -> int:
    stages = range(2, 2 + num_stages)
    blocks = tuple(len({i for level, i, _ in convs if level == stage}) for stage in stages)
    bottleneck = any(k == 3 for _, _, k in convs)
    for (counts, has_three_convs), depth in _DEPTHS.items():
        if (counts[:num_stages], has_three_convs) == (blocks, bottleneck):
            return depth
    kind = "bottleneck" if bottleneck else "basic"
    raise ValueError(
        f"a ResNet with {blocks} {kind} blocks in its stages: none of the depths "
        f"{sorted(_DEPTHS.values())}"
    )


def _system(shapes: Mapping[str, Shape]) -> tuple[str, str]:
    """System and features of a torchvision or Detectron2 model."""
    if not any(name.startswith(("rpn.", "proposal_generator.")) for name in shapes):
        return "backbone", ""
    has_fpn = any(name.startswith(("backbone.fpn.", "backbone.fpn_")) for name in shapes)
    if any(re.search(r"\.mask_(head|predictor|coarse_head)\.", name) for name in shapes):
        system = "mask_rcnn"
    else:
        system = "faster_rcnn" if any(".box_predictor." in name for name in shapes) else "rpn"
    if not has_fpn and "rpn.head.cls_logits.weight" in shapes:
        raise ValueError("this is a model of torchvision without a feature pyramid")
    if has_fpn:
        return system, "fpn"
    return system, "dc5" if "backbone.res5.0.conv1.weight" in shapes else "c4"


def _num_classes(shapes: Mapping[str, Shape]) -> int:
    return shapes.get("roi_heads.box_predictor.cls_score.weight", (0,))[0]


def _anchors_per_place(shapes: Mapping[str, Shape]) -> int:
    logits = r"(rpn\.head\.cls_logits|proposal_generator\.rpn_head\.objectness_logits)\.weight"
    return (_first(shapes, logits) or (0,))[0]


def _first(shapes: Mapping[str, Shape], *patterns: str) -> Shape | None:
    return next((s for p in patterns for n, s in shapes.items() if re.fullmatch(p, n)), None)


def _count(shapes: Mapping[str, Shape], *patterns: str) -> int:
    return sum(bool(re.fullmatch(p, name)) for name in shapes for p in patterns)


def _sizes(shapes: Mapping[str, Shape], num_box_heads: int) -> dict[str, dict[str, Any]]:
    """Layer sizes and norms, as fields of `fields.Model`."""
    sizes: dict[str, dict[str, Any]] = {}
    lateral = _first(
        shapes, r"backbone\.fpn_lateral5\.weight", r"backbone\.fpn\.inner_blocks\.3(\.0)?\.weight"
    )
    if lateral:
        sizes["fpn"] = {"channels": lateral[0]} | _norm(shapes, r"backbone\.fpn.*")
    rpn_convs = _count(
        shapes,
        r"rpn\.head\.conv\.\d+\.0\.weight",
        r"proposal_generator\.rpn_head\.conv\.conv\d+\.weight",
    )
    if rpn_convs > 1:
        sizes["rpn"] = {"conv_layers": rpn_convs}
    # What heads with layers of their own look at; in C4, stage 5 is in their place.
    pooled = lateral or _first(shapes, r"backbone\.res5\.0\.shortcut\.weight")
    fc = r"roi_heads\.box_head\.(fc)?\d+\.weight"
    hidden = _first(shapes, fc)
    if hidden and pooled:
        convs = r"roi_heads\.box_head\.(\d+\.0|conv\d+)\.weight"
        conv = _first(shapes, convs)
        channels = (conv or pooled)[0]
        sizes["box_head"] = {
            "fc_layers": _count(shapes, fc),
            "fc_channels": hidden[0],
            "pool_size": round((hidden[1] // channels) ** 0.5),
        } | _norm(shapes, r"roi_heads\.box_head\..*")
        if conv:
            sizes["box_head"] |= {"conv_layers": _count(shapes, convs), "conv_channels": channels}
    convs = r"roi_heads\.mask_head\.(mask_fcn\d+|\d+\.0)\.weight"
    deconv = _first(shapes, r"roi_heads\.(mask_head\.deconv|mask_predictor\.conv5_mask)\.weight")
    if deconv:
        sizes["mask_head"] = {"conv_channels": deconv[1]}
        maps = shapes.get("roi_heads.mask_head.predictor.weight", (0,))[0]
        if maps == 1 and _num_classes(shapes) > 2:
            sizes["mask_head"]["classes"] = "agnostic"
        if pooled:
            sizes["mask_head"]["conv_layers"] = _count(shapes, convs)
            sizes["mask_head"] |= _norm(shapes, r"roi_heads\.mask_head\..*")
    sizes |= _point_rend(shapes)
    heat = _first(
        shapes, r"roi_heads\.(keypoint_head\.score|keypoint_predictor\.kps_score)_lowres\.weight"
    )
    if heat:
        convs = r"roi_heads\.keypoint_head\.(conv_fcn)?\d+\.weight"
        sizes["keypoint_head"] = {
            "num_keypoints": heat[1],
            "conv_layers": _count(shapes, convs),
            "conv_channels": heat[0],
        }
    deltas = shapes.get("roi_heads.box_predictor.bbox_pred.weight")
    # Of one class alone it makes no difference, except that a cascade's are never said to be per
    # class.
    if deltas and deltas[0] == 4 and (_num_classes(shapes) > 2 or num_box_heads > 1):
        sizes["box_head"] = sizes.get("box_head", {}) | {"class_agnostic": True}
    return sizes


def _point_rend(shapes: Mapping[str, Shape]) -> dict[str, dict[str, Any]]:
    """Sizes of Detectron2's PointRend, in its names of today and of before."""
    coarse = r"roi_heads\.(mask_head\.coarse_head|mask_coarse_head)\."
    points = r"roi_heads\.(mask_head\.point_head|mask_point_head)\."
    masks = _first(shapes, coarse + r"prediction\.weight")
    conv = _first(shapes, coarse + r"reduce_spatial_dim_conv\.weight")
    predictor = _first(shapes, points + r"predictor\.weight")
    if masks is None or conv is None or predictor is None:
        return {}
    num_classes = _num_classes(shapes) - 1
    if predictor[0] != num_classes:
        raise ValueError(
            f"this is a PointRend with {predictor[0]} masks for {num_classes} classes, which ours "
            "has one each for"
        )
    coarse_fc, fc = coarse + r"(coarse_mask_)?fc\d+\.weight", points + r"fc\d+\.weight"
    return {
        "point_rend": {
            "num_points": 196,
            "coarse_size": round((masks[0] / num_classes) ** 0.5),
            "coarse_channels": conv[0],
            "coarse_fc_layers": _count(shapes, coarse_fc),
            "coarse_fc_channels": masks[1],
            "fc_layers": _count(shapes, fc),
            "fc_channels": (_first(shapes, fc) or (0,))[0],
        }
    }


def _norm(shapes: Mapping[str, Shape], layers: str) -> dict[str, str]:
    if _first(shapes, layers + r"\.running_mean"):
        return {"norm": "batch_norm"}
    return {"norm": "group_norm"} if _first(shapes, layers + r"\.norm\.weight") else {}


def _norm_of_backbone(shapes: Mapping[str, Shape]) -> str:
    """Kind of a Detectron2 backbone's norms, where it is not the usual one.

    Names do not tell a group norm from a batch norm that was folded into scale and offset; but the
    latter's pyramids have no norms.
    """
    if _first(shapes, r"res\d_\d+_branch\w+_gn_s"):
        return "group_norm"
    return _norm(shapes, r"backbone\.fpn.*").get("norm", "") if _is_detectron2(shapes) else ""


def _is_detectron2(shapes: Mapping[str, Shape]) -> bool:
    return any(name.startswith("backbone.fpn_") for name in shapes)


def _check_variants(recognized: Recognized, shapes: Mapping[str, Shape]) -> None:
    """Refuse variants of the known models that do not exist here."""
    keypoints = next((n for n in shapes if re.search(r"roi_heads\.keypoint_", n)), None)
    is_whole = recognized.num_keypoints and recognized.sizes["keypoint_head"]["conv_layers"]
    if keypoints and (recognized.features != "fpn" or not is_whole or recognized.num_box_heads > 1):
        raise ValueError(
            "this is a model with a keypoint head that is not Keypoint R-CNN's on a pyramid "
            f"({keypoints!r})"
        )
    agnostic = recognized.sizes.get("box_head", {}).get("class_agnostic", False)
    if agnostic and recognized.project == "torchvision":
        raise ValueError(
            "this model has boxes that do not depend on the class, which torchvision's do"
        )
    if recognized.num_box_heads not in (1, 3) or (recognized.num_box_heads == 3 and not agnostic):
        raise ValueError(
            f"this is a Cascade R-CNN of {recognized.num_box_heads} box heads with boxes "
            f"{'of all classes' if agnostic else 'per class'}; Detectron2's have three with boxes "
            "of all classes"
        )
