"""The first stage: where the boxes come from that the heads look at.

    proposals = first_stage(features, image_size_hw, given)                  # inference
    outputs, proposals = first_stage.train_forward(features, batch, seed, step)
    sums = first_stage.losses_of(outputs)

Two of them: `RPN` proposes from the detector's own features and learns with it; `GivenProposals`
hands on what an RPN trained by itself has written to files (section 3.1: "RPN is trained
separately and does not share features with Mask R-CNN, unless specified").

Shape letters: `B` images, `Hl Wl` size of level l, `K` anchors per cell, `A` anchors, `S` sampled
anchors, `P` proposals.
"""

import dataclasses

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling import rpn as rpn_lib
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.modeling.outputs import RPNOutputs
from mrcnn_tf.ops import anchors as anchor_ops
from mrcnn_tf.ops import sampling


@dataclasses.dataclass(frozen=True)
class RPNSettings:
    """The numbers of the RPN that are not in its layers; named as in `configs.RPN`.

    Attributes:
      anchor_sizes: {level: sides of its square anchors}, network-input pixels.
      ignore_crowds: anchors on crowd regions are no negatives.
      compiled: XLA traces this model: operations without an XLA kernel are avoided.
    """

    anchor_sizes: dict[int, tuple[float, ...]]
    anchor_ratios: tuple[float, ...]
    anchors_rounded: bool
    anchor_offset: float
    anchor_strides: str
    positive_iou: float
    negative_iou: float
    anchors_per_image: int
    positive_fraction: float
    pre_nms_top_k_train: int
    pre_nms_top_k_test: int
    post_nms_top_k_train: int
    post_nms_top_k_test: int
    nms_iou: float
    min_box_size: float
    smooth_l1_beta: float
    loss_normalizer: str
    ignore_crowds: bool
    compiled: bool


class RPN(tf_keras.layers.Layer):
    """Anchors, head, proposals and losses of the region proposal network."""

    def __init__(self, head: rpn_lib.RPNHead, settings: RPNSettings, name: str = "rpn"):
        """Put the head behind its anchors.

        Args:
          head: features -> objectness and deltas per level.
          settings: everything else.
          name: layer name.
        """
        super().__init__(name=name)
        self.head = head
        self.settings = settings
        self._cell_anchors = {
            level: anchor_ops.cell_anchors(sizes, settings.anchor_ratios, settings.anchors_rounded)
            for level, sizes in settings.anchor_sizes.items()
        }

    def anchors(self, features: dict[int, tf.Tensor]) -> dict[int, tf.Tensor]:
        """Anchors of every level: {level: float32 [Hl*Wl*K, 4]}, network-input pixels."""
        finest = min(features)
        canvas_hw = tf.shape(features[finest])[1:3] * 2**finest
        anchors = {}
        for level, feature in features.items():
            feature_hw = tf.shape(feature)[1:3]
            from_grid = self.settings.anchor_strides == "grid"
            anchors[level] = anchor_ops.grid_anchors(
                feature_hw,
                canvas_hw // feature_hw if from_grid else 2**level,
                self._cell_anchors[level],
                self.settings.anchor_offset,
            )
        return anchors

    def call(
        self,
        features: dict[int, tf.Tensor],
        image_size_hw: tf.Tensor,
        given: rpn_lib.Proposals | None = None,
    ) -> rpn_lib.Proposals:
        """Propose at inference; see `rpn.generate_proposals`.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          image_size_hw: float32 [B, (height, width)], the image inside the canvas.
          given: not looked at: this network makes its own.
        """
        logits, deltas = self.head(features)
        return self._proposals(logits, deltas, self.anchors(features), image_size_hw, False)

    def train_forward(
        self,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
    ) -> tuple[RPNOutputs, rpn_lib.Proposals]:
        """Predict for sampled anchors, and propose for the second stage.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          batch: as in `data/schema.py`.
          seed: of the sampling.
          step: int [], the training step.

        Returns:
          RPNOutputs and the proposals of training, no gradient to the latter.
        """
        s = self.settings
        logits, deltas = self.head(features)
        anchors = self.anchors(features)
        targets = targets_lib.anchor_targets(
            _concat_levels(anchors, axis=0),
            batch[schema.GT_BOXES],
            batch[schema.GT_VALID],
            batch[schema.GT_IS_CROWD],
            sampling.image_seeds(seed, step, batch[schema.IMAGE_KEY], stream=0),
            positive_iou=s.positive_iou,
            negative_iou=s.negative_iou,
            num_samples=s.anchors_per_image,
            positive_fraction=s.positive_fraction,
            ignore_crowds=s.ignore_crowds,
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
        s, anchors = self.settings, outputs.targets
        sums = {
            "rpn_class_loss": losses.rpn_class_loss(
                outputs.logits, anchors.is_positive, anchors.valid
            ),
            "rpn_box_loss": losses.rpn_box_loss(
                outputs.deltas, anchors.deltas, anchors.is_positive, anchors.valid, s.smooth_l1_beta
            ),
        }
        if s.loss_normalizer == "anchors_per_image":
            # Every image has anchors to sample, unless it was left out of the outputs.
            images = tf.reduce_sum(tf.cast(tf.reduce_any(anchors.valid, axis=1), tf.float32))
            nominal = images * s.anchors_per_image
            sums = {name: term._replace(count=nominal) for name, term in sums.items()}
        return sums

    def _proposals(
        self,
        logits: dict[int, tf.Tensor],
        deltas: dict[int, tf.Tensor],
        anchors: dict[int, tf.Tensor],
        image_size_hw: tf.Tensor,
        training: bool,
    ) -> rpn_lib.Proposals:
        s = self.settings
        return rpn_lib.generate_proposals(
            logits,
            deltas,
            anchors,
            image_size_hw,
            pre_nms_top_k=s.pre_nms_top_k_train if training else s.pre_nms_top_k_test,
            post_nms_top_k=s.post_nms_top_k_train if training else s.post_nms_top_k_test,
            nms_iou=s.nms_iou,
            min_box_size=s.min_box_size,
            compiled=s.compiled,
        )


class GivenProposals(tf_keras.layers.Layer):
    """Proposals out of the batch, where `data/proposals.py` put them; nothing to learn."""

    def call(
        self,
        features: dict[int, tf.Tensor],
        image_size_hw: tf.Tensor,
        given: rpn_lib.Proposals | None = None,
    ) -> rpn_lib.Proposals:
        """Hand on `given`.

        Raises:
          ValueError: there are none.
        """
        if given is None:
            raise ValueError(
                "this network has no RPN of its own (task.model.proposals: file): it needs "
                "proposals beside the images"
            )
        return given

    def train_forward(
        self,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
    ) -> tuple[None, rpn_lib.Proposals]:
        """Return the batch's proposals; the first stage itself has no outputs to train."""
        return None, self(features, batch[schema.IMAGE_SIZE_HW], given_proposals(batch))

    def losses_of(self, outputs: None) -> dict[str, losses.LossSum]:
        """No losses."""
        return {}


def given_proposals(batch: dict[str, tf.Tensor]) -> rpn_lib.Proposals | None:
    """Return the proposals that the input pipeline joined to the images; None if it did not.

    Their scores are not used by the second stage and are not carried along: 0, -inf on padding.
    """
    if schema.PROPOSAL_BOXES not in batch:
        return None
    valid = batch[schema.PROPOSALS_VALID]
    scores = tf.where(valid, 0.0, -float("inf"))
    return rpn_lib.Proposals(batch[schema.PROPOSAL_BOXES], scores, valid)


def _concat_levels(per_level: dict[int, tf.Tensor], axis: int) -> tf.Tensor:
    return tf.concat([per_level[level] for level in sorted(per_level)], axis=axis)
