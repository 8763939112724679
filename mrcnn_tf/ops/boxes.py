"""Boxes: area, overlap, coding against anchors and clipping.

A box is (y1, x1, y2, x2), float32, absolute pixels of the network input, in continuous
coordinates: its height is y2 - y1 (never + 1) and pixel i covers [i, i + 1). A box whose height or
width is not positive is empty: its area and every overlap with it are 0.

Shape letters: `B` images, `N M` boxes; `...` any leading dimensions, broadcast against each other.
"""

import math

import tensorflow as tf

# exp() of a scale delta is cut here: a box grows at most from 16 to 1000 pixels in one decoding.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
# Sizes below this count as this size when boxes are encoded, so that no delta is infinite.
_MIN_ENCODED_SIZE = 1e-6


def _product_if_positive(height, width):
    """Return height * width where both are positive, else 0.

    The `where` stands between this product and the sums it goes into on purpose. A compiler may
    contract a multiplication that feeds an addition to one fused operation, rounded once, in one
    place of a program and not in another; then the same IoU has different last bits, and matching
    compares IoUs for equality (`ops/matching.py`).
    """
    return tf.where((height > 0) & (width > 0), height * width, 0.0)


def area(boxes):
    """Return the area of boxes, 0 for empty ones.

    Args:
      boxes: float32 [..., (y1, x1, y2, x2)], any unit.

    Returns:
      float32 [...], squared unit.
    """
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    return _product_if_positive(y2 - y1, x2 - x1)


def _pairwise_intersection(a, b):
    """Return the area that each box of a [..., N, 4] shares with each of b [..., M, 4]."""
    ay1, ax1, ay2, ax2 = tf.split(a, 4, axis=-1)  # [..., N, 1]
    by1, bx1, by2, bx2 = (b[..., tf.newaxis, :, k] for k in range(4))  # [..., 1, M]
    height = tf.minimum(ay2, by2) - tf.maximum(ay1, by1)
    width = tf.minimum(ax2, bx2) - tf.maximum(ax1, bx1)
    return _product_if_positive(height, width)  # [..., N, M]


def iou(a, b):
    """Return the intersection over union of every pair of boxes.

    Args:
      a: float32 [..., N, (y1, x1, y2, x2)].
      b: float32 [..., M, (y1, x1, y2, x2)], same unit and frame.

    Returns:
      float32 [..., N, M] in [0, 1]; 0 where both boxes are empty.
    """
    intersection = _pairwise_intersection(a, b)
    union = area(a)[..., :, tf.newaxis] + area(b)[..., tf.newaxis, :] - intersection
    return tf.math.divide_no_nan(intersection, union)


def ioa(a, b):
    """Return which part of each box of a lies inside each box of b.

    This is the overlap that COCO uses for crowd regions: b may be far larger than a.

    Args:
      a: float32 [..., N, (y1, x1, y2, x2)].
      b: float32 [..., M, (y1, x1, y2, x2)], same unit and frame.

    Returns:
      float32 [..., N, M] in [0, 1]: intersection over the area of a; 0 where a is empty.
    """
    return tf.math.divide_no_nan(_pairwise_intersection(a, b), area(a)[..., :, tf.newaxis])


def clip(boxes, image_size_hw):
    """Clip boxes to their image, which spans [0, height] x [0, width].

    Args:
      boxes: float32 [B, N, (y1, x1, y2, x2)], pixels.
      image_size_hw: float32 [B, (height, width)], pixels.

    Returns:
      float32 [B, N, 4]; boxes that lie outside become empty.
    """
    limit = tf.concat([image_size_hw, image_size_hw], axis=-1)[:, tf.newaxis, :]
    return tf.clip_by_value(boxes, 0.0, limit)


def is_nonempty(boxes, min_size=0.0):
    """Say which boxes have both sides longer than a limit.

    Args:
      boxes: float32 [..., (y1, x1, y2, x2)].
      min_size: same unit; Detectron2 drops proposals with 0, torchvision keeps those >= 1e-3.

    Returns:
      bool [...].
    """
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    return (y2 - y1 > min_size) & (x2 - x1 > min_size)


def is_across_border(boxes, image_size_hw):
    """Say which boxes reach beyond the image, on whichever side.

    Args:
      boxes: float32 [N, (y1, x1, y2, x2)], pixels.
      image_size_hw: float32 [B, (height, width)], pixels.

    Returns:
      bool [B, N]; a box that ends exactly on the border is inside.

    Source: Faster R-CNN section 3.3, "cross-boundary anchors".
    """
    corner = tf.reduce_any(boxes[:, :2] < 0.0, axis=-1)  # [N]
    return corner | tf.reduce_any(boxes[:, 2:] > image_size_hw[:, tf.newaxis, :], axis=-1)


def _centers_and_sizes(boxes):
    """Split boxes [..., 4] into center y, center x, height and width, each [...]."""
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    height, width = y2 - y1, x2 - x1
    return y1 + 0.5 * height, x1 + 0.5 * width, height, width


def encode(boxes, anchors, weights=(1.0, 1.0, 1.0, 1.0)):
    """Return the deltas that turn anchors into boxes; the inverse of `decode`.

    Args:
      boxes: float32 [..., (y1, x1, y2, x2)], pixels. Empty boxes (padding) give finite deltas.
      anchors: float32 [..., 4], pixels: anchors or proposals, broadcast against boxes.
      weights: factors of (dy, dx, dh, dw), so that deltas of all four have similar spread.

    Returns:
      float32 [..., (dy, dx, dh, dw)].

    Source: Mask R-CNN's predecessor Fast R-CNN (arXiv:1504.08083) section 2.3 and R-CNN appendix C;
    weights as in Detectron's BBOX_REG_WEIGHTS, but in the order (y, x, h, w).
    """
    boxes, anchors = tf.cast(boxes, tf.float32), tf.cast(anchors, tf.float32)
    y, x, height, width = _centers_and_sizes(boxes)
    anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(anchors)
    height, width = (tf.maximum(s, _MIN_ENCODED_SIZE) for s in (height, width))
    anchor_height = tf.maximum(anchor_height, _MIN_ENCODED_SIZE)
    anchor_width = tf.maximum(anchor_width, _MIN_ENCODED_SIZE)
    deltas = [
        weights[0] * (y - anchor_y) / anchor_height,
        weights[1] * (x - anchor_x) / anchor_width,
        weights[2] * tf.math.log(height / anchor_height),
        weights[3] * tf.math.log(width / anchor_width),
    ]
    return tf.stack(deltas, axis=-1)


def decode(deltas, anchors, weights=(1.0, 1.0, 1.0, 1.0), max_log_scale=MAX_LOG_SCALE):
    """Apply predicted deltas to anchors, in float32 whatever the type of the deltas.

    Args:
      deltas: float [..., (dy, dx, dh, dw)].
      anchors: float32 [..., (y1, x1, y2, x2)], pixels, broadcast against deltas. For deltas per
        class [B, R, N, 4] pass anchors as [B, R, 1, 4].
      weights: the factors given to `encode`.
      max_log_scale: dh and dw (after division by their weight) are cut here, so that exp() stays
        finite at the start of training.

    Returns:
      float32 [..., (y1, x1, y2, x2)], pixels, not clipped.

    Source: Detectron2 and torchvision, which agree.
    """
    dy, dx, dh, dw = tf.unstack(tf.cast(deltas, tf.float32), axis=-1)
    anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(
        tf.cast(anchors, tf.float32)
    )
    y = dy / weights[0] * anchor_height + anchor_y
    x = dx / weights[1] * anchor_width + anchor_x
    half_height = 0.5 * anchor_height * tf.exp(tf.minimum(dh / weights[2], max_log_scale))
    half_width = 0.5 * anchor_width * tf.exp(tf.minimum(dw / weights[3], max_log_scale))
    return tf.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=-1)
