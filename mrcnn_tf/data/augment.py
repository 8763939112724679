"""Augmentation of decoded examples: picture, boxes and mask frames move together.

Mask bits are never touched: a transformation is said once, by where it puts the frames (see
`schema.py`). Every choice is a stateless function of a seed, so the same seed gives the same
pictures in any order of execution. A new augmentation is a function `example -> example` with plain
arguments, plus a `random_` one with a stream number of its own.
"""

import tensorflow as tf

from mrcnn_tf.data import schema

# Each random choice draws from a stream of its own, so adding one leaves the others as they were.
_FLIP_STREAM = 1
_SHORT_EDGE_STREAM = 2


def flip_left_right(example: dict[str, tf.Tensor], flip: tf.Tensor) -> dict[str, tf.Tensor]:
    """Mirror a decoded example about its vertical middle line, if `flip`.

    Args:
      example: a decoded example.
      flip: bool [].

    Returns:
      The example; its boxes keep x1 < x2, its mask frames turn round: x1 > x2.
    """
    image = example[schema.IMAGE]
    width = tf.cast(tf.shape(image)[1], tf.float32)
    y1, x1, y2, x2 = tf.unstack(example[schema.GT_BOXES], axis=1)
    flipped_boxes = tf.stack([y1, width - x2, y2, width - x1], axis=1)
    y1, x1, y2, x2 = tf.unstack(example[schema.GT_MASK_FRAMES], axis=1)
    flipped_frames = tf.stack([y1, width - x1, y2, width - x2], axis=1)
    return example | {
        schema.IMAGE: tf.cond(flip, lambda: tf.reverse(image, axis=[1]), lambda: image),
        schema.GT_BOXES: tf.where(flip, flipped_boxes, example[schema.GT_BOXES]),
        schema.GT_MASK_FRAMES: tf.where(flip, flipped_frames, example[schema.GT_MASK_FRAMES]),
    }


def random_flip_left_right(
    example: dict[str, tf.Tensor], seed: tf.Tensor, probability: float
) -> dict[str, tf.Tensor]:
    """Mirror a decoded example with the given probability.

    Args:
      example: a decoded example.
      seed: int64 [2].
      probability: 0 to 1.

    Returns:
      The example.
    """
    draw = tf.random.stateless_uniform([], _stream(seed, _FLIP_STREAM), alg="philox")
    return flip_left_right(example, draw < probability)


def random_short_edge(short_edges: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Choose the length of the short edge for one picture, each with equal probability.

    Args:
      short_edges: the lengths to choose from, pixels.
      seed: int64 [2].

    Returns:
      int32 [].
    """
    index = tf.random.stateless_uniform(
        [], _stream(seed, _SHORT_EDGE_STREAM), 0, len(short_edges), tf.int32, alg="philox"
    )
    return tf.gather(tf.constant(short_edges, tf.int32), index)


def _stream(seed: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, stream, alg="philox")
