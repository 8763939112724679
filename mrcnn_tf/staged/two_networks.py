"""An RPN and a detector on its proposals, trained apart, used as one network."""

import tensorflow as tf

from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.modeling.rpn_model import RPNModel


class TwoNetworks(tf.Module):
    """Images -> the RPN's proposals -> the detector's detections; nothing is shared.

    Each has a backbone of its own, so it takes about twice the time of a joint network.
    """

    def __init__(self, rpn: RPNModel, detector: MaskRCNN):
        """Put the two after each other.

        Args:
          rpn: makes as many proposals as the detector looks at.
          detector: without an RPN (`proposals: file`). It normalises images as the RPN does.
        """
        super().__init__(name="two_networks")
        self.rpn = rpn
        self.detector = detector

    def __call__(
        self, images: tf.Tensor, image_size_hw: tf.Tensor, training: bool = False
    ) -> Detections:
        """Find objects; see `MaskRCNN.call`."""
        proposals: Proposals = self.rpn(images, image_size_hw, training=training)
        return self.detector(images, image_size_hw, proposals, training=training)


class ProposalsAsDetections(tf.Module):
    """An RPN by itself, its proposals in the terms of a detector with one class, "object"."""

    def __init__(self, rpn: RPNModel):
        """Keep the RPN."""
        super().__init__(name="proposals_as_detections")
        self.rpn = rpn

    def __call__(
        self, images: tf.Tensor, image_size_hw: tf.Tensor, training: bool = False
    ) -> Detections:
        """Propose boxes.

        Args:
          images: as for `RPNModel.call`.
          image_size_hw: likewise.
          training: likewise.

        Returns:
          Detections, best first: every proposal with class 1 and its objectness as the score.
        """
        proposals = self.rpn(images, image_size_hw, training=training)
        return Detections(
            boxes=proposals.boxes,
            classes=tf.cast(proposals.valid, tf.int32),
            scores=tf.sigmoid(proposals.scores),  # of -inf, where there is none: 0
            valid=proposals.valid,
        )
