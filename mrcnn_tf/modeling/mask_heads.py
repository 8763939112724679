"""The mask heads there are, by the name that `mask_head.type` gives them.

A mask head is a layer `(roi_features [B, R, S, S, C], classes [B, R], training) -> logits` with

    mask_size, target, target_sampling_ratio   as in `fields.MaskHead`
    kind                                       what its maps stand for, see `mask_classes.py`
    per_class                                  how its last axis depends on the classes, or None

that takes the number of classes and, of the fields of `fields.MaskHead`, those that are named in
its constructor.
"""

from collections.abc import Callable
from typing import Any

import tf_keras

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import arguments
from mrcnn_tf.modeling.mlp_mask_head import MLPMaskHead
from mrcnn_tf.modeling.roi_heads import MaskHead

MASK_HEADS: dict[str, Callable[..., tf_keras.layers.Layer]] = {
    "fcn": MaskHead,
    "mlp": MLPMaskHead,
}


def build(head: fields.MaskHead, num_classes: int, **given: Any) -> tf_keras.layers.Layer:
    """Build the mask head of an experiment.

    Args:
      head: `type` says which.
      num_classes: N, with background.
      **given: take the place of fields, where the head has them.
    """
    layer = MASK_HEADS[head.type]
    return layer(num_classes, **arguments.taken(layer, vars(head) | given))
