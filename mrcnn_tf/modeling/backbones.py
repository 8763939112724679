"""The backbones there are: one entry each, and nothing else knows which one a network has.

A backbone is a layer `images [B, H, W, 3] -> {level: [B, Hl, Wl, C]}` with

    out_channels   {level: C}
    roi_stage      the stage that C4 applies to each RoI; absent if it has none

that takes `last_level` and `freeze_at`, `dilated` if its last stage can be, and of the fields of
`fields.Backbone` those that are named in its constructor. Levels are named by their stride, 2**l.
Adding one is a file beside `resnet.py`, an entry here and, if there are weights to read, a module
in `weights/`.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tf_keras

from mrcnn_tf.experiment.fields import Backbone, Model
from mrcnn_tf.modeling import arguments, efficientnet_lite, resnet


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a backbone offers.

    Attributes:
      layer: builds it.
      variants: {name that people use: fields that it stands for}.
      check: called with `fields.Backbone`, raises ValueError for what cannot be built.
      weights: the module that knows the names of its weights in other projects' files, and where
        pretrained ones are: `load_imagenet(layer)`, `check_imagenet(fields.Model)` and
        `entries(project, layer, ...)`, see `weights/resnets.py`. Given by name, because weights
        are read into networks and not the other way round. Left out where there are none.
    """

    layer: Callable[..., tf_keras.layers.Layer]
    variants: Mapping[str, Mapping[str, Any]]
    check: Callable[[Backbone], None]
    weights: str = "mrcnn_tf.weights.no_pretrained"

    def build(self, fields: Backbone, last_level: int, dilated: bool) -> tf_keras.layers.Layer:
        """Build the layer up to `last_level`, with the fields that it has."""
        given = vars(fields) | {"last_level": last_level, "dilated": dilated}
        return self.layer(**arguments.taken(self.layer, given))

    def weights_module(self) -> Any:
        """Import the module that knows its weights."""
        return importlib.import_module(self.weights)


BACKBONES = {
    "resnet": Entry(
        layer=resnet.ResNet,
        variants=resnet.VARIANTS,
        check=resnet.check,
        weights="mrcnn_tf.weights.resnets",
    ),
    "efficientnet_lite0": Entry(
        layer=efficientnet_lite.EfficientNetLite0,
        variants=efficientnet_lite.VARIANTS,
        check=efficientnet_lite.check,
        weights="mrcnn_tf.weights.efficientnet_lite",
    ),
}


def entry_of(layer: tf_keras.layers.Layer) -> Entry:
    """Return the entry that built a backbone."""
    return next(entry for entry in BACKBONES.values() if isinstance(layer, entry.layer))  # type: ignore[arg-type]


def build(fields: Backbone, last_level: int, dilated: bool = False) -> tf_keras.layers.Layer:
    """Build the backbone of an experiment.

    Args:
      fields: `type` says which.
      last_level: coarsest level that `call` returns: 5, or 4 for C4.
      dilated: the last stage has no stride, so that level 4 is the coarsest (DC5).

    Raises:
      ValueError: there is no such backbone, or it cannot be built so.
    """
    check(fields)
    if dilated:
        check_dilation(fields)
    return BACKBONES[fields.type].build(fields, last_level, dilated)


def check(fields: Backbone) -> None:
    """Refuse what cannot be built.

    Raises:
      ValueError: with the field, the value received and what is allowed.
    """
    if fields.type not in BACKBONES:
        allowed = ", ".join(map(repr, BACKBONES))
        raise ValueError(f"task.model.backbone.type: got {fields.type!r}, allowed are {allowed}")
    BACKBONES[fields.type].check(fields)


def check_roi_stage(fields: Backbone) -> None:
    """Refuse C4 heads on a backbone without a stage for them.

    Raises:
      ValueError: with what to do instead.
    """
    if not hasattr(BACKBONES[fields.type].layer, "roi_stage"):
        raise ValueError(
            f"task.model.features: got 'c4', but backbone.type {fields.type!r} has no stage that "
            "could be applied to RoIs; use features: fpn"
        )


def check_dilation(fields: Backbone) -> None:
    """Refuse DC5 on a backbone whose last stage cannot be dilated.

    Raises:
      ValueError: with what to do instead.
    """
    if "dilated" not in inspect.signature(BACKBONES[fields.type].layer).parameters:
        raise ValueError(
            f"task.model.features: got 'dc5', but the last stage of backbone.type {fields.type!r} "
            "cannot be dilated; use features: c5, or fpn"
        )


def check_random(fields: Backbone) -> None:
    """Refuse to train from random weights what would not learn.

    Raises:
      ValueError: with the field, and what to do instead.
    """
    if fields.norm == "frozen_batch_norm":
        raise ValueError(
            "task.model.backbone.norm: 'frozen_batch_norm' over random weights never learns its "
            "statistics. Set task.model.backbone.weights: imagenet or task.init_checkpoint, or "
            "train from scratch with norm: group_norm (or batch_norm) and freeze_at: 0"
        )
    if fields.freeze_at > 0:
        raise ValueError(
            f"task.model.backbone.freeze_at: {fields.freeze_at} would freeze random weights; "
            "training from scratch needs freeze_at: 0"
        )


def check_imagenet(model: Model) -> None:
    """Refuse `backbone.weights: imagenet` where there are none that fit.

    Raises:
      ValueError: with the fields that do not fit.
    """
    BACKBONES[model.backbone.type].weights_module().check_imagenet(model)


def variant(name: str) -> dict[str, Any]:
    """Return the fields that a name such as "resnet50" stands for.

    Raises:
      ValueError: no backbone has it; the known ones are listed.
    """
    for kind, entry in BACKBONES.items():
        if name in entry.variants:
            return {"type": kind, **entry.variants[name]}
    known = ", ".join(name for entry in BACKBONES.values() for name in entry.variants)
    raise ValueError(f"unknown backbone {name!r}; known are {known}")
