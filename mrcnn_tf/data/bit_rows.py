"""Masks on a canvas as rows of bits: a byte holds eight pixels of a row, the left one highest.

What covers what is decided here with an eighth of the numbers that one per pixel would take. An
object's window is the part of the canvas that its mask's frame covers, wider by up to seven pixels
at each side, so that it begins and ends with a byte.

Shape letters: `n` objects, `h w` a window's rows and bytes, `H` rows of the canvas, `W8` bytes of
its rows, `ceil(W / 8)`.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import arena

_BYTES = np.arange(256, dtype=np.uint8)[:, np.newaxis]
_PIXELS = np.unpackbits(_BYTES, axis=1).astype(bool)  # [256, 8]
# Of each byte the first and the last pixel that is set; 8 and -1 if none is.
_FIRST = np.where(_PIXELS, np.arange(8), 8).min(axis=1).astype(np.int32)
_LAST = np.where(_PIXELS, np.arange(8), -1).max(axis=1).astype(np.int32)


class Windows(NamedTuple):
    """Where the masks of objects lie on a canvas, and which of their stored pixels that shows.

    Attributes:
      boxes: int32 [n, (row, byte, row, byte)], first and behind the last; without area if nothing
        of the object is on the canvas.
      sizes: int32 [n, (height, width)] of the stored crops.
      first: int32 [n, 3], where each object begins in the bits, in `rows` and in `columns`.
      rows: int32 [sum of h], the crop's row at each row of the windows, object by object.
      columns: int32 [sum of 8 w], the crop's column at each column; its width where it has none.
    """

    boxes: tf.Tensor
    sizes: tf.Tensor
    first: tf.Tensor
    rows: tf.Tensor
    columns: tf.Tensor


def windows(sizes: tf.Tensor, frames: tf.Tensor, canvas_hw: tf.Tensor) -> Windows:
    """Find the windows of objects by the lookup formula of `schema.py`.

    Args:
      sizes: int32 [n, (height, width)] of the crops.
      frames: float32 [n, (y1, x1, y2, x2)], pixels of the canvas; x1 > x2: flipped.
      canvas_hw: int32 [(H, W)].
    """
    y1, height, rows = arena.axis_lookup(frames[:, 0], frames[:, 2], sizes[:, 0], canvas_hw[0])
    x1, width, columns = arena.axis_lookup(frames[:, 1], frames[:, 3], sizes[:, 1], canvas_hw[1])
    is_seen = (height > 0) & (width > 0)
    start = x1 // 8
    stop = tf.where(is_seen, (x1 + width + 7) // 8, start)
    # Columns of the windows that lie in a frame get theirs, the others the one behind the last.
    num_columns = (stop - start) * 8
    owner = tf.repeat(tf.range(tf.size(x1)), width)
    shift = tf.cumsum(num_columns, exclusive=True) - tf.cumsum(width, exclusive=True) + x1 % 8
    place = tf.range(tf.size(owner)) + tf.gather(shift, owner)
    is_shown = tf.gather(is_seen, owner)
    columns = tf.tensor_scatter_nd_update(
        tf.repeat(sizes[:, 1], num_columns),
        tf.boolean_mask(place, is_shown)[:, tf.newaxis],
        tf.boolean_mask(columns, is_shown),
    )
    return Windows(
        boxes=tf.stack([y1, start, y1 + height, stop], axis=1),
        sizes=sizes,
        first=tf.cumsum(
            tf.stack([sizes[:, 0] * sizes[:, 1], height, num_columns], axis=1), exclusive=True
        ),
        rows=rows,
        columns=columns,
    )


def look_up(bits: tf.Tensor, of: Windows, number: tf.Tensor) -> tf.Tensor:
    """Return the mask of one object in its window, uint8 [h, w].

    Args:
      bits: uint8, the objects' crops one after the other.
      of: the objects' windows.
      number: int32 [], which object.
    """
    height, width = tf.unstack(of.sizes[number])
    y1, x1, y2, x2 = tf.unstack(of.boxes[number])
    first, first_row, first_column = tf.unstack(of.first[number])
    behind = first + height * width
    stored = tf.reshape(unpack(bits[first // 8 : (behind + 7) // 8]), [-1])
    crop = tf.reshape(stored[first % 8 : first % 8 + height * width], [height, width])
    crop = tf.concat([crop, tf.zeros([height, 1], tf.bool)], axis=1)
    # Columns first: of the stored rows there are fewer, and whole rows are copied at once.
    columns = of.columns[first_column : first_column + (x2 - x1) * 8]
    of_stored_rows = arena.pack(tf.reshape(tf.gather(crop, columns, axis=1), [-1]))
    of_stored_rows = tf.reshape(of_stored_rows, [height, x2 - x1])
    return tf.gather(of_stored_rows, of.rows[first_row : first_row + y2 - y1])


def unite(of: Windows, bits: tf.Tensor, canvas_hw: tf.Tensor) -> tf.Tensor:
    """Return uint8 [H, W8]: the pixels of the canvas that lie in the mask of any object.

    Args:
      of: the objects' windows.
      bits: uint8, their crops one after the other.
      canvas_hw: int32 [(H, W)].
    """

    def add(number: tf.Tensor, canvas: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y1, x1, y2, x2 = tf.unstack(of.boxes[number])
        band = canvas[y1:y2]
        both = tf.bitwise.bitwise_or(band[:, x1:x2], look_up(bits, of, number))
        band = tf.concat([band[:, :x1], both, band[:, x2:]], axis=1)
        return number + 1, tf.concat([canvas[:y1], band, canvas[y2:]], axis=0)

    empty = tf.zeros([canvas_hw[0], (canvas_hw[1] + 7) // 8], tf.uint8)
    count = tf.shape(of.boxes)[0]
    _, canvas = tf.while_loop(
        lambda number, _: number < count,
        add,
        (0, empty),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None])),
    )
    return canvas


def unpack(bits: tf.Tensor) -> tf.Tensor:
    """Return the pixels bool [k, 8] of bytes uint8 [k]."""
    return tf.gather(tf.constant(_PIXELS), tf.cast(bits, tf.int32))


def count(rows: tf.Tensor) -> tf.Tensor:
    """Return int32 []: how many pixels are set."""
    return tf.reduce_sum(tf.cast(tf.raw_ops.PopulationCount(x=rows), tf.int32))


def box_around(rows: tf.Tensor) -> tf.Tensor:
    """Return int32 [(y1, x1, y2, x2)], pixels: the smallest box around those set, if any is.

    Args:
      rows: uint8 [h, w], not empty.
    """
    y1, y2 = _ends(tf.reduce_max(rows, axis=1) > 0)
    first, behind = _ends(tf.reduce_max(rows, axis=0) > 0)
    of_first = tf.gather(tf.constant(_FIRST), tf.cast(rows[:, first], tf.int32))
    of_last = tf.gather(tf.constant(_LAST), tf.cast(rows[:, behind - 1], tf.int32))
    x1 = first * 8 + tf.reduce_min(of_first)
    x2 = (behind - 1) * 8 + tf.reduce_max(of_last) + 1
    return tf.stack([y1, x1, y2, x2])


def _ends(is_set: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    first = tf.argmax(is_set, output_type=tf.int32)
    return first, tf.size(is_set) - tf.argmax(is_set[::-1], output_type=tf.int32)
