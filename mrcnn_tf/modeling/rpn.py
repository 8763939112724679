"""Region proposal network: one small head slid over every level, and the proposals it makes.

Shape letters: `B` images, `Hl Wl` size of level l, `C` channels, `K` anchors per cell, `A` anchors
per image over all levels, `P` proposals.
"""

from typing import NamedTuple

import tensorflow as tf
import tf_keras

from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import nms


class Proposals(NamedTuple):
    """Class-agnostic boxes, best first, padded to a fixed count.

    Attributes:
      boxes: float32 [B, P, (y1, x1, y2, x2)], network-input pixels, clipped to the image.
      scores: float32 [B, P], objectness logits; -inf where not valid.
      valid: bool [B, P].
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor


class RPNHead(tf_keras.layers.Layer):
    """3x3 convolution, then objectness and box deltas of every anchor (Faster R-CNN section 3.1).

    The same weights serve all levels (FPN section 4.1).
    """

    def __init__(
        self, channels: int, anchors_per_cell: int, conv_layers: int = 1, name: str = "rpn_head"
    ):
        """Create the layers.

        Args:
          channels: of the 3x3 convolutions.
          anchors_per_cell: K.
          conv_layers: 3x3 convolutions; torchvision's second version has two.
          name: layer name.
        """
        super().__init__(name=name)

        def conv(filters: int, size: int, layer: str, activation: str | None = None):
            return tf_keras.layers.Conv2D(
                filters,
                size,
                padding="same",
                activation=activation,
                # Gaussian with 0.01, as Faster R-CNN section 3.1.3 initialises all new layers.
                kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
                name=layer,
            )

        self.convs = [conv(channels, 3, f"conv{i + 1}", "relu") for i in range(conv_layers)]
        self.objectness = conv(anchors_per_cell, 1, "objectness")
        self.deltas = conv(anchors_per_cell * 4, 1, "deltas")

    def call(
        self, features: dict[int, tf.Tensor]
    ) -> tuple[dict[int, tf.Tensor], dict[int, tf.Tensor]]:
        """Predict for every anchor of every level.

        Args:
          features: {level: [B, Hl, Wl, C]}.

        Returns:
          objectness logits {level: float32 [B, Hl*Wl*K]} and deltas {level: float32
          [B, Hl*Wl*K, (dy, dx, dh, dw)]}, in the anchors' order (row, column, anchor).
        """
        logits, deltas = {}, {}
        for level, feature in sorted(features.items()):
            hidden = feature
            for layer in self.convs:
                hidden = layer(hidden)
            batch = tf.shape(feature)[0]
            # [B, Hl, Wl, K] -> [B, Hl*Wl*K]
            logits[level] = tf.reshape(tf.cast(self.objectness(hidden), tf.float32), [batch, -1])
            # [B, Hl, Wl, K*4] -> [B, Hl*Wl*K, 4]
            deltas[level] = tf.reshape(tf.cast(self.deltas(hidden), tf.float32), [batch, -1, 4])
        return logits, deltas


def generate_proposals(
    logits: dict[int, tf.Tensor],
    deltas: dict[int, tf.Tensor],
    anchors: dict[int, tf.Tensor],
    image_size_hw: tf.Tensor,
    *,
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_iou: float,
    min_box_size: float,
    compiled: bool,
) -> Proposals:
    """Turn the head's outputs into proposals (FPN section 4.1; as Detectron2 and torchvision).

    1. Per level, keep the `pre_nms_top_k` best anchors, decode and clip them.
    2. Drop boxes with a side not larger than `min_box_size` and non-finite ones; NMS per level.
       Anchors whose logit is not finite are dropped before step 1.
    3. Over all levels, keep the `post_nms_top_k` best.

    No gradient flows through proposals (Faster R-CNN section 3.2, approximate joint training).

    Args:
      logits: {level: float32 [B, Al]}.
      deltas: {level: float32 [B, Al, 4]}.
      anchors: {level: float32 [Al, 4]}, network-input pixels.
      image_size_hw: float32 [B, (height, width)], the image inside the canvas, pixels.
      pre_nms_top_k: per level.
      post_nms_top_k: P, in total.
      nms_iou: boxes that overlap a better one by more are dropped.
      min_box_size: pixels.
      compiled: whether this is traced for XLA, see `nms.nms`.

    Returns:
      Proposals with P = `post_nms_top_k`.
    """
    level_boxes, level_scores = [], []
    for level in sorted(logits):
        count = tf.minimum(pre_nms_top_k, tf.shape(logits[level])[1])
        # Without this a NaN could rank first and take a good anchor's place.
        scores = tf.where(tf.math.is_finite(logits[level]), logits[level], -float("inf"))
        scores, index = tf.math.top_k(tf.stop_gradient(scores), count)  # [B, k]
        selected_deltas = tf.gather(tf.stop_gradient(deltas[level]), index, batch_dims=1)
        decoded = box_ops.decode(selected_deltas, tf.gather(anchors[level], index))
        padding = pre_nms_top_k - count
        level_boxes.append(tf.pad(decoded, [[0, 0], [0, padding], [0, 0]]))
        level_scores.append(tf.pad(scores, [[0, 0], [0, padding]], constant_values=-float("inf")))
    num_levels = len(level_boxes)
    boxes = tf.concat(level_boxes, axis=1)  # [B, L*k, 4]
    scores = tf.concat(level_scores, axis=1)  # [B, L*k]
    finite = tf.math.is_finite(scores) & tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
    boxes = tf.where(finite[..., tf.newaxis], boxes, 0.0)
    boxes = box_ops.clip(boxes, image_size_hw)
    valid = finite & box_ops.is_nonempty(boxes, min_box_size)

    # NMS of all levels of all images at once: [B, L*k, ...] -> [B*L, k, ...]
    kept, kept_valid = nms.nms(
        tf.reshape(boxes, [-1, pre_nms_top_k, 4]),
        tf.reshape(scores, [-1, pre_nms_top_k]),
        tf.reshape(valid, [-1, pre_nms_top_k]),
        iou_threshold=nms_iou,
        max_outputs=min(pre_nms_top_k, post_nms_top_k),
        compiled=compiled,
    )
    kept_per_level = kept.shape[1]
    first = pre_nms_top_k * (tf.range(tf.shape(kept)[0]) % num_levels)
    kept = tf.reshape(kept + first[:, tf.newaxis], [-1, num_levels * kept_per_level])
    kept_valid = tf.reshape(kept_valid, [-1, num_levels * kept_per_level])  # [B, L*k']

    scores = tf.where(kept_valid, tf.gather(scores, kept, batch_dims=1), -float("inf"))
    missing = max(0, post_nms_top_k - num_levels * kept_per_level)
    if missing:
        scores = tf.pad(scores, [[0, 0], [0, missing]], constant_values=-float("inf"))
        kept = tf.pad(kept, [[0, 0], [0, missing]])
    scores, best = tf.math.top_k(scores, post_nms_top_k)  # [B, P]
    valid = scores > -float("inf")
    boxes = tf.gather(boxes, tf.gather(kept, best, batch_dims=1), batch_dims=1)
    return Proposals(tf.where(valid[..., tf.newaxis], boxes, 0.0), scores, valid)
