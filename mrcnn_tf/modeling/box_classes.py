"""What a box head's class logits mean: classes that compete, or a sigmoid each.

An object of this file says where the logits start, what becomes of them as probabilities, which
classes an image teaches, and the loss.

Shape letters: `B` images, `R` sampled RoIs, `N` classes with background.
"""

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.experiment.fields import Federated as Defaults
from mrcnn_tf.modeling import losses
from mrcnn_tf.ops import sampling

# Of every class before anything is learnt, so that a thousand sigmoids do not begin with a loss of
# hundreds: CenterNet2's. (Detectron2's own layer begins with 0.5.)
PRIOR_PROBABILITY = 0.01
NO_COUNTS = (
    "task.model.federated: its loss draws classes by the number of images that have them, which "
    "the label map does not say. Convert the records from annotations whose categories have an "
    "image_count, or whose images have neg_category_ids, as LVIS's do; or set classes_per_image: 0"
)


class Softmax:
    """One of the classes or background (Fast R-CNN, the default).

    Attributes:
      first_logit: of every class before anything is learnt.
    """

    first_logit = 0.0

    def logits(self, predicted: tf.Tensor) -> tf.Tensor:
        """From what the head's last layer says to logits, [B, R, N]: the largest is the class."""
        return predicted

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Return what detections are ranked by: [..., N] -> [..., N], in 0..1; 0 is background."""
        return tf.nn.softmax(logits)

    def taught(
        self,
        target_classes: tf.Tensor,
        valid: tf.Tensor,
        batch: Mapping[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
    ) -> tf.Tensor | None:
        """Say which classes each image teaches; None: all.

        Args:
          target_classes: int32 [B, R], of the sampled RoIs; 0 is background.
          valid: bool [B, R].
          batch: as in `data/schema.py`.
          seed: of what is drawn.
          step: int [], the training step.

        Returns:
          bool [B, N], or None.
        """
        return None

    def loss(
        self,
        logits: tf.Tensor,
        target_classes: tf.Tensor,
        valid: tf.Tensor,
        taught: tf.Tensor | None,
    ) -> losses.LossSum:
        """See `losses.class_loss`; `taught` is what `taught` returned."""
        return losses.class_loss(logits, target_classes, valid)


class Federated(Softmax):
    """A sigmoid per class, of which each image teaches a few: the federated loss.

    With a thousand classes, most of an image's RoIs say of every rare class that they are none of
    it. And in a federated data set nobody has looked for most classes in an image. So a class is
    taught by an image that has it, and else by few, drawn anew in each step.

    How it is drawn: without replacement, each class in proportion to a power of the number of
    images it is in, after those that sampled RoIs have, until there are `classes_per_image`.
    Background counts as one of them where a RoI is background (both as in CenterNet2 and
    Detectron2).

    What an image's lists say, if the batch has them, comes on top: classes that are known to be
    absent are taught always, classes that are not annotated exhaustively by their own RoIs alone.
    (Neither of the two projects reads the lists.)

    Source: Zhou et al., "Probabilistic two-stage detection" (arXiv 2103.07461), its code, and
      Detectron2's `FastRCNNOutputLayers`. There the images of one GPU share their classes. Here an
      image draws for itself, by the seed, the step and its id, which with one image per GPU is the
      same; so a step does not depend on how its images are spread.

    Args:
      image_counts: [N - 1], in how many images of training each class is; empty where nothing is
        to be learnt.
      classes_per_image: see `fields.Federated`, whose numbers have these names.
      frequency_power: see there.
    """

    first_logit = -math.log((1.0 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)

    def __init__(
        self,
        image_counts: Sequence[int] = (),
        classes_per_image: int = Defaults.classes_per_image,
        frequency_power: float = Defaults.frequency_power,
    ):
        largest = max([*image_counts, 1])  # whose power could be infinite
        self._weights = [float(count / largest) ** frequency_power for count in image_counts]
        self._classes_per_image = classes_per_image

    def logits(self, predicted: tf.Tensor) -> tf.Tensor:
        """Put 0 in background's place: a RoI is background where no class has more."""
        return tf.concat([tf.zeros_like(predicted[..., :1]), predicted[..., 1:]], axis=-1)

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Of each class by itself; background's says nothing."""
        return tf.sigmoid(logits)

    def taught(
        self,
        target_classes: tf.Tensor,
        valid: tf.Tensor,
        batch: Mapping[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
    ) -> tf.Tensor:
        """Draw the classes, see above.

        Raises:
          ValueError: nobody has said how many images have each class.
        """
        if not self._weights:
            raise ValueError(NO_COUNTS)
        num_classes = len(self._weights) + 1
        classes = tf.where(valid, target_classes, num_classes)
        of_rois = tf.one_hot(classes, num_classes, on_value=True, off_value=False)  # [B, R, N]
        present = tf.reduce_any(of_rois, axis=1)  # [B, N]
        seeds = sampling.image_seeds(seed, step, batch[schema.IMAGE_KEY], stream=3)
        is_taught = present | self._drawn(present, seeds)
        if schema.NEG_CLASSES in batch:
            is_taught |= batch[schema.NEG_CLASSES]
            is_taught &= ~batch[schema.NOT_EXHAUSTIVE_CLASSES]
        return is_taught

    def _drawn(self, present: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Draw classes that are not there: [B, N] -> [B, N], never background.

        Each class has the logarithm of a random number, divided by its weight, and the largest win:
        the same as to draw one after the other in proportion to the weights (Efraimidis and
        Spirakis 2006).
        """
        count = min(self._classes_per_image, len(self._weights))
        weights = tf.constant(self._weights, tf.float32)
        # In the middle of the 2**24 intervals: never 0.
        numbers = sampling.random_numbers(seeds, len(self._weights)) + 2.0**-25  # [B, N-1]
        priorities = tf.where(
            (weights > 0.0) & ~present[:, 1:],
            tf.math.log(numbers) / tf.maximum(weights, 1e-30),
            -float("inf"),
        )
        best, index = tf.math.top_k(priorities, k=count)  # [B, k]
        num_present = tf.math.count_nonzero(present, axis=1, keepdims=True, dtype=tf.int32)
        is_wanted = tf.range(count) < self._classes_per_image - num_present
        is_wanted &= best > -float("inf")
        # A class that is not wanted goes nowhere: one_hot of N is all False.
        column = tf.where(is_wanted, index + 1, len(self._weights) + 1)
        drawn = tf.one_hot(column, len(self._weights) + 1, on_value=True, off_value=False)
        return tf.reduce_any(drawn, axis=1)

    def loss(
        self,
        logits: tf.Tensor,
        target_classes: tf.Tensor,
        valid: tf.Tensor,
        taught: tf.Tensor | None,
    ) -> losses.LossSum:
        """See `losses.federated_class_loss`."""
        assert taught is not None
        return losses.federated_class_loss(logits, target_classes, valid, taught)


def build(federated: Defaults, image_counts: Sequence[int]) -> Softmax:
    """Choose by the fields.

    Args:
      federated: `classes_per_image` is 0 for a softmax.
      image_counts: see `Federated`.
    """
    if not federated.classes_per_image:
        return Softmax()
    return Federated(image_counts, federated.classes_per_image, federated.frequency_power)
