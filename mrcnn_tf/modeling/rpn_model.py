"""The region proposal network by itself: backbone, pyramid, RPN (Faster R-CNN section 3.1).

Its boxes are the result: they are scored by average recall, and written to files for a detector
that is trained apart. Shape letters as in `first_stage.py`.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import first_stage, losses
from mrcnn_tf.modeling import rpn as rpn_lib
from mrcnn_tf.modeling.outputs import RPNOutputs


class RPNModel(tf_keras.Model):
    """Images -> proposals."""

    def __init__(
        self,
        backbone: tf_keras.layers.Layer,
        pyramid: tf_keras.layers.Layer,
        rpn: first_stage.RPN,
        name: str = "rpn_model",
    ):
        """Put the parts together; see `faster_rcnn.FasterRCNN`."""
        super().__init__(name=name)
        self.backbone = backbone
        self.pyramid = pyramid
        self.rpn = rpn

    def features(self, images: tf.Tensor, training: bool) -> dict[int, tf.Tensor]:
        """Backbone and pyramid: [B, H, W, 3] -> {level: [B, Hl, Wl, C]}."""
        return self.pyramid(self.backbone(images, training=training), training=training)

    def call(
        self, images: tf.Tensor, image_size_hw: tf.Tensor, training: bool = False
    ) -> rpn_lib.Proposals:
        """Propose boxes.

        Args:
          images: float [B, H, W, 3], normalised, zero-padded at the bottom and right to multiples
            of 32.
          image_size_hw: float32 [B, (height, width)], the image inside the canvas.
          training: whether norms use batch statistics.

        Returns:
          Proposals.
        """
        return self.rpn(self.features(images, training), image_size_hw)

    def infer(self, batch: dict[str, tf.Tensor]) -> rpn_lib.Proposals:
        """Propose boxes for a batch as in `data/schema.py`."""
        return self(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])

    def train_forward(
        self, batch: dict[str, tf.Tensor], seed: int, step: tf.Tensor, training: bool = True
    ) -> RPNOutputs:
        """Run the network on sampled anchors; arguments as `FasterRCNN.train_forward`."""
        features = self.features(batch[schema.IMAGE], training)
        outputs, _ = self.rpn.train_forward(features, batch, seed, step)
        return outputs

    def losses_of(self, outputs: RPNOutputs) -> dict[str, losses.LossSum]:
        """`rpn_class_loss` and `rpn_box_loss`, not yet divided; see `losses.py`."""
        return self.rpn.losses_of(outputs)
