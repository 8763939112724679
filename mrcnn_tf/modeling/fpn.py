"""Feature pyramid network: one number of channels and strong semantics at every resolution.

Shape letters: `B` images, `Hl Wl` size of level l (stride 2**l), `C` channels.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import normalization
from mrcnn_tf.modeling.conv import XAVIER, Conv2D, normalised

Defaults = fields.FPN
_NUM_BACKBONE_LEVELS = 5  # a ResNet's last level


class FPN(tf_keras.layers.Layer):
    """Top-down pathway with lateral connections.

    Each level is its lateral 1x1 convolution plus the coarser level, enlarged to its size by
    nearest neighbour; a 3x3 convolution then smooths it. Levels above 5 subsample the one below
    (a max pooling of size 1 and stride 2). Layers: `lateral2` .. `lateral5`, `output2` ..
    `output5`, all with bias unless a norm follows.

    Args:
      channels: channels of every level.
      norm: one of `normalization.KINDS` after every convolution, or "" for none.
      frozen: does not train.
      min_level: finest level.
      max_level: coarsest level, at least 5.
      name: layer name.

    Source: Lin et al. 2017, arXiv:1612.03144. P6 by subsampling P5 is its footnote 2; XavierFill as
    initialiser is what Detectron has.
    """

    def __init__(
        self,
        channels: int = Defaults.channels,
        norm: str = Defaults.norm,
        frozen: bool = Defaults.frozen,
        min_level: int = 2,
        max_level: int = 6,
        name: str = "fpn",
    ):
        super().__init__(name=name)
        if not 2 <= min_level <= 5 <= max_level:
            raise ValueError(
                f"need 2 <= min_level <= 5 <= max_level, not {min_level} and {max_level}"
            )
        self.channels = channels
        self.levels = range(min_level, max_level + 1)
        self.norm = norm
        build_norm = normalization.builder(norm)
        for level in range(min_level, _NUM_BACKBONE_LEVELS + 1):
            for kind, kernel_size in (("lateral", 1), ("output", 3)):
                conv = Conv2D(
                    channels,
                    kernel_size,
                    use_bias=build_norm is None,
                    kernel_initializer=XAVIER,
                    name=f"{kind}{level}",
                )
                setattr(self, f"{kind}{level}", conv)
                if build_norm is not None:
                    norm_layer = build_norm(name=f"{kind}{level}_norm")
                    setattr(self, f"{kind}{level}_norm", norm_layer)
        self.trainable = not frozen

    def call(self, features: dict[int, tf.Tensor], training: bool = False) -> dict[int, tf.Tensor]:
        """Merge the backbone's levels.

        Args:
          features: {level: [B, Hl, Wl, Cl]}, at least the levels min_level..5. Each level's sides
            are half of the finer one's, rounded up.
          training: whether batch norms that learn use the batch's statistics.

        Returns:
          {level: [B, Hl, Wl, channels]} for the levels min_level..max_level.
        """
        merged = None
        pyramid = {}
        for level in range(_NUM_BACKBONE_LEVELS, self.levels[0] - 1, -1):
            lateral = self._convolve(f"lateral{level}", features[level], training)
            merged = lateral if merged is None else lateral + enlarge_like(merged, lateral)
            pyramid[level] = self._convolve(f"output{level}", merged, training)
        for level in range(_NUM_BACKBONE_LEVELS + 1, self.levels[-1] + 1):
            pyramid[level] = pyramid[level - 1][:, ::2, ::2]
        return dict(sorted(pyramid.items()))

    def _convolve(self, name: str, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        conv = getattr(self, name)
        if not self.norm:
            return conv(inputs)
        return normalised(conv, getattr(self, f"{name}_norm"), inputs, training)


def enlarge_like(coarse: tf.Tensor, fine: tf.Tensor) -> tf.Tensor:
    """Enlarge a feature map to a finer one's size by nearest neighbour.

    Where the finer side is exactly twice the coarser, pixel i takes i // 2; where it is odd (the
    input was no multiple of the stride) the last row or column is taken once instead of twice.
    `floor(i * coarse / fine)`, which torchvision's interpolation computes there, gives the same
    index: `coarse / fine` is `(n + 1) / (2n + 1)`, and `i * (n + 1) / (2n + 1) = i / 2 + i / (4n +
    2)` stays below the next integer for i <= 2n.

    Args:
      coarse: [B, h, w, C].
      fine: [B, H, W, C] with h = ceil(H / 2), w = ceil(W / 2).

    Returns:
      [B, H, W, C], values of `coarse`.
    """
    doubled = tf.repeat(tf.repeat(coarse, 2, axis=1), 2, axis=2)
    if fine.shape[1:3].is_fully_defined() and doubled.shape[1:3] == fine.shape[1:3]:
        return doubled
    height, width = tf.shape(fine)[1], tf.shape(fine)[2]
    return doubled[:, :height, :width]
