"""The weights of a backbone for which there are none to read: what is asked of them is refused."""

from typing import Any

import tf_keras

from mrcnn_tf.experiment import fields


def check_imagenet(model: fields.Model) -> None:
    """Refuse.

    Raises:
      ValueError: always.
    """
    raise ValueError(
        f"task.model.backbone.weights: there are no ImageNet weights of {model.backbone.type}; set "
        "weights to '' to start from random ones"
    )


def load_imagenet(backbone: tf_keras.layers.Layer) -> None:
    """Refuse, for who did not ask `check_imagenet`.

    Raises:
      FileNotFoundError: always.
    """
    raise FileNotFoundError(f"there are no ImageNet weights of {backbone.name}")


def entries(project: str, backbone: tf_keras.layers.Layer, *args: Any, **kwargs: Any) -> list:
    """Refuse: no other project's detector has this backbone.

    Raises:
      ValueError: always.
    """
    raise ValueError(f"{project} has no detector on {backbone.name}, and no names for one")
