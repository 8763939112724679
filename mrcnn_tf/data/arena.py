"""Writing the mask arena: crops' pixels -> one bit string per picture.

Shape letters: `n` objects of one picture, `T` pixels of all their crops, `S` bytes of the arena.
`schema.py` explains the arena, its frames and the lookup formula; `ops/masks.py` reads it.
"""

import tensorflow as tf


def subsample(
    pixels: tf.Tensor, sizes: tf.Tensor, frames: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reduce each crop to one pixel per pixel of the network input.

    For pictures that were shrunk: the arena need not hold more than the network can look up. Each
    new pixel is what the lookup formula finds at its place, so looking up through the new frames,
    which are integers and not flipped, gives the same masks. On an axis that was not shrunk the
    crop grows instead: call this only where both were.

    Args:
      pixels: bool [T], crops row by row.
      sizes: int32 [n, (height, width)] of the crops.
      frames: float32 [n, (y1, x1, y2, x2)], network-input pixels; y1 > y2 or x1 > x2 if flipped.

    Returns:
      pixels, sizes and frames of the new crops. An object that falls between the network input's
      pixel centres has a crop of size 0.
    """
    first_y, height, source_row = _axis_lookup(frames[:, 0], frames[:, 2], sizes[:, 0])
    first_x, width, source_col = _axis_lookup(frames[:, 1], frames[:, 3], sizes[:, 1])
    # Where each new row's pixels come from: the source row's start, and the object's columns.
    object_of_row = tf.repeat(tf.range(tf.size(height)), height)
    crop_start = tf.cumsum(sizes[:, 0] * sizes[:, 1], exclusive=True)
    row_start = tf.gather(crop_start, object_of_row)
    row_start += source_row * tf.gather(sizes[:, 1], object_of_row)
    row_width = tf.gather(width, object_of_row)
    # The k-th new pixel is column k - (its row's first k) of its object.
    first_pixel = tf.cumsum(row_width, exclusive=True)
    first_col = tf.gather(tf.cumsum(width, exclusive=True), object_of_row)
    col_index = tf.range(tf.reduce_sum(row_width)) + tf.repeat(first_col - first_pixel, row_width)
    source = tf.repeat(row_start, row_width) + tf.gather(source_col, col_index)

    new_sizes = tf.stack([height, width], axis=1)
    top_left = tf.stack([first_y, first_x], axis=1)
    new_frames = tf.cast(tf.concat([top_left, top_left + new_sizes], axis=1), tf.float32)
    return tf.gather(pixels, source), new_sizes, new_frames


def _axis_lookup(
    start: tf.Tensor, end: tf.Tensor, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Apply the lookup formula along one axis.

    Args:
      start: float32 [n], the frames' y1 or x1.
      end: float32 [n], their y2 or x2.
      size: int32 [n], the crops' height or width.

    Returns:
      first: int32 [n], the first network-input pixel whose centre lies in the frame.
      count: int32 [n], how many there are.
      source: int32 [sum of count], the crop's row or column at each of them, object by object.
    """
    # start <= i + 0.5 < end; flipped: end < i + 0.5 <= start.
    is_flipped = start > end
    first = tf.where(is_flipped, tf.floor(end - 0.5) + 1.0, tf.math.ceil(start - 0.5))
    stop = tf.where(is_flipped, tf.floor(start - 0.5) + 1.0, tf.math.ceil(end - 0.5))
    count = tf.where(size > 0, tf.cast(stop - first, tf.int32), 0)

    owner = tf.repeat(tf.range(tf.size(size)), count)
    step = tf.range(tf.size(owner)) - tf.repeat(tf.cumsum(count, exclusive=True), count)
    pixel = tf.gather(first, owner) + tf.cast(step, tf.float32)
    of_owner = tf.gather(tf.stack([start, end, tf.cast(size, tf.float32)], axis=1), owner)
    start, end, length = tf.unstack(of_owner, axis=1)
    source = tf.cast(tf.floor((pixel + 0.5 - start) * length / (end - start)), tf.int32)
    # Rounding may put a centre that lies on the frame's edge one pixel outside.
    source = tf.clip_by_value(source, 0, tf.cast(length, tf.int32) - 1)
    return tf.cast(first, tf.int32), count, source


def pack(
    pixels: tf.Tensor, num_pixels: tf.Tensor, is_wanted: tf.Tensor, arena_pixels: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Pack the wanted objects' pixels into an arena, as many objects as fit.

    Args:
      pixels: bool [T], crops one after the other.
      num_pixels: int32 [n], pixels of each crop; their sum is T.
      is_wanted: bool [n]; the others' pixels are left out.
      arena_pixels: capacity of the arena, a multiple of 8.

    Returns:
      bits: uint8 [S], S = arena_pixels / 8, zeros behind the last crop.
      offsets: int32 [n], position of each crop's first pixel in bits.
      is_packed: bool [n]: wanted, and lies within the arena. From the first wanted object that
        does not fit, all the following ones stay out.

    Raises:
      ValueError: the capacity is not a multiple of 8 or has more bits than int32 counts.
    """
    if arena_pixels % 8 or not 0 <= arena_pixels < 2**31:
        raise ValueError(
            f"mask arena: {arena_pixels} pixels; must be a multiple of 8 from 0 to 2**31 - 8"
        )
    end = tf.cumsum(tf.where(is_wanted, num_pixels, 0))
    is_packed = is_wanted & (end <= arena_pixels)
    pixels = tf.cond(
        tf.reduce_all(is_packed),
        lambda: pixels,
        lambda: tf.boolean_mask(pixels, tf.repeat(is_packed, num_pixels)),
    )
    offsets = tf.cumsum(tf.where(is_packed, num_pixels, 0), exclusive=True)
    # The real pixels are packed first and the bytes padded then: the arena is mostly empty.
    pixels = tf.pad(pixels, [[0, -tf.size(pixels) % 8]])
    place_values = tf.constant([[128], [64], [32], [16], [8], [4], [2], [1]], tf.float32)
    # [T / 8, 8] x [8, 1]: exact in float32, and twice as fast as an integer sum.
    packed = tf.matmul(tf.cast(tf.reshape(pixels, [-1, 8]), tf.float32), place_values)
    packed = tf.cast(packed[:, 0], tf.uint8)
    bits = tf.pad(packed, [[0, arena_pixels // 8 - tf.size(packed)]])
    bits.set_shape([arena_pixels // 8])
    return bits, offsets, is_packed
