"""ResNet-18/34/50/101/152, the backbone: images in, the feature maps C2..C5 out.

Shape letters: `B` images, `H W` network-input size, `Hl Wl` size of level l (stride 2**l), `C`
channels. With explicit symmetric padding, `Hl` is `H / 2**l` rounded up, step by step.

Levels are named by their stride. Dilated, stage 5 has stage 4's, and so takes its place at level 4.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment.fields import Backbone as Defaults
from mrcnn_tf.modeling import normalization
from mrcnn_tf.modeling.conv import Conv2D, DilatedConv2D, normalised
from mrcnn_tf.modeling.normalization import NormBuilder

# Depth: number of residual blocks in the stages 2..5 (He et al. 2016, arXiv:1512.03385, table 1).
_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
DEPTHS = (*_BASIC, *_BOTTLENECK)

# What people call them: {name: fields of `fields.Backbone`}.
_IN_3X3 = {"stride_in_1x1": False}  # as published
VARIANTS: dict[str, dict[str, Any]] = {f"resnet{depth}": {"depth": depth} for depth in DEPTHS} | {
    "resnext50_32x4d": {"depth": 50, "groups": 32, "width_per_group": 4} | _IN_3X3,
    "resnext101_32x8d": {"depth": 101, "groups": 32, "width_per_group": 8} | _IN_3X3,
    "resnext101_64x4d": {"depth": 101, "groups": 64, "width_per_group": 4} | _IN_3X3,
}


def check(fields: Defaults) -> None:
    """Refuse what `ResNet` cannot be built with; see `backbones.Entry.check`."""
    if fields.depth not in DEPTHS:
        allowed = ", ".join(map(str, DEPTHS))
        raise ValueError(f"task.model.backbone.depth: got {fields.depth!r}, allowed are {allowed}")
    if fields.freeze_at not in range(6):
        raise ValueError(
            f"task.model.backbone.freeze_at: got {fields.freeze_at!r}, allowed are 0 (nothing) to "
            "5 (all)"
        )
    if fields.groups > 1 and fields.depth in _BASIC:
        raise ValueError(
            f"task.model.backbone.groups: got {fields.groups}, but depth {fields.depth} has no "
            "bottlenecks to group"
        )
    channels = fields.base_width * fields.width_per_group / 64  # of a group, see BottleneckBlock
    if fields.depth not in _BASIC and (channels < 1 or (fields.groups > 1 and channels % 1)):
        raise ValueError(
            f"task.model.backbone.width_per_group: got {fields.width_per_group}, but with "
            f"base_width {fields.base_width} a group has {fields.width_per_group} x "
            f"{fields.base_width} / 64 = {channels:g} channels: it needs a whole number"
        )


class Stem(tf_keras.layers.Layer):
    """7x7 convolution of stride 2, norm, ReLU, 3x3 max pooling of stride 2.

    Args:
      filters: number of output channels.
      build_norm: called with `name`, returns a normalisation layer.
      name: layer name.
    """

    def __init__(self, filters: int, build_norm: NormBuilder, name: str | None = None):
        super().__init__(name=name)
        self.conv1 = Conv2D(filters, 7, 2, name="conv1")
        self.norm1 = build_norm(name="norm1")

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, 3] -> [B, H/4, W/4, filters], rounded up."""
        features = tf.nn.relu(normalised(self.conv1, self.norm1, images, training))
        # Zeros cannot win over the outputs of a ReLU, so they serve as the pooling's padding.
        padded = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.nn.max_pool2d(padded, 3, 2, "VALID")


class BasicBlock(tf_keras.layers.Layer):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34).

    Args:
      width: channels of both convolutions and of the output.
      stride: stride of the first convolution and of the shortcut.
      project: whether the shortcut is a 1x1 convolution with norm, else the identity.
      dilated: the taps of both convolutions lie two pixels apart; then `stride` is 1.
      build_norm: called with `name`, returns a normalisation layer.
      name: layer name.
    """

    def __init__(
        self,
        width: int,
        stride: int,
        project: bool,
        dilated: bool,
        build_norm: NormBuilder,
        name: str | None = None,
    ):
        super().__init__(name=name)
        conv = DilatedConv2D if dilated else Conv2D
        self.conv1 = conv(width, 3, stride, name="conv1")
        self.norm1 = build_norm(name="norm1")
        self.conv2 = conv(width, 3, name="conv2")
        self.norm2 = build_norm(name="norm2")
        self.shortcut = Conv2D(width, 1, stride, name="shortcut") if project else None
        self.shortcut_norm = build_norm(name="shortcut_norm") if project else None

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, h, w, Cin] -> [B, h/stride, w/stride, width], rounded up."""
        x = tf.nn.relu(normalised(self.conv1, self.norm1, inputs, training))
        x = normalised(self.conv2, self.norm2, x, training)
        if self.shortcut is not None and self.shortcut_norm is not None:
            inputs = normalised(self.shortcut, self.shortcut_norm, inputs, training)
        return tf.nn.relu(x + inputs)


class BottleneckBlock(tf_keras.layers.Layer):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the output has `4 * width` channels.

    Args:
      width: channels of the first two convolutions, in a plain ResNet.
      groups: of the 3x3 convolution; more than 1 is a ResNeXt (arXiv:1611.05431).
      width_per_group: the first two convolutions of stage 2 have `groups * width_per_group`
        channels where a plain ResNet has 64; in further stages the same multiple.
      stride: stride of the block.
      project: whether the shortcut is a 1x1 convolution with norm, else the identity.
      dilated: the taps of the 3x3 convolution lie two pixels apart; then `stride` is 1.
      stride_in_1x1: the first convolution strides (the original MSRA models, hence Detectron2's
        and Keras' weights); else the 3x3 does (torchvision, "v1.5").
      build_norm: called with `name`, returns a normalisation layer.
      name: layer name.
    """

    def __init__(
        self,
        width: int,
        stride: int,
        project: bool,
        dilated: bool,
        stride_in_1x1: bool,
        groups: int,
        width_per_group: int,
        build_norm: NormBuilder,
        name: str | None = None,
    ):
        super().__init__(name=name)
        inner = width * groups * width_per_group // 64
        self.conv1 = Conv2D(inner, 1, stride if stride_in_1x1 else 1, name="conv1")
        self.norm1 = build_norm(name="norm1")
        conv = DilatedConv2D if dilated else Conv2D
        self.conv2 = conv(inner, 3, 1 if stride_in_1x1 else stride, groups, name="conv2")
        self.norm2 = build_norm(name="norm2")
        self.conv3 = Conv2D(4 * width, 1, name="conv3")
        self.norm3 = build_norm(name="norm3")
        self.shortcut = Conv2D(4 * width, 1, stride, name="shortcut") if project else None
        self.shortcut_norm = build_norm(name="shortcut_norm") if project else None

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, h, w, Cin] -> [B, h/stride, w/stride, 4 * width], rounded up."""
        x = tf.nn.relu(normalised(self.conv1, self.norm1, inputs, training))
        x = tf.nn.relu(normalised(self.conv2, self.norm2, x, training))
        x = normalised(self.conv3, self.norm3, x, training)
        if self.shortcut is not None and self.shortcut_norm is not None:
            inputs = normalised(self.shortcut, self.shortcut_norm, inputs, training)
        return tf.nn.relu(x + inputs)


class Stage(tf_keras.layers.Layer):
    """Residual blocks of one resolution; the first one strides and projects its shortcut.

    Args:
      build_block: called with `stride`, `project` and `name`, returns a block.
      num_blocks: number of blocks.
      stride: stride of the first block.
      project: whether the first block's shortcut is a convolution.
      name: layer name.
    """

    def __init__(
        self,
        build_block: Callable[..., tf_keras.layers.Layer],
        num_blocks: int,
        stride: int,
        project: bool = True,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.blocks = [
            build_block(
                stride=stride if i == 0 else 1, project=project and i == 0, name=f"block{i}"
            )
            for i in range(num_blocks)
        ]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, h, w, Cin] -> [B, h/stride, w/stride, Cout], rounded up."""
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return inputs


class ResNet(tf_keras.layers.Layer):
    """Residual network without its classifier.

    Layers: `stem`, `stage2` .. `stage5` (Detectron2's res2..res5), in them `block0` .., in these
    `conv1` `norm1` `conv2` ... and, in the first block of a stage, `shortcut` `shortcut_norm`.
    Convolutions have no bias: a norm follows each.

    Args:
      depth: one of `DEPTHS`.
      base_width: channels of the stem and of stage 2's inner convolutions, 64 as published; each
        further stage has twice the channels of the one before.
      stride_in_1x1: see `BottleneckBlock`; basic blocks always stride in their first 3x3.
      norm: one of `normalization.KINDS`.
      norm_epsilon: added to variances; Keras' ImageNet weights were trained with 1.001e-5.
      norm_momentum: see `normalization.build`.
      freeze_at: what does not train, counted as Detectron2 counts: 0 nothing, 1 the stem, l >= 2
        the stem and the stages 2..l. The batch norms in it use their moving statistics.
      groups: see `BottleneckBlock`; 32 of 8 are Detectron2's X101-32x8d.
      width_per_group: see `BottleneckBlock`.
      last_level: where `call` stops. With 4 (the C4 network), `stage5` is there as `roi_stage`.
      dilated: stage 5 has no stride and dilated 3x3 convolutions in its place, which see as far
        (DC5). It takes the place of stage 4 in what `call` returns.
      name: layer name.

    Raises:
      ValueError: `depth`, `norm` or `freeze_at` is not one of the allowed values.

    Source: He et al. 2016, arXiv:1512.03385. Padding is symmetric and explicit as in the original
    and in torch, unlike TensorFlow's SAME.
    """

    def __init__(
        self,
        depth: int = Defaults.depth,
        base_width: int = Defaults.base_width,
        groups: int = Defaults.groups,
        width_per_group: int = Defaults.width_per_group,
        stride_in_1x1: bool = Defaults.stride_in_1x1,
        norm: str = Defaults.norm,
        norm_epsilon: float = Defaults.norm_epsilon,
        norm_momentum: float = Defaults.norm_momentum,
        freeze_at: int = Defaults.freeze_at,
        last_level: int = 5,
        dilated: bool = False,
        name: str = "resnet",
    ):
        super().__init__(name=name)
        if depth not in DEPTHS:
            raise ValueError(f"ResNet depth must be one of {DEPTHS}, not {depth!r}")
        if freeze_at not in range(6):
            raise ValueError(f"freeze_at must be 0 (nothing) .. 5 (all), not {freeze_at!r}")
        self.depth = depth
        self.last_level = last_level
        self.dilated = dilated
        self.stride_in_1x1 = stride_in_1x1
        build_norm = functools.partial(
            normalization.build, norm, epsilon=norm_epsilon, momentum=norm_momentum
        )
        bottleneck = depth in _BOTTLENECK
        self.stem = Stem(base_width, build_norm, name="stem")
        self.out_channels: dict[int, int] = {}  # {level: channels}
        block: Callable[..., tf_keras.layers.Layer]
        if bottleneck:
            block = functools.partial(
                BottleneckBlock,
                stride_in_1x1=stride_in_1x1,
                groups=groups,
                width_per_group=width_per_group,
            )
        else:
            block = BasicBlock
        for level, num_blocks in zip(range(2, 6), (_BOTTLENECK | _BASIC)[depth], strict=True):
            width = base_width * 2 ** (level - 2)
            self.out_channels[self._level_of(level)] = 4 * width if bottleneck else width
            is_dilated = dilated and level == 5
            stage = Stage(
                functools.partial(block, width=width, dilated=is_dilated, build_norm=build_norm),
                num_blocks,
                stride=1 if level == 2 or is_dilated else 2,
                # Stage 2 of a basic ResNet has the stem's channels and resolution.
                project=bottleneck or level > 2,
                name=f"stage{level}",
            )
            setattr(self, f"stage{level}", stage)
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        for layer in [self.stem, self.stage2, self.stage3, self.stage4, self.stage5][:freeze_at]:
            layer.trainable = False

    def _level_of(self, stage: int) -> int:
        """Level of what a stage puts out, named by its stride."""
        return 4 if stage == 5 and self.dilated else stage

    @property
    def roi_stage(self) -> Stage:
        """The stage that C4 applies to each RoI."""
        return self.stage5

    def call(self, images: tf.Tensor, training: bool = False) -> dict[int, tf.Tensor]:
        """Compute the feature maps.

        Args:
          images: [B, H, W, 3], normalised; any H and W.
          training: whether batch norms that learn use the batch's statistics.

        Returns:
          {level: [B, Hl, Wl, C]} for the levels 2..last_level, or 2..4 if dilated, C as in
          `out_channels`.
        """
        features = {}
        x = self.stem(images, training=training)
        for stage in range(2, self.last_level + 1):
            x = getattr(self, f"stage{stage}")(x, training=training)
            features[self._level_of(stage)] = x
        return features
