"""The region proposal network by itself: backbone, pyramid, RPN (Faster R-CNN section 3.1).

Its boxes are the result: they are scored by average recall, and written to files for a detector
that is trained apart. Shape letters as in `rpn.py`.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import losses
from mrcnn_tf.modeling import targets as targets_lib
from mrcnn_tf.modeling.mask_rcnn import features_of, of_images, with_an_image
from mrcnn_tf.modeling.outputs import RPNOutputs
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.modeling.rpn import RPN


class RPNModel(tf_keras.Model):
    """Images -> proposals; parts and their meaning as in `mask_rcnn.MaskRCNN`."""

    def __init__(
        self,
        backbone: tf_keras.layers.Layer,
        pyramid: tf_keras.layers.Layer | None,
        rpn: RPN,
        name: str = "rpn_model",
    ):
        """Put the parts together."""
        super().__init__(name=name)
        self.backbone = backbone
        self.pyramid = pyramid
        self.rpn = rpn

    def features(self, images: tf.Tensor, training: bool) -> dict[int, tf.Tensor]:
        """What the RPN looks at: [B, H, W, 3] -> {level: [B, Hl, Wl, C]}."""
        return features_of(self.backbone, self.pyramid, images, training)

    def call(
        self, images: tf.Tensor, image_size_hw: tf.Tensor, training: bool = False
    ) -> Proposals:
        """Propose boxes.

        Args:
          images: float [B, H, W, 3], normalised, zero-padded at the bottom and right to multiples
            of 32.
          image_size_hw: float32 [B, (height, width)], the image inside the canvas.
          training: whether norms use batch statistics.

        Returns:
          Proposals.
        """
        sent = images
        images, image_size_hw = with_an_image(images, image_size_hw)
        return of_images(sent, self.rpn(self.features(images, training), image_size_hw))

    def infer(
        self, batch: dict[str, tf.Tensor], features: dict[int, tf.Tensor] | None = None
    ) -> Proposals:
        """Propose boxes for a batch as in `data/schema.py`; see `MaskRCNN.infer`."""
        if features is not None:
            return self.rpn(features, batch[schema.IMAGE_SIZE_HW])
        return self(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])

    def train_forward(
        self,
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
        training: bool = True,
        features: dict[int, tf.Tensor] | None = None,
    ) -> RPNOutputs:
        """Run the network on sampled anchors; arguments as `MaskRCNN.train_forward`."""
        if features is None:
            features = self.features(batch[schema.IMAGE], training)
        batch = targets_lib.without_padding(batch)
        outputs, _ = self.rpn.train_forward(features, batch, seed, step)
        return outputs

    def losses_of(self, outputs: RPNOutputs) -> dict[str, losses.LossSum]:
        """`rpn_class_loss` and `rpn_box_loss`, not yet divided; see `losses.py`."""
        return self.rpn.losses_of(outputs)
