"""The C4 network: RPN and heads on the features of stage 4, stage 5 applied to each RoI.

(figure 4 left; "ResNet-50-C4" of section 3.1.) There is no pyramid. `C4RoIHeads` pools each RoI,
runs the backbone's fifth stage on it, and both branches share what comes out.

Shape letters: `B` images, `R` RoIs, `F` RoIs with a mask, `C` channels, `N` classes with
background, `S` side of the pooled RoI, `M` mask side.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.modeling.roi_heads import BoxHead
from mrcnn_tf.modeling.roi_pooling import RoIPool

LEVEL = 4  # stride 16


class C4RoIHeads(tf_keras.layers.Layer):
    """RoIAlign, stage 5 of the backbone, then a linear box branch and a small mask branch.

    The paper's figure 4 pools 7x7 and takes the stride out of stage 5; its code (Detectron) and
    Detectron2 pool 14x14 and keep the stride, which gives the same 7x7 behind stage 5 from samples
    twice as dense. Their weights are the public ones, so we pool 14x14.

    Args:
      stage5: the backbone's, [.., S, S, C] -> [.., S/2, S/2, 2C]. It trains with the heads.
      box_head: without hidden layers, takes the mean over each RoI; its `pool_size` is S, 14.
      mask_head: one of `mask_heads.py`, an FCN without convolutions before its deconvolution, M is
        S; None for Faster R-CNN.
      roi_align: pools, one of `roi_pooling.POOLINGS`.
      name: layer name.
    """

    def __init__(
        self,
        stage5: tf_keras.layers.Layer,
        box_head: BoxHead,
        mask_head: tf_keras.layers.Layer | None,
        roi_align: RoIPool,
        name: str = "roi_heads",
    ):
        super().__init__(name=name)
        self.stage5 = stage5
        self.box_head = box_head
        self.mask_head = mask_head
        self._align = roi_align

    def pool(self, features: dict[int, tf.Tensor], rois: tf.Tensor) -> tf.Tensor:
        """RoIAlign: {4: [B, H4, W4, C]} and rois float32 [B, R, 4] -> [B, R, S, S, C]."""
        return self._align(features, rois, self.box_head.pool_size)

    def roi_features(
        self, features: dict[int, tf.Tensor], rois: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """What both branches share: [B, R, S/2, S/2, 2C]."""
        pooled = self.pool(features, rois)
        batch, count = tf.shape(pooled)[0], tf.shape(pooled)[1]
        # [B, R, S, S, C] -> [B*R, S, S, C] -> [B*R, S/2, S/2, 2C]
        hidden = self.stage5(tf.reshape(pooled, [-1, *pooled.shape[2:]]), training=training)
        return tf.reshape(hidden, [batch, count, *hidden.shape[1:]])

    def boxes(
        self, features: dict[int, tf.Tensor], rois: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Class logits [B, R, N] and deltas [B, R, N-1, 4] of `rois`; see `BoxHead.call`."""
        return self._box_branch(self.roi_features(features, rois, training))

    def masks(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Mask logits [B, R, M, M] of `rois` for `classes` [B, R]; see `MaskHead.call`."""
        assert self.mask_head is not None
        return self.mask_head(self.roi_features(features, rois, training), classes)

    def train(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        num_masks: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Both branches on the same RoIs: stage 5 runs once. As `FPNRoIHeads.train`."""
        shared = self.roi_features(features, rois, training)
        class_logits, box_deltas = self._box_branch(shared)
        if self.mask_head is None:
            return class_logits, box_deltas, None
        mask_logits = self.mask_head(shared[:, :num_masks], classes[:, :num_masks])
        return class_logits, box_deltas, mask_logits

    def _box_branch(self, shared: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean = tf.reduce_mean(shared, axis=[2, 3], keepdims=True)  # [B, R, 1, 1, 2C]
        return self.box_head(mean)
