"""What other projects call the weights of a ResNet, and where ImageNet's are.

`modeling/backbones.py` names this module; one for another backbone has the same functions.
"""

from collections.abc import Callable
from typing import Any

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling.resnet import ResNet
from mrcnn_tf.weights import detectron2, keras_applications, model_garden, torchvision
from mrcnn_tf.weights.assign import Entry

_ENTRIES: dict[str, Callable] = {
    "detectron2": detectron2.backbone_entries,
    "torchvision": torchvision.backbone_entries,
    "model_garden": model_garden.backbone_entries,
}
_LOADERS: dict[str, Callable] = {
    "detectron2": detectron2.load_backbone,
    "torchvision": torchvision.load_backbone,
    "model_garden": model_garden.load_backbone,
    "keras": keras_applications.load_backbone,
}


def check_imagenet(model: fields.Model) -> None:
    """Refuse a network that the ImageNet weights of `tf_keras.applications` do not fit.

    Raises:
      ValueError: with the fields that do not fit.
    """
    backbone = model.backbone
    is_plain = backbone.base_width == 64 and backbone.groups == 1
    if backbone.depth not in keras_applications.DEPTHS or not is_plain:
        raise ValueError(
            "task.model.backbone.weights: 'imagenet' exists for depth 50, 101 and 152 with "
            f"base_width 64 and groups 1, not for depth {backbone.depth} with base_width "
            f"{backbone.base_width} and groups {backbone.groups}; set it to '' to start from "
            "random weights"
        )
    if model.pixels.order != "bgr" or not backbone.stride_in_1x1:
        raise ValueError(
            "task.model.backbone.weights: 'imagenet' are the weights of tf_keras.applications, "
            "which want pixels.order: bgr and backbone.stride_in_1x1: true, not "
            f"{model.pixels.order} and {str(backbone.stride_in_1x1).lower()}"
        )
    if backbone.norm == "group_norm":
        raise ValueError(
            "task.model.backbone.weights: 'imagenet' are weights with batch norms, not with "
            "backbone.norm: group_norm; set weights to '' to start from random ones"
        )


def load_imagenet(backbone: ResNet) -> None:
    """Assign ImageNet's weights; see `keras_applications.load_imagenet`."""
    keras_applications.load_imagenet(backbone, backbone.depth)


def entries(project: str, backbone: ResNet, *args: Any, **kwargs: Any) -> list[Entry]:
    """Say where each variable comes from; arguments as the project's `backbone_entries` has them.

    Raises:
      ValueError: the project has no such backbone, or no names for it.
    """
    return _ENTRIES[project](backbone, *args, **kwargs)


def load(project: str, backbone: ResNet, state_dict: Any) -> Any:
    """Assign a project's backbone; see its `load_backbone`."""
    return _LOADERS[project](backbone, state_dict)
