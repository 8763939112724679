"""Augmentation of decoded examples: image, boxes, mask frames and keypoints move together.

Mask bits are never touched: a transformation is said once, by where it puts the frames (see
`schema.py`). Every choice is a stateless function of a seed, so the same seed gives the same
images in any order of execution. A new augmentation is a function `example -> example` with plain
arguments, plus a `random_` one with a stream number of its own.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import arena, keypoints, schema

# Each random choice draws from a stream of its own, so adding one leaves the others as they were.
_FLIP_STREAM = 1
_SHORT_EDGE_STREAM = 2
_SCALE_STREAM = 3
_COLOR_STREAM = 4
_ORDER_STREAM = 5
_IS_PASTED_STREAM = 7
_PASTED_OBJECTS_STREAM = 9
_REPEAT_STREAM = 10

# What a mirror turns round; proposals are there only if they come from files.
_BOXES = (schema.GT_BOXES, schema.PROPOSAL_BOXES)

# Boxes are stored as fractions of the image, so one that ends at a crop's edge may reach into it
# by rounding: what is thinner than this, in pixels, is nothing.
_SLIVER = 1e-2

# RGB to YIQ (NTSC): brightness Y, and the plane of I and Q, in which hue is an angle.
_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
)
# A colour is its grey, its distance from grey, and that distance turned by a quarter: matrices that
# map RGB to the three.
_TO_GREY = np.outer(np.ones(3), _YIQ[0])
_TO_CHROMA = np.eye(3) - _TO_GREY
_TO_TURNED = np.linalg.inv(_YIQ) @ [[0, 0, 0], [0, 0, -1], [0, 1, 0]] @ _YIQ


class ColorJitter(NamedTuple):
    """How far colours may move; 0 leaves that property as it is.

    Attributes:
      brightness: RGB is multiplied by a number drawn from 1 - this to 1 + this.
      contrast: the distance from the image's mean grey, likewise.
      saturation: each pixel's distance from its own grey, likewise.
      hue: in turns of the colour circle, drawn from -this to this.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float


def flip_left_right(
    example: dict[str, tf.Tensor], flip: tf.Tensor, mirrored_keypoints: tuple[int, ...] = ()
) -> dict[str, tf.Tensor]:
    """Mirror a decoded example about its vertical middle line, if `flip`.

    Args:
      example: a decoded example.
      flip: bool [].
      mirrored_keypoints: see `keypoints.flipped`; of an example with keypoints.

    Returns:
      The example; its boxes keep x1 < x2, its mask frames turn round: x1 > x2.
    """
    image = example[schema.IMAGE]
    width = tf.cast(tf.shape(image)[1], tf.float32)
    flipped_boxes = {}
    for key in _BOXES:
        if key not in example:
            continue
        y1, x1, y2, x2 = tf.unstack(example[key], axis=1)
        flipped = tf.stack([y1, width - x2, y2, width - x1], axis=1)
        flipped_boxes[key] = tf.where(flip, flipped, example[key])
    y1, x1, y2, x2 = tf.unstack(example[schema.GT_MASK_FRAMES], axis=1)
    flipped_frames = tf.stack([y1, width - x1, y2, width - x2], axis=1)
    flipped_points = {}
    if schema.GT_KEYPOINTS in example:
        points = keypoints.flipped(example, width, mirrored_keypoints)
        flipped_points = {key: tf.where(flip, points[key], example[key]) for key in points}
    return example | {
        **flipped_boxes,
        **flipped_points,
        schema.IMAGE: tf.cond(flip, lambda: tf.reverse(image, axis=[1]), lambda: image),
        schema.GT_MASK_FRAMES: tf.where(flip, flipped_frames, example[schema.GT_MASK_FRAMES]),
    }


def random_flip_left_right(
    example: dict[str, tf.Tensor],
    seed: tf.Tensor,
    probability: float,
    mirrored_keypoints: tuple[int, ...] = (),
) -> dict[str, tf.Tensor]:
    """Mirror a decoded example with the given probability.

    Args:
      example: a decoded example.
      seed: int64 [2].
      probability: 0 to 1.
      mirrored_keypoints: see `flip_left_right`.

    Returns:
      The example.
    """
    draw = tf.random.stateless_uniform([], _stream(seed, _FLIP_STREAM), alg="philox")
    return flip_left_right(example, draw < probability, mirrored_keypoints)


def random_short_edges(
    short_edges: tuple[int, ...], seed: tf.Tensor, count: int | tf.Tensor
) -> tf.Tensor:
    """Choose the lengths of the short edges of images, each with equal probability.

    Args:
      short_edges: the lengths to choose from, pixels.
      seed: int64 [2].
      count: n, how many images.

    Returns:
      int32 [n].
    """
    index = tf.random.stateless_uniform(
        [count], _stream(seed, _SHORT_EDGE_STREAM), 0, len(short_edges), tf.int32, alg="philox"
    )
    return tf.gather(tf.constant(short_edges, tf.int32), index)


def random_order(count: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Choose one of all orders, each with equal probability.

    Args:
      count: n, of how many.
      seed: int64 [2].

    Returns:
      int32 [n], the numbers from 0 to n - 1.
    """
    return tf.random.experimental.stateless_shuffle(
        tf.range(count), _stream(seed, _ORDER_STREAM), alg="philox"
    )


def random_rounding(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Round numbers up or down at random, so that their mean over many seeds is what they are.

    Args:
      values: float32 [n], not negative.
      seed: int64 [2].

    Returns:
      int32 [n].
    """
    draw = tf.random.stateless_uniform(
        [tf.size(values)], _stream(seed, _REPEAT_STREAM), alg="philox"
    )
    whole = tf.floor(values)
    return tf.cast(whole, tf.int32) + tf.cast(draw < values - whole, tf.int32)


def random_is_pasted(seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Choose whether objects of another image are pasted onto one (`copy_paste.py`): bool [].

    Args:
      seed: int64 [2].
      probability: 0 to 1.
    """
    draw = tf.random.stateless_uniform([], _stream(seed, _IS_PASTED_STREAM), alg="philox")
    return draw < probability


def random_subset(is_eligible: tf.Tensor, seed: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
    """Choose some of those that are eligible: first how many, from none to all, then which.

    Args:
      is_eligible: bool [n].
      seed: int64 [2].
      most: int32 [], no more than these.

    Returns:
      bool [n].
    """
    seed = _stream(seed, _PASTED_OBJECTS_STREAM)
    draw = tf.random.stateless_uniform([tf.size(is_eligible) + 1], seed, alg="philox")
    num_eligible = tf.math.count_nonzero(is_eligible, dtype=tf.int32)
    # float32 may round the product up to the count itself, plus 1.
    count = tf.cast(draw[0] * tf.cast(num_eligible + 1, tf.float32), tf.int32)
    count = tf.minimum(tf.minimum(count, num_eligible), most)
    place = tf.argsort(tf.argsort(tf.where(is_eligible, draw[1:], 2.0), stable=True))
    return place < count


def crop(
    example: dict[str, tf.Tensor], corner_yx: tf.Tensor, size_hw: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Cut a rectangle out of a decoded example.

    An object whose box lies inside keeps it. One that is cut gets the smallest box around those of
    its mask pixels that are left, which a clipped box may miss by far (the end of a diagonal
    object, one of two parts); without a mask, the clipped box. Objects of which nothing is left
    are dropped, crowds too. Mask frames only move, so they may lie partly outside. Proposals are
    clipped, and dropped if nothing is left.

    Args:
      example: a decoded example.
      corner_yx: int32 [2], the rectangle's first row and column.
      size_hw: int32 [2], its height and width, within the image.

    Returns:
      The example.

    Source: the boxes are Detectron2's (`recompute_boxes`), but for objects that are not cut.
    """
    image = tf.slice(
        example[schema.IMAGE], tf.pad(corner_yx, [[0, 1]]), tf.concat([size_hw, [3]], axis=0)
    )
    image.set_shape([None, None, 3])
    shift = tf.tile(tf.cast(corner_yx, tf.float32), [2])
    far = tf.tile(tf.cast(size_hw, tf.float32), [2])
    boxes = example[schema.GT_BOXES] - shift
    frames = example[schema.GT_MASK_FRAMES] - shift
    bits, sizes = example[schema.GT_MASK_BITS], example[schema.GT_MASK_SIZES]
    num_pixels = sizes[:, 0] * sizes[:, 1]

    clipped = tf.clip_by_value(boxes, 0.0, far)
    is_cut = tf.reduce_any(clipped != boxes, axis=1, keepdims=True) & (num_pixels[:, None] > 0)
    # Empty frames see nothing, which costs nothing.
    visible = arena.visible_boxes(bits, sizes, tf.where(is_cut, frames, 0.0), size_hw)
    boxes = tf.where(is_cut, visible, clipped)
    is_left = _has_area(boxes)
    rows = {
        schema.GT_BOXES: boxes,
        schema.GT_CLASSES: example[schema.GT_CLASSES],
        schema.GT_IS_CROWD: example[schema.GT_IS_CROWD],
        schema.GT_MASK_FRAMES: frames,
        schema.GT_MASK_SIZES: sizes,
    }
    if schema.GT_KEYPOINTS in example:
        rows |= keypoints.cropped(example, corner_yx, size_hw)
    rows = {key: tf.boolean_mask(values, is_left) for key, values in rows.items()}
    if schema.PROPOSAL_BOXES in example:
        proposals = tf.clip_by_value(example[schema.PROPOSAL_BOXES] - shift, 0.0, far)
        rows[schema.PROPOSAL_BOXES] = tf.boolean_mask(proposals, _has_area(proposals))
    bits = arena.keep(bits, num_pixels, is_left)
    return example | rows | {schema.IMAGE: image, schema.GT_MASK_BITS: bits}


def _has_area(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(boxes[:, 2:] - boxes[:, :2] > _SLIVER, axis=1)


def scale_and_crop(
    example: dict[str, tf.Tensor],
    fitted_hw: tf.Tensor,
    side: int,
    scale: tf.Tensor,
    position_yx: tf.Tensor,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Scale a decoded example and cut off what exceeds a square.

    Nothing is resized here: the part that will be seen is cut out of the stored image, along its
    pixels, so no time is spent on the rest. The part's size is rounded to whole pixels, so the two
    axes may be scaled apart by half a stored pixel in its length.

    Args:
      example: a decoded example.
      fitted_hw: int32 [2], its size for a scale of 1, from `preprocess.resized_size_hw`.
      side: of the square, pixels.
      scale: float32 [], positive.
      position_yx: float32 [2] in [0, 1): where the part lies, from the first possible place to the
        last; without effect along an axis that fits.

    Returns:
      example: the part.
      size_hw: int32 [2], the size to which the part is to be resized: at most the square.
    """
    original_hw = tf.shape(example[schema.IMAGE])[:2]
    scaled_hw = tf.maximum(tf.floor(tf.cast(fitted_hw, tf.float32) * scale + 0.5), 1.0)
    share = tf.minimum(side / scaled_hw, 1.0)
    part_hw = tf.cast(tf.floor(tf.cast(original_hw, tf.float32) * share + 0.5), tf.int32)
    part_hw = tf.maximum(part_hw, 1)
    num_places = tf.cast(original_hw - part_hw + 1, tf.float32)
    corner_yx = tf.cast(position_yx * num_places, tf.int32)
    return crop(example, corner_yx, part_hw), tf.cast(tf.minimum(scaled_hw, side), tf.int32)


def random_scale_and_crop(
    example: dict[str, tf.Tensor],
    seed: tf.Tensor,
    fitted_hw: tf.Tensor,
    side: int,
    scale_range: tuple[float, ...],
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Large-scale jitter: scale at random, then cut a random part out of what is too large.

    Args:
      example: a decoded example.
      seed: int64 [2].
      fitted_hw: see `scale_and_crop`.
      side: see there.
      scale_range: smallest and largest scale, drawn uniformly.

    Returns:
      See `scale_and_crop`.

    Source: Simple Copy-Paste (arXiv 2012.07177, section 3); Detectron2's ResizeScale and
      FixedSizeCrop. There one random number places the part along both axes, so that it lies on the
      diagonal; here each axis has its own. They flip afterwards, so that padding may lie on the
      left; here it is always at the bottom and on the right.
    """
    draw = tf.random.stateless_uniform([3], _stream(seed, _SCALE_STREAM), alg="philox")
    low, high = scale_range
    return scale_and_crop(example, fitted_hw, side, low + (high - low) * draw[0], draw[1:])


def adjust_color(image: tf.Tensor, factors: tf.Tensor, hue: tf.Tensor) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue, in this order.

    All four are linear in RGB, so they are one matrix and an offset, and one pass over the image.

    Args:
      image: uint8 [h, w, 3] RGB.
      factors: float32 [(brightness, contrast, saturation)]; 1 changes nothing.
      hue: float32 [], turns of the colour circle; 0 changes nothing.

    Returns:
      uint8 [h, w, 3], rounded; what leaves 0..255 is clipped, once at the end.

    Source: torchvision's ColorJitter, with its meaning of the first three, which clips after each
      of them; hue is turned in YIQ instead of HSV, which keeps brightness.
    """
    brightness, contrast, saturation = tf.unstack(factors)
    angle = 2.0 * math.pi * hue
    to_grey, to_chroma, to_turned = (
        tf.constant(matrix, tf.float32) for matrix in (_TO_GREY, _TO_CHROMA, _TO_TURNED)
    )
    matrix = to_grey + saturation * (tf.cos(angle) * to_chroma + tf.sin(angle) * to_turned)
    pixels = tf.cast(tf.reshape(image, [-1, 3]), tf.float32)
    mean_grey = tf.tensordot(to_grey[0], tf.reduce_mean(pixels, axis=0), 1)
    adjusted = tf.matmul(pixels, contrast * brightness * matrix, transpose_b=True)
    adjusted += (1.0 - contrast) * brightness * mean_grey
    adjusted = tf.clip_by_value(tf.floor(adjusted + 0.5), 0.0, 255.0)
    adjusted = tf.reshape(tf.cast(adjusted, tf.uint8), tf.shape(image))
    adjusted.set_shape(image.shape)
    return adjusted


def random_color(
    example: dict[str, tf.Tensor], seed: tf.Tensor, jitter: ColorJitter
) -> dict[str, tf.Tensor]:
    """Change a decoded example's colours at random.

    Args:
      example: a decoded example.
      seed: int64 [2].
      jitter: how far.

    Returns:
      The example.
    """
    draw = tf.random.stateless_uniform([4], _stream(seed, _COLOR_STREAM), -1.0, 1.0, alg="philox")
    shift = draw * tf.constant(jitter, tf.float32)
    return example | {schema.IMAGE: adjust_color(example[schema.IMAGE], 1.0 + shift[:3], shift[3])}


def _stream(seed: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, stream, alg="philox")
