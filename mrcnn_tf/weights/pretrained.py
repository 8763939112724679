"""What a backbone starts from: `backbone.weights` of an experiment."""

import tf_keras

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import backbones


def load(backbone: tf_keras.layers.Layer, model: fields.Model) -> None:
    """Assign the weights that `model.backbone.weights` names, and print which "auto" has taken.

    Args:
      backbone: built, with random weights.
      model: the network's fields.

    Raises:
      FileNotFoundError: "imagenet", and the weights are not to be had; says how to get them.
      ValueError: what is found is damaged; or "auto" found nothing and the network cannot learn
        from random weights.
    """
    kind = model.backbone.weights
    weights = backbones.entry_of(backbone).weights_module()
    if kind == "imagenet":
        weights.load_imagenet(backbone)
    elif kind == "auto":
        try:
            weights.check_imagenet(model)
        except ValueError as error:
            _start_from_random(model, error)
            return
        try:
            weights.load_imagenet(backbone)
        except FileNotFoundError as error:
            _start_from_random(model, error)
            return
        print("task.model.backbone.weights: auto: the backbone starts from ImageNet's weights")


def _start_from_random(model: fields.Model, reason: Exception) -> None:
    try:
        backbones.check_random(model.backbone)
    except ValueError as error:
        raise type(reason)(f"{reason}\nNor can it start from random weights: {error}") from reason
    print(
        "task.model.backbone.weights: auto: the backbone starts from random weights, because "
        f"there are no others: {reason}"
    )
