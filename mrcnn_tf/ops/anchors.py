"""Anchors: the boxes of fixed sizes and shapes that the RPN scores at every cell of every level.

Shape letters: `Hl Wl` feature size of level l, `K` anchors per cell. Boxes as in `ops/boxes.py`.
"""

import numpy as np
import tensorflow as tf


def cell_anchors(size, ratios, rounded):
    """Return the anchors of one cell, centered at the origin.

    An anchor of size s and ratio r has the area s * s and height / width = r.

    Args:
      size: side of the square anchor in pixels, or several sizes for a network with one level (C4).
      ratios: height / width, in the order of the RPN's output channels.
      rounded: round each coordinate to whole pixels (half to even), as torchvision does. Detectron2
        does not.

    Returns:
      np.float32 [K, (y1, x1, y2, x2)], K = sizes * ratios, the ratio running fastest.

    Raises:
      ValueError: a size or a ratio is not positive.

    Source: paper section 3.1 of Faster R-CNN (arXiv:1506.01497); order of Detectron2's
    `generate_cell_anchors`. torchvision runs the size fastest, which differs only where one level
    has several sizes; none of its released models has.
    """
    sizes = np.atleast_1d(np.asarray(size, np.float64))[:, np.newaxis]  # [sizes, 1]
    ratios = np.atleast_1d(np.asarray(ratios, np.float64))  # [ratios]
    if not (np.all(sizes > 0) and np.all(ratios > 0)):
        raise ValueError(f"anchor sizes {size} and ratios {ratios} must be positive")
    half_heights = (sizes * np.sqrt(ratios) / 2).ravel()
    half_widths = (sizes / np.sqrt(ratios) / 2).ravel()
    anchors = np.stack([-half_heights, -half_widths, half_heights, half_widths], axis=-1)
    if rounded:
        anchors = np.round(anchors)
    return anchors.astype(np.float32)


def grid_anchors(feature_hw, stride_yx, cell_anchors, offset=0.0):
    """Repeat the anchors of a cell over a level.

    Cell (i, j) has its center at ((i + offset) * stride, (j + offset) * stride).

    Args:
      feature_hw: (Hl, Wl), two integers or integer tensors, or an int32 tensor [2].
      stride_yx: pixels of network input per cell: a number, a pair (y, x), or a tensor of either.
      cell_anchors: float32 [K, (y1, x1, y2, x2)] of `cell_anchors`.
      offset: 0 puts the centers on the cells' upper left corners, as in torchvision and Detectron2;
        0.5 puts them in the middle.

    Returns:
      float32 [Hl * Wl * K, 4], pixels of the network input. The order is y, x, k: that of a
      reshape from [Hl, Wl, K].
    """
    height, width = tf.unstack(feature_hw) if tf.is_tensor(feature_hw) else feature_hw
    stride_y, stride_x = tf.unstack(tf.broadcast_to(tf.cast(stride_yx, tf.float32), [2]))
    y = (tf.cast(tf.range(height), tf.float32) + offset) * stride_y
    x = (tf.cast(tf.range(width), tf.float32) + offset) * stride_x
    y, x = tf.meshgrid(y, x, indexing="ij")  # [Hl, Wl]
    centers = tf.stack([y, x, y, x], axis=-1)[:, :, tf.newaxis, :]  # [Hl, Wl, 1, 4]
    return tf.reshape(centers + cell_anchors, [-1, 4])  # [Hl, Wl, K, 4] -> [Hl*Wl*K, 4]
