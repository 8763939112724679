"""What the maps of a mask head stand for: a mask per class, one for all, or classes that compete.

A head makes some maps for a RoI. An object of this file says how many, which of them the RoI is
asked for, what becomes of them as probabilities, and the loss. Table 2b of the paper compares
`Independent` with `Softmax`, its section 4.2 with `Agnostic`.

Shape letters: `B` images, `R` RoIs, `F = B * R`, `N` classes with background, `M` mask side.
"""

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from mrcnn_tf.modeling import losses


class Maps(Protocol):
    """What a head can compute for its RoIs."""

    def one(self, index: tf.Tensor) -> tf.Tensor:
        """Map `index`, int32 [F], of each RoI: float32 [F, M, M]."""

    def every(self) -> tf.Tensor:
        """All of them: float32 [F, M, M, maps]."""


class Independent:
    """A mask for each class, by a sigmoid; that of the RoI's class counts (section 3, the default).

    Attributes:
      of_classes: whether each map is of a class.
      has_background: whether background has one.
    """

    of_classes = True
    has_background = False

    def num_maps(self, num_classes: int) -> int:
        """How many maps a head has for N classes."""
        return num_classes - 1

    def per_class(self, values: int) -> tuple[int, bool] | None:
        """Values of a head's last axis per class, of so many per map; whether background has some.

        None if they do not depend on the classes.
        """
        return (values, self.has_background) if self.of_classes else None

    def logits(self, maps: Maps, classes: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Compute what training and `probabilities` need.

        Args:
          maps: of the head.
          classes: int32 [F], 1..N-1; what stands where there is no RoI does not matter.
          num_classes: N.

        Returns:
          float32 [F, M, M].
        """
        return maps.one(tf.clip_by_value(classes - 1, 0, num_classes - 2))

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Of the object's pixels: [..., M, M] -> [..., M, M], in 0..1."""
        return tf.sigmoid(logits)

    def loss(self, logits: tf.Tensor, targets: tf.Tensor, valid: tf.Tensor) -> losses.LossSum:
        """See `losses.mask_loss`."""
        return losses.mask_loss(logits, targets, valid)


class Agnostic(Independent):
    """One mask for whatever the RoI shows (section 4.2, "Class-Specific vs. Class-Agnostic")."""

    of_classes = False

    def num_maps(self, num_classes: int) -> int:
        """One."""
        return 1

    def logits(self, maps: Maps, classes: tf.Tensor, num_classes: int) -> tf.Tensor:
        """See `Independent.logits`; classes do not matter."""
        return maps.one(tf.zeros_like(classes))


class Softmax(Independent):
    """Classes and background compete for each pixel (table 2b), as in an FCN for segmentation.

    A pixel of the object is taught its class, one beside it background; at inference, a pixel is
    the object's by the probability of the class that the box branch says.
    """

    has_background = True

    def num_maps(self, num_classes: int) -> int:
        """One per class, background's first."""
        return num_classes

    def logits(self, maps: Maps, classes: tf.Tensor, num_classes: int) -> tf.Tensor:
        """See `Independent.logits`.

        Returns:
          Logarithms of the probabilities of background and of the class, float32 [F, M, M, 2].
        """
        logarithms = tf.nn.log_softmax(maps.every())
        logarithms = tf.transpose(logarithms, [0, 3, 1, 2])  # [F, M, M, N] -> [F, N, M, M]
        index = tf.clip_by_value(classes, 0, num_classes - 1)
        of_class = tf.gather(logarithms, index, batch_dims=1)
        return tf.stack([logarithms[:, 0], of_class], axis=-1)

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Of the object's pixels: [..., M, M, 2] -> [..., M, M], in 0..1."""
        return tf.exp(logits[..., 1])

    def loss(self, logits: tf.Tensor, targets: tf.Tensor, valid: tf.Tensor) -> losses.LossSum:
        """See `losses.softmax_mask_loss`."""
        return losses.softmax_mask_loss(logits, targets, valid)


# `mask_head.classes`.
KINDS: dict[str, Callable[[], Independent]] = {
    "independent": Independent,
    "agnostic": Agnostic,
    "softmax": Softmax,
}
