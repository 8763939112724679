"""Region proposal network: one small head slid over every level, its anchors, its losses.

    proposals = rpn(features, image_size_hw)                                 # inference
    outputs, proposals = rpn.train_forward(features, batch, seed, step)      # training
    sums = rpn.losses_of(outputs)

Shape letters: `B` images, `Hl Wl` size of level l, `C` channels, `K` anchors per cell, `A` anchors
per image over all levels, `S` sampled anchors, `P` proposals.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.modeling.conv import Conv2D
from mrcnn_tf.modeling.outputs import RPNOutputs
from mrcnn_tf.modeling.proposals import Proposals, generate_proposals
from mrcnn_tf.ops import anchors as anchor_ops
from mrcnn_tf.ops import sampling

Defaults = fields.RPN


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

        def conv(filters: int, size: int, layer: str) -> Conv2D:
            # Gaussian with 0.01, as Faster R-CNN section 3.1.3 initialises all new layers.
            gaussian = tf_keras.initializers.RandomNormal(stddev=0.01)
            return Conv2D(filters, size, use_bias=True, kernel_initializer=gaussian, name=layer)

        self.convs = [conv(channels, 3, f"conv{i + 1}") for i in range(conv_layers)]
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
                hidden = tf.nn.relu(layer(hidden))
            batch = tf.shape(feature)[0]
            # [B, Hl, Wl, K] -> [B, Hl*Wl*K]
            logits[level] = tf.reshape(tf.cast(self.objectness(hidden), tf.float32), [batch, -1])
            # [B, Hl, Wl, K*4] -> [B, Hl*Wl*K, 4]
            deltas[level] = tf.reshape(tf.cast(self.deltas(hidden), tf.float32), [batch, -1, 4])
        return logits, deltas


class RPN(tf_keras.layers.Layer):
    """Anchors, head, proposals and losses of the region proposal network.

    The numbers are described in `fields.RPN`, whose names they have.

    Args:
      channels: C, of the features and of the head's convolutions.
      levels: of the features that `call` gets, ascending.
      anchor_sizes: one per level; all of them at every place if there is one level.
      ignore_crowds: anchors on crowd regions are no negatives.
      name: layer name.

    Raises:
      ValueError: not as many sizes as levels.
    """

    def __init__(
        self,
        channels: int,
        levels: Sequence[int],
        *,
        anchor_sizes: Sequence[float] = Defaults.anchor_sizes,
        anchor_ratios: Sequence[float] = Defaults.anchor_ratios,
        conv_layers: int = Defaults.conv_layers,
        anchors_rounded: bool = Defaults.anchors_rounded,
        anchor_offset: float = Defaults.anchor_offset,
        anchor_strides: str = Defaults.anchor_strides,
        positive_iou: float = Defaults.positive_iou,
        negative_iou: float = Defaults.negative_iou,
        anchors_per_image: int = Defaults.anchors_per_image,
        positive_fraction: float = Defaults.positive_fraction,
        pre_nms_top_k_train: int = Defaults.pre_nms_top_k_train,
        pre_nms_top_k_test: int = Defaults.pre_nms_top_k_test,
        post_nms_top_k_train: int = Defaults.post_nms_top_k_train,
        post_nms_top_k_test: int = Defaults.post_nms_top_k_test,
        nms_iou: float = Defaults.nms_iou,
        min_box_size: float = Defaults.min_box_size,
        smooth_l1_beta: float = Defaults.smooth_l1_beta,
        ignore_anchors_across_border: bool = Defaults.ignore_anchors_across_border,
        loss_normalizer: str = Defaults.loss_normalizer,
        ignore_crowds: bool = fields.Model.ignore_crowds,
        name: str = "rpn",
    ):
        super().__init__(name=name)
        sizes = [(size,) for size in anchor_sizes] if len(levels) > 1 else [tuple(anchor_sizes)]
        if len(sizes) != len(levels):
            raise ValueError(f"{len(levels)} levels need as many anchor sizes, not {anchor_sizes}")
        self._cell_anchors = {
            level: anchor_ops.cell_anchors(of_level, anchor_ratios, anchors_rounded)
            for level, of_level in zip(levels, sizes, strict=True)
        }
        self.head = RPNHead(channels, len(sizes[0]) * len(anchor_ratios), conv_layers)
        self.anchor_offset = anchor_offset
        self.anchor_strides = anchor_strides
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.anchors_per_image = anchors_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_top_k_train = pre_nms_top_k_train
        self.pre_nms_top_k_test = pre_nms_top_k_test
        self.post_nms_top_k_train = post_nms_top_k_train
        self.post_nms_top_k_test = post_nms_top_k_test
        self.nms_iou = nms_iou
        self.min_box_size = min_box_size
        self.smooth_l1_beta = smooth_l1_beta
        self.ignore_anchors_across_border = ignore_anchors_across_border
        self.loss_normalizer = loss_normalizer
        self.ignore_crowds = ignore_crowds

    def anchors(self, features: dict[int, tf.Tensor]) -> dict[int, tf.Tensor]:
        """Anchors of every level: {level: float32 [Hl*Wl*K, 4]}, network-input pixels."""
        finest = min(features)
        canvas_hw = tf.shape(features[finest])[1:3] * 2**finest
        anchors = {}
        for level, feature in features.items():
            feature_hw = tf.shape(feature)[1:3]
            from_grid = self.anchor_strides == "grid"
            anchors[level] = anchor_ops.grid_anchors(
                feature_hw,
                canvas_hw // feature_hw if from_grid else 2**level,
                self._cell_anchors[level],
                self.anchor_offset,
            )
        return anchors

    def call(self, features: dict[int, tf.Tensor], image_size_hw: tf.Tensor) -> Proposals:
        """Propose at inference; see `proposals.generate_proposals`.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          image_size_hw: float32 [B, (height, width)], the image inside the canvas.
        """
        logits, deltas = self.head(features)
        return self._proposals(logits, deltas, self.anchors(features), image_size_hw, False)

    def train_forward(
        self,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
    ) -> tuple[RPNOutputs, Proposals]:
        """Predict for sampled anchors, and propose for the heads.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          batch: as in `data/schema.py`.
          seed: of the sampling.
          step: int [], the training step.

        Returns:
          RPNOutputs and the proposals of training, no gradient to the latter.
        """
        logits, deltas = self.head(features)
        anchors = self.anchors(features)
        targets = targets_lib.anchor_targets(
            _concat_levels(anchors, axis=0),
            batch[schema.GT_BOXES],
            batch[schema.GT_VALID],
            batch[schema.GT_IS_CROWD],
            batch[schema.IMAGE_SIZE_HW],
            sampling.image_seeds(seed, step, batch[schema.IMAGE_KEY], stream=0),
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            num_samples=self.anchors_per_image,
            positive_fraction=self.positive_fraction,
            ignore_crowds=self.ignore_crowds,
            ignore_across_border=self.ignore_anchors_across_border,
        )
        proposals = self._proposals(logits, deltas, anchors, batch[schema.IMAGE_SIZE_HW], True)
        outputs = RPNOutputs(
            tf.gather(_concat_levels(logits, axis=1), targets.index, batch_dims=1),
            tf.gather(_concat_levels(deltas, axis=1), targets.index, batch_dims=1),
            targets,
        )
        return outputs, proposals

    def losses_of(self, outputs: RPNOutputs) -> dict[str, losses.LossSum]:
        """`rpn_class_loss` and `rpn_box_loss`, not yet divided; see `losses.py`."""
        anchors = outputs.targets
        sums = {
            "rpn_class_loss": losses.rpn_class_loss(
                outputs.logits, anchors.is_positive, anchors.valid
            ),
            "rpn_box_loss": losses.rpn_box_loss(
                outputs.deltas,
                anchors.deltas,
                anchors.is_positive,
                anchors.valid,
                self.smooth_l1_beta,
            ),
        }
        if self.loss_normalizer == "anchors_per_image":
            # Every image has anchors to sample, unless it was left out of the outputs.
            images = tf.reduce_sum(tf.cast(tf.reduce_any(anchors.valid, axis=1), tf.float32))
            nominal = images * self.anchors_per_image
            sums = {name: term._replace(count=nominal) for name, term in sums.items()}
        return sums

    def _proposals(
        self,
        logits: dict[int, tf.Tensor],
        deltas: dict[int, tf.Tensor],
        anchors: dict[int, tf.Tensor],
        image_size_hw: tf.Tensor,
        training: bool,
    ) -> Proposals:
        return generate_proposals(
            logits,
            deltas,
            anchors,
            image_size_hw,
            pre_nms_top_k=self.pre_nms_top_k_train if training else self.pre_nms_top_k_test,
            post_nms_top_k=self.post_nms_top_k_train if training else self.post_nms_top_k_test,
            nms_iou=self.nms_iou,
            min_box_size=self.min_box_size,
        )


def _concat_levels(per_level: dict[int, tf.Tensor], axis: int) -> tf.Tensor:
    return tf.concat([per_level[level] for level in sorted(per_level)], axis=axis)
