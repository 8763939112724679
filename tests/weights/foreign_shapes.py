"""Names and shapes of other projects' files, of any size: what the importers are tested with.

Written down a second time, from those projects, not derived from the importers. Where the
recordings are at hand, a test compares these with the lists of released files.
"""

import dataclasses

import numpy as np

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Released models have the defaults; tests that compute make them small."""

    depth: int = 50
    base_width: int = 64
    groups: int = 1
    width_per_group: int = 64
    channels: int = 256  # pyramid and mask head
    hidden: int = 1024
    pool: int = 7
    convs: int = 4


def small(depth=18, **sizes):
    """A file of kilobytes."""
    given = {"base_width": 4, "width_per_group": 4, "channels": 8, "hidden": 6, "pool": 2}
    return Sizes(depth=depth, **(given | {"convs": 1} | sizes))


def state_dict(shapes, seed=0):
    """Values for names and shapes; variances are positive."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(0.5, 1.5, shape).astype(np.float32)
        if "var" in name.rsplit(".", 1)[-1]
        else rng.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def residual_convs(sizes):
    """Yield level, block, k (0: shortcut), shape OIHW."""
    bottleneck = sizes.depth >= 50
    inputs = sizes.base_width
    for level, count in zip(range(2, 6), BLOCKS[sizes.depth], strict=True):
        plain = sizes.base_width * 2 ** (level - 2)
        inner = sizes.groups * sizes.width_per_group * 2 ** (level - 2)
        outputs = 4 * plain if bottleneck else plain
        for block in range(count):
            if bottleneck:
                yield level, block, 1, (inner, inputs, 1, 1)
                yield level, block, 2, (inner, inner // sizes.groups, 3, 3)
                yield level, block, 3, (outputs, inner, 1, 1)
            else:
                yield level, block, 1, (outputs, inputs, 3, 3)
                yield level, block, 2, (outputs, outputs, 3, 3)
            if block == 0 and (bottleneck or level > 2):
                yield level, block, 0, (outputs, inputs, 1, 1)
            inputs = outputs


def out_channels(sizes, level):
    return sizes.base_width * 2 ** (level - 2) * (4 if sizes.depth >= 50 else 1)


def _norm(name, channels):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (channels,) for leaf in leaves}


def _layer(name, *shape, outputs=None):
    return {f"{name}.weight": shape, f"{name}.bias": (outputs or shape[0],)}


# --- torchvision --------------------------------------------------------------------------------


def torchvision_backbone(sizes, prefix="", classifier=True):
    shapes = {f"{prefix}conv1.weight": (sizes.base_width, 3, 7, 7)}
    shapes |= _norm(f"{prefix}bn1", sizes.base_width)
    for level, block, k, shape in residual_convs(sizes):
        at = f"{prefix}layer{level - 1}.{block}."
        conv, norm = (f"conv{k}", f"bn{k}") if k else ("downsample.0", "downsample.1")
        shapes |= {f"{at}{conv}.weight": shape} | _norm(at + norm, shape[0])
    return shapes | (_layer("fc", 10, out_channels(sizes, 5)) if classifier else {})


def torchvision(sizes, system="mask_rcnn", outputs=91, newer=False, keypoints=0):
    """Version 1, in the released spelling or the one since 0.14."""
    c = sizes.channels
    shapes = torchvision_backbone(sizes, "backbone.body.", classifier=False)
    dot = ".0" if newer else ""
    for i in range(4):
        shapes |= _layer(f"backbone.fpn.inner_blocks.{i}{dot}", c, out_channels(sizes, i + 2), 1, 1)
        shapes |= _layer(f"backbone.fpn.layer_blocks.{i}{dot}", c, c, 3, 3)
    shapes |= _layer("rpn.head.conv" + 2 * dot, c, c, 3, 3)
    shapes |= _layer("rpn.head.cls_logits", 3, c, 1, 1)
    shapes |= _layer("rpn.head.bbox_pred", 12, c, 1, 1)
    shapes |= _layer("roi_heads.box_head.fc6", sizes.hidden, c * sizes.pool**2)
    shapes |= _layer("roi_heads.box_head.fc7", sizes.hidden, sizes.hidden)
    shapes |= _layer("roi_heads.box_predictor.cls_score", outputs, sizes.hidden)
    shapes |= _layer("roi_heads.box_predictor.bbox_pred", 4 * outputs, sizes.hidden)
    if system == "mask_rcnn":
        for i in range(sizes.convs):
            name = f"{i}.0" if newer else f"mask_fcn{i + 1}"
            shapes |= _layer(f"roi_heads.mask_head.{name}", c, c, 3, 3)
        shapes |= _layer("roi_heads.mask_predictor.conv5_mask", c, c, 2, 2)
        shapes |= _layer("roi_heads.mask_predictor.mask_fcn_logits", outputs, c, 1, 1)
    if keypoints:  # eight convolutions of 512, each with its ReLU
        for i in range(8):
            shapes |= _layer(f"roi_heads.keypoint_head.{2 * i}", 2 * c, 2 * c if i else c, 3, 3)
        logits = "roi_heads.keypoint_predictor.kps_score_lowres"
        shapes |= _layer(logits, 2 * c, keypoints, 4, 4, outputs=keypoints)
    return shapes


def torchvision_v2(sizes, outputs=91):
    """`maskrcnn_resnet50_fpn_v2`: norms in the pyramid and the heads, deeper RPN and box head."""
    c = sizes.channels
    shapes = torchvision_backbone(sizes, "backbone.body.", classifier=False)

    def conv_norm(name, *shape):
        counter = {f"{name}.1.num_batches_tracked": ()}
        return {f"{name}.0.weight": shape} | _norm(f"{name}.1", shape[0]) | counter

    for i in range(4):
        inputs = out_channels(sizes, i + 2)
        shapes |= conv_norm(f"backbone.fpn.inner_blocks.{i}", c, inputs, 1, 1)
        shapes |= conv_norm(f"backbone.fpn.layer_blocks.{i}", c, c, 3, 3)
    for i in range(sizes.convs):
        shapes |= conv_norm(f"roi_heads.box_head.{i}", c, c, 3, 3)
        shapes |= conv_norm(f"roi_heads.mask_head.{i}", c, c, 3, 3)
    shapes |= _layer("rpn.head.conv.0.0", c, c, 3, 3) | _layer("rpn.head.conv.1.0", c, c, 3, 3)
    shapes |= _layer("rpn.head.cls_logits", 3, c, 1, 1)
    shapes |= _layer("rpn.head.bbox_pred", 12, c, 1, 1)
    shapes |= _layer(f"roi_heads.box_head.{sizes.convs + 1}", sizes.hidden, c * sizes.pool**2)
    shapes |= _layer("roi_heads.box_predictor.cls_score", outputs, sizes.hidden)
    shapes |= _layer("roi_heads.box_predictor.bbox_pred", 4 * outputs, sizes.hidden)
    shapes |= _layer("roi_heads.mask_predictor.conv5_mask", c, c, 2, 2)
    return shapes | _layer("roi_heads.mask_predictor.mask_fcn_logits", outputs, c, 1, 1)


# --- Detectron2 ---------------------------------------------------------------------------------


def detectron2_backbone(sizes, prefix="", stage5_prefix=None, last_level=5):
    """The names of Detectron2; those it made from torchvision have the prefix ""."""
    shapes = {f"{prefix}stem.conv1.weight": (sizes.base_width, 3, 7, 7)}
    shapes |= _norm(f"{prefix}stem.conv1.norm", sizes.base_width)
    for level, block, k, shape in residual_convs(sizes):
        if level > last_level:
            continue
        place = prefix if level < 5 or stage5_prefix is None else stage5_prefix
        name = f"{place}res{level}.{block}." + (f"conv{k}" if k else "shortcut")
        shapes |= {f"{name}.weight": shape} | _norm(f"{name}.norm", shape[0])
    return shapes


def caffe2_backbone(sizes, norm="bn", stem="res_conv1", leaves=("s", "b")):
    """As Caffe2 named them; norms are a scale and an offset.

    Some have statistics too, `rm` and `riv`; those of group norm are `gn` and have another stem.
    """
    shapes = {"conv1_w": (sizes.base_width, 3, 7, 7), "conv1_b": (sizes.base_width,)}
    shapes |= {f"{stem}_{norm}_{leaf}": (sizes.base_width,) for leaf in leaves}
    for level, block, k, shape in residual_convs(sizes):
        name = f"res{level}_{block}_branch" + ("2" + "abc"[k - 1] if k else "1")
        shapes |= {f"{name}_w": shape} | {f"{name}_{norm}_{leaf}": shape[:1] for leaf in leaves}
    return shapes | {"fc1000_w": (10, out_channels(sizes, 5)), "fc1000_b": (10,)}


def detectron2(
    sizes,
    system="mask_rcnn",
    features="fpn",
    classes=80,
    cascade=False,
    point_rend=False,
    keypoints=0,
):
    """With `cascade`, `CascadeROIHeads`: three box heads whose boxes are of all classes.

    With `point_rend`, `PointRendMaskHead`.
    """
    c = sizes.channels
    if features == "fpn":
        shapes = detectron2_backbone(sizes, "backbone.bottom_up.")
        for level in range(2, 6):
            inputs = out_channels(sizes, level)
            shapes |= _layer(f"backbone.fpn_lateral{level}", c, inputs, 1, 1)
            shapes |= _layer(f"backbone.fpn_output{level}", c, c, 3, 3)
        rpn, anchors, roi = c, 3, c
    elif features == "dc5":
        shapes = detectron2_backbone(sizes, "backbone.")
        rpn, anchors, roi = out_channels(sizes, 5), 15, out_channels(sizes, 5)
    else:
        last = 4 if system == "rpn" else 5
        shapes = detectron2_backbone(sizes, "backbone.", "roi_heads.", last)
        rpn, anchors, roi = out_channels(sizes, 4), 15, out_channels(sizes, 5)
    name = "proposal_generator.rpn_head"
    shapes |= _layer(f"{name}.conv", rpn, rpn, 3, 3)
    shapes |= _layer(f"{name}.objectness_logits", anchors, rpn, 1, 1)
    shapes |= _layer(f"{name}.anchor_deltas", 4 * anchors, rpn, 1, 1)
    if system == "rpn":
        return shapes
    hidden = roi
    for stage in (".0", ".1", ".2") if cascade else ("",):
        if features != "c4":
            hidden = sizes.hidden
            shapes |= _layer(f"roi_heads.box_head{stage}.fc1", hidden, roi * sizes.pool**2)
            shapes |= _layer(f"roi_heads.box_head{stage}.fc2", hidden, hidden)
        predictor = f"roi_heads.box_predictor{stage}"
        shapes |= _layer(f"{predictor}.cls_score", classes + 1, hidden)
        shapes |= _layer(f"{predictor}.bbox_pred", 4 if cascade else 4 * classes, hidden)
    if point_rend:
        return shapes | point_rend_head(c, sizes.hidden, classes)
    if system == "mask_rcnn":
        for i in range(sizes.convs if features != "c4" else 0):
            shapes |= _layer(f"roi_heads.mask_head.mask_fcn{i + 1}", c, c if i else roi, 3, 3)
        inputs = roi if features == "c4" else c
        shapes |= _layer("roi_heads.mask_head.deconv", inputs, c, 2, 2, outputs=c)
        shapes |= _layer("roi_heads.mask_head.predictor", classes, c, 1, 1)
    if keypoints:
        name = "roi_heads.keypoint_head"
        for i in range(8):
            shapes |= _layer(f"{name}.conv_fcn{i + 1}", 2 * c, 2 * c if i else c, 3, 3)
        shapes |= _layer(f"{name}.score_lowres", 2 * c, keypoints, 4, 4, outputs=keypoints)
    return shapes


def detectron2_norms(sizes, classes=80, group=True):
    """Its Misc/mask_rcnn_R_50_FPN_3x_gn and _syncbn: norms everywhere, 4 convolutions and 1 fc."""
    c = sizes.channels
    shapes = detectron2(sizes, classes=classes)
    convs = [
        f"backbone.fpn_{kind}{level}" for kind in ("lateral", "output") for level in range(2, 6)
    ]
    convs += [f"roi_heads.mask_head.mask_fcn{i + 1}" for i in range(sizes.convs)]
    for name in convs:
        del shapes[f"{name}.bias"]
        shapes |= _norm(f"{name}.norm", c)
    for name in ("fc1", "fc2"):
        del shapes[f"roi_heads.box_head.{name}.weight"], shapes[f"roi_heads.box_head.{name}.bias"]
    for i in range(sizes.convs):
        name = f"roi_heads.box_head.conv{i + 1}"
        shapes |= {f"{name}.weight": (c, c, 3, 3)} | _norm(f"{name}.norm", c)
    shapes |= _layer("roi_heads.box_head.fc1", sizes.hidden, c * sizes.pool**2)
    return {n: s for n, s in shapes.items() if not (group and "running" in n)}


def point_rend_head(channels, hidden, classes):
    """`PointRendMaskHead`: coarse masks of 7 x 7, points of three layers."""
    coarse, points = "roi_heads.mask_head.coarse_head", "roi_heads.mask_head.point_head"
    shapes = _layer(f"{coarse}.reduce_spatial_dim_conv", channels, channels, 2, 2)
    shapes |= _layer(f"{coarse}.fc1", hidden, channels * 49)
    shapes |= _layer(f"{coarse}.fc2", hidden, hidden)
    shapes |= _layer(f"{coarse}.prediction", classes * 49, hidden)
    for i in range(3):
        shapes |= _layer(f"{points}.fc{i + 1}", channels, channels + classes, 1)
    return shapes | _layer(f"{points}.predictor", classes, channels + classes, 1)


def detectron2_buffers(
    sizes=(32, 64, 128, 256, 512), ratios=(0.5, 1, 2), mean=(103.53, 116.28, 123.675), std=(1, 1, 1)
):
    """What a checkpoint of a run says of anchors and pixels: tensors, not shapes."""
    levels = {
        f"proposal_generator.anchor_generator.cell_anchors.{level}": np.float32(
            [[-s / r**0.5, -s * r**0.5, s / r**0.5, s * r**0.5] for r in ratios]
        )
        * np.float32(0.5)
        for level, s in enumerate(sizes)
    }
    pixels = {"pixel_mean": np.float32(mean), "pixel_std": np.float32(std)}
    return levels | {name: value.reshape(3, 1, 1) for name, value in pixels.items()}


# --- Keras and Model Garden ---------------------------------------------------------------------


def keras(sizes, classifier=True):
    def conv(prefix, shape):
        found = {f"{prefix}_conv/kernel": shape[:1:-1] + shape[1::-1]}  # HWIO
        found |= {f"{prefix}_conv/bias": shape[:1]}
        norm = ("gamma", "beta", "moving_mean", "moving_variance")
        return found | {f"{prefix}_bn/{leaf}": shape[:1] for leaf in norm}

    shapes = conv("conv1", (sizes.base_width, 3, 7, 7))
    for level, block, k, shape in residual_convs(sizes):
        shapes |= conv(f"conv{level}_block{block + 1}_{k}", shape)
    top = {"predictions/kernel": (out_channels(sizes, 5), 10), "predictions/bias": (10,)}
    return shapes | (top if classifier else {})


def model_garden(sizes, prefix="backbone/"):
    def norm(name, channels):
        leaves = ("gamma", "beta", "moving_mean", "moving_variance")
        return {f"{name}/{leaf}": (channels,) for leaf in leaves}

    layer = f"{prefix}layer_with_weights-"
    shapes = {f"{layer}0/kernel": (7, 7, 3, sizes.base_width)}
    shapes |= norm(f"{layer}1", sizes.base_width)
    order = []
    for level, block, k, shape in residual_convs(sizes):
        if (level, block) not in order:
            order.append((level, block))
        name = f"{layer}{2 + order.index((level, block))}"
        kernel = f"{name}/_conv{k}/kernel" if k else f"{name}/_shortcut/kernel"
        shapes |= {kernel: shape[:1:-1] + shape[1::-1]} | norm(f"{name}/_norm{k}", shape[0])
    return shapes
