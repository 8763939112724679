"""COCO's compressed RLE of a mask that is zero outside a crop: `coco_rle.py` in an exported graph.

Its algorithm, one mask at a time, with a string as the result.
"""

import tensorflow as tf

# A number of k characters holds -16 * 32**(k - 1) up to 16 * 32**(k - 1), exclusive.
_LIMITS = [2**4, 2**9, 2**14, 2**19, 2**24, 2**29]


def crop_to_counts(
    columns: tf.Tensor, top: tf.Tensor, left: tf.Tensor, size_hw: tf.Tensor
) -> tf.Tensor:
    """Encode a mask that is zero outside a crop.

    Args:
      columns: bool [w, h], the crop, transposed.
      top: int32 [], row of the image where the crop begins.
      left: int32 [], column of the image where the crop begins.
      size_hw: int32 [(height, width)], of the image, which has a pixel and fewer than 2**31.

    Returns:
      string [], the "counts" of `pycocotools.mask.encode` of the full mask.
    """
    height, width = tf.unstack(tf.cast(size_hw, tf.int64))
    # One pixel before each column closes the runs of the column before; one more at the very end
    # closes the last.
    pixels = tf.reshape(tf.pad(columns, [[0, 0], [1, 0]]), [-1])
    pixels = tf.concat([pixels, [False]], axis=0)
    change = tf.where(pixels[1:] != pixels[:-1])[:, 0]  # run starts and ends alternate
    step = tf.shape(columns, out_type=tf.int64)[1] + 1
    column, row = change // step, change % step
    bounds = (tf.cast(left, tf.int64) + column) * height + tf.cast(top, tf.int64) + row
    edges = tf.concat([[0], _joined(bounds), [height * width]], axis=0)
    counts = edges[1:] - edges[:-1]
    # The last run is left out if it is empty.
    return _compress(counts[: tf.size(counts) - tf.cast(counts[-1] == 0, tf.int32)])


def _joined(bounds: tf.Tensor) -> tf.Tensor:
    """Join runs that reach the bottom of the image with those that go on at the top.

    Args:
      bounds: int64 [2 * runs], starts and ends, ascending.

    Returns:
      The same, without an end and a start that are equal.
    """
    runs = tf.reshape(bounds, [-1, 2])
    apart = runs[:-1, 1] != runs[1:, 0]
    is_start = tf.concat([[True], apart], axis=0)[: tf.shape(runs)[0]]
    is_end = tf.concat([apart, [True]], axis=0)[: tf.shape(runs)[0]]
    return tf.boolean_mask(runs, tf.stack([is_start, is_end], axis=-1))


def _compress(counts: tf.Tensor) -> tf.Tensor:
    """Write run lengths, int64 [n], as COCO's text, see `coco_rle.compress`: string []."""
    place = tf.range(tf.size(counts))
    before = tf.pad(counts, [[2, 0]])[:-2]
    values = tf.where(place > 2, counts - before, counts)
    beyond = tf.where(values < 0, -values - 1, values)
    longer = beyond[:, tf.newaxis] >= tf.constant(_LIMITS, tf.int64)  # [n, 6]
    lengths = 1 + tf.reduce_sum(tf.cast(longer, tf.int64), axis=1)
    k = tf.range(len(_LIMITS) + 1, dtype=tf.int64)
    # [n, 7]: five bits each, lowest first, and one that says that more follow.
    digits = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(values[:, tf.newaxis], 5 * k), tf.constant(31, tf.int64)
    )
    more = tf.cast(lengths[:, tf.newaxis] > k + 1, tf.int64)
    letters = tf.boolean_mask(digits + 32 * more + 48, lengths[:, tf.newaxis] > k)
    return tf.strings.unicode_encode(tf.cast(letters, tf.int32), "UTF-8")
