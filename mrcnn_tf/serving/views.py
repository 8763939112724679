"""An image in several sizes, on its way to the functions `prepare_views` and `network_views`.

Both take and return flat tuples, three tensors (`preprocessing.NetworkInput`) for each size; what
they do is said in `export_views.py`.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mrcnn_tf.serving import preprocessing

_PER_VIEW = len(preprocessing.NetworkInput._fields)


def unflatten(tensors: Sequence[tf.Tensor]) -> list[preprocessing.NetworkInput]:
    """Return what a flat tuple has of each size."""
    return [
        preprocessing.NetworkInput(*tensors[k : k + _PER_VIEW])
        for k in range(0, len(tensors), _PER_VIEW)
    ]


def stack(prepared: Sequence[tuple[tf.Tensor, ...]]) -> list[tf.Tensor]:
    """Put images together that were prepared one by one: what `network_views` takes.

    Args:
      prepared: of each image, what `prepare_views` returned, as eager tensors.
    """
    of_sizes = zip(*map(unflatten, prepared), strict=True)
    return [tensor for one in of_sizes for tensor in preprocessing.stack(one)]


def canvases_hw(prepared: tuple[tf.Tensor, ...]) -> tuple[int, ...]:
    """The canvases of one image in all sizes; images that share them share a call."""
    return tuple(np.ravel([one.images.shape[:2] for one in unflatten(prepared)]).tolist())
