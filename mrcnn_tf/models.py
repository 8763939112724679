"""Networks in a line of Python, without an experiment and without tf-models-official.

    from mrcnn_tf import models

    model = models.mask_rcnn(backbone="resnet50", num_classes=91)
    detections = model(images, image_size_hw)

The layers, their names and their numbers are those of the experiments: `fields.py` has every number
that can be given here, with the paper's as default.
"""

from collections.abc import Mapping
from typing import Any

from mrcnn_tf.experiment import fields, presets, ranges
from mrcnn_tf.modeling import backbones, build
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.modeling.rpn_model import RPNModel


def mask_rcnn(
    backbone: str = "resnet50",
    num_classes: int = 91,
    *,
    features: str = "fpn",
    preset: str = "paper",
    overrides: Mapping[str, Any] | None = None,
) -> MaskRCNN:
    """Build Mask R-CNN, its variables created and randomly initialised.

    Args:
      backbone: "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
        "resnext101_32x8d", "resnext101_64x4d", "efficientnet_lite0", see `modeling/backbones.py`.
      num_classes: N, background included.
      features: "fpn", "c4", "c5" or "dc5".
      preset: "paper", "torchvision" or "detectron2", whose conventions are kept.
      overrides: fields of `fields.Model`, nested, that differ:
        `{"box_head": {"rois_per_image": 128}}`.

    Returns:
      The network: `model(images, image_size_hw)` finds objects, `model.train_forward(batch, seed,
      step)` and `model.losses_of(outputs)` are one training step; see `modeling/mask_rcnn.py`.

    Raises:
      ValueError: an unknown name, which lists the known ones, or a network that cannot be built.
      AttributeError: `overrides` names a field that there is not.
    """
    config = _config("mask_rcnn", backbone, features, preset, overrides)
    _check_classes(num_classes)
    return build.build_model(config, num_classes)  # type: ignore[return-value]


def faster_rcnn(
    backbone: str = "resnet50",
    num_classes: int = 91,
    *,
    features: str = "fpn",
    preset: str = "paper",
    overrides: Mapping[str, Any] | None = None,
) -> MaskRCNN:
    """Build Faster R-CNN: `mask_rcnn` without its mask head; arguments as there."""
    config = _config("faster_rcnn", backbone, features, preset, overrides)
    _check_classes(num_classes)
    return build.build_model(config, num_classes)  # type: ignore[return-value]


def rpn(
    backbone: str = "resnet50",
    *,
    features: str = "fpn",
    preset: str = "paper",
    overrides: Mapping[str, Any] | None = None,
) -> RPNModel:
    """Build a region proposal network by itself; arguments as for `mask_rcnn`."""
    config = _config("rpn", backbone, features, preset, overrides)
    return build.build_model(config, num_classes=0)  # type: ignore[return-value]


def _check_classes(num_classes: int) -> None:
    """Refuse a number with which nothing but background could be found."""
    if num_classes < 2:
        raise ValueError(
            f"num_classes must be 2 or more, not {num_classes!r}: background counts as one"
        )


def _config(
    system: str,
    backbone: str,
    features: str,
    preset: str,
    overrides: Mapping[str, Any] | None,
) -> fields.Model:
    """Lay preset, arguments and overrides over the defaults."""
    if preset not in presets.PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known are {', '.join(presets.PRESETS)}")
    if features not in presets.FEATURES:
        known = ", ".join(map(repr, presets.FEATURES))
        raise ValueError(f"features must be one of {known}, not {features!r}")
    config = fields.Model(system=system, features=features, preset=preset)
    config.override(presets.FEATURES[features])
    config.override(presets.PRESETS[preset])
    config.override({"backbone": backbones.variant(backbone)})
    config.override(overrides or {})
    ranges.check(config, "task.model")
    return config
