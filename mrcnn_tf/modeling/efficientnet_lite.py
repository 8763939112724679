"""EfficientNet-Lite0, the backbone: images in, the feature maps C2..C5 out.

An eighth of ResNet-50's parameters and a tenth of its arithmetic, for CPUs, phones and small data
sets. Lite means: EfficientNet-B0 without squeeze-and-excitation, ReLU6 in place of swish.

Shape letters: `B` images, `H W` network-input size, `Hl Wl` size of level l (stride 2**l), `C`
channels. With TensorFlow's SAME padding, `Hl` is `H / 2**l` rounded up, step by step.
"""

import functools
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment.fields import Backbone as Defaults
from mrcnn_tf.modeling import normalization
from mrcnn_tf.modeling.conv import SameConv2D, SameDepthwiseConv2D, normalised
from mrcnn_tf.modeling.normalization import NormBuilder

# As TensorFlow's reference implementation trained it.
NORM_EPSILON = 1e-3

VARIANTS: dict[str, dict[str, Any]] = {"efficientnet_lite0": {"norm_epsilon": NORM_EPSILON}}


class Group(NamedTuple):
    """Blocks of one width.

    Attributes:
      blocks: how many.
      kernel_size: of their depthwise convolutions.
      stride: of the first block.
      expansion: the depthwise convolution has so many times the block's input channels.
      channels: of their outputs.
    """

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
# {level: groups}; EfficientNet (Tan and Le 2019, arXiv:1905.11946), table 1. The first, of stride 1
# behind the stem's convolution, is counted as part of the stem.
GROUPS = {
    1: (Group(1, 3, 1, 1, 16),),
    2: (Group(2, 3, 2, 6, 24),),
    3: (Group(2, 5, 2, 6, 40),),
    4: (Group(3, 3, 2, 6, 80), Group(3, 5, 1, 6, 112)),
    5: (Group(4, 5, 2, 6, 192), Group(1, 3, 1, 6, 320)),
}


def check(fields: Defaults) -> None:
    """Refuse what `EfficientNetLite0` cannot be built with; see `backbones.Entry.check`."""
    if fields.freeze_at not in range(6):
        raise ValueError(
            f"task.model.backbone.freeze_at: got {fields.freeze_at!r}, allowed are 0 (nothing) to "
            "5 (all)"
        )


class InvertedResidual(tf_keras.layers.Layer):
    """1x1 convolution to more channels, a depthwise one, 1x1 to fewer, and an identity around.

    The last has no activation (MobileNetV2, arXiv:1801.04381). The identity is there where input
    and output have the same shape.

    Args:
      in_channels: of the input.
      channels: of the output.
      expansion: see `Group`; with 1 the first convolution is left out.
      kernel_size: of the depthwise convolution.
      stride: of the depthwise convolution.
      build_norm: called with `name`, returns a normalisation layer.
      name: layer name.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        expansion: int,
        kernel_size: int,
        stride: int,
        build_norm: NormBuilder,
        name: str | None = None,
    ):
        super().__init__(name=name)
        inner = expansion * in_channels
        self.expand = SameConv2D(inner, 1, name="expand") if expansion > 1 else None
        self.expand_norm = build_norm(name="expand_norm") if expansion > 1 else None
        self.depthwise = SameDepthwiseConv2D(inner, kernel_size, stride, name="depthwise")
        self.depthwise_norm = build_norm(name="depthwise_norm")
        self.project = SameConv2D(channels, 1, name="project")
        self.project_norm = build_norm(name="project_norm")
        self._has_identity = stride == 1 and in_channels == channels

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, h, w, in_channels] -> [B, h/stride, w/stride, channels], rounded up."""
        x = inputs
        if self.expand is not None and self.expand_norm is not None:
            x = tf.nn.relu6(normalised(self.expand, self.expand_norm, x, training))
        x = tf.nn.relu6(normalised(self.depthwise, self.depthwise_norm, x, training))
        x = normalised(self.project, self.project_norm, x, training)
        return x + inputs if self._has_identity else x


class Stage(tf_keras.layers.Layer):
    """All blocks of one resolution.

    Args:
      in_channels: of the input.
      groups: of blocks, one after the other.
      build_norm: called with `name`, returns a normalisation layer.
      name: layer name.
    """

    def __init__(
        self, in_channels: int, groups: tuple[Group, ...], build_norm: NormBuilder, name: str
    ):
        super().__init__(name=name)
        self.blocks: list[InvertedResidual] = []
        for group in groups:
            for i in range(group.blocks):
                block = InvertedResidual(
                    in_channels,
                    group.channels,
                    group.expansion,
                    group.kernel_size,
                    group.stride if i == 0 else 1,
                    build_norm,
                    name=f"block{len(self.blocks)}",
                )
                self.blocks.append(block)
                in_channels = group.channels

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, h, w, in_channels] -> [B, h/stride, w/stride, channels], rounded up."""
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return inputs


class Stem(tf_keras.layers.Layer):
    """3x3 convolution of stride 2, norm, ReLU6, and the blocks of its resolution.

    Args:
      build_norm: called with `name`, returns a normalisation layer.
      name: layer name.
    """

    def __init__(self, build_norm: NormBuilder, name: str | None = None):
        super().__init__(name=name)
        self.conv1 = SameConv2D(STEM_CHANNELS, 3, 2, name="conv1")
        self.norm1 = build_norm(name="norm1")
        self.stage1 = Stage(STEM_CHANNELS, GROUPS[1], build_norm, name="stage1")

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, 3] -> C1 [B, H/2, W/2, 16], rounded up."""
        x = tf.nn.relu6(normalised(self.conv1, self.norm1, images, training))
        return self.stage1(x, training=training)


class EfficientNetLite0(tf_keras.layers.Layer):
    """EfficientNet-Lite0 without its head (a 1x1 convolution to 1280 channels and the classifier).

    Layers: `stem` (stride 2), in it `conv1` `norm1` `stage1`; `stage2` .. `stage5` (strides 4 to
    32), in them `block0` .., in these `expand` `expand_norm` `depthwise` `depthwise_norm` `project`
    `project_norm`. Convolutions have no bias: a norm follows each.

    Args:
      norm: one of `normalization.KINDS`.
      norm_epsilon: added to variances; the released weights were trained with 1e-3.
      norm_momentum: see `normalization.build`.
      freeze_at: what does not train: 0 nothing, 1 the stem with its blocks, l >= 2 the stem and the
        stages 2..l. The batch norms in it use their moving statistics.
      last_level: where `call` stops.
      name: layer name.

    Raises:
      ValueError: `norm` or `freeze_at` is not one of the allowed values.

    Source: Tan and Le 2019, arXiv:1905.11946; lite variant of the TPU project's
    `efficientnet/lite`. Padding is TensorFlow's SAME, with which it was trained. Blocks are not
    dropped at random in training, as detectors on it do not.
    """

    def __init__(
        self,
        norm: str = Defaults.norm,
        norm_epsilon: float = Defaults.norm_epsilon,
        norm_momentum: float = Defaults.norm_momentum,
        freeze_at: int = Defaults.freeze_at,
        last_level: int = 5,
        name: str = "efficientnet_lite0",
    ):
        super().__init__(name=name)
        if freeze_at not in range(6):
            raise ValueError(f"freeze_at must be 0 (nothing) .. 5 (all), not {freeze_at!r}")
        self.last_level = last_level
        build_norm = functools.partial(
            normalization.build, norm, epsilon=norm_epsilon, momentum=norm_momentum
        )
        self.stem = Stem(build_norm, name="stem")
        self.out_channels: dict[int, int] = {}  # {level: channels}
        channels = GROUPS[1][-1].channels
        for level in range(2, 6):
            stage = Stage(channels, GROUPS[level], build_norm, name=f"stage{level}")
            setattr(self, f"stage{level}", stage)
            channels = self.out_channels[level] = GROUPS[level][-1].channels
        for layer in self.stages()[:freeze_at]:
            layer.trainable = False

    def stages(self) -> list[tf_keras.layers.Layer]:
        """The stem and the stages 2..5."""
        return [self.stem, *(getattr(self, f"stage{level}") for level in range(2, 6))]

    def call(self, images: tf.Tensor, training: bool = False) -> dict[int, tf.Tensor]:
        """Compute the feature maps.

        Args:
          images: [B, H, W, 3], normalised; any H and W.
          training: whether batch norms that learn use the batch's statistics.

        Returns:
          {level: [B, Hl, Wl, C]} for the levels 2..last_level, C as in `out_channels`.
        """
        features = {}
        x = self.stem(images, training=training)
        for level in range(2, self.last_level + 1):
            x = getattr(self, f"stage{level}")(x, training=training)
            features[level] = x
        return features
