"""Elements that fail are left out; nothing else changes."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.serving import attempt


def upto(number, word):
    """0, 1, ... number - 1, once each, and the word's length; fails for negative numbers."""
    with tf.control_dependencies([tf.debugging.Assert(number >= 0, ["negative"])]):
        return tf.range(number), tf.strings.length(word)


def run(numbers):
    words = tf.strings.as_string(tf.constant(numbers, tf.int32))
    return attempt.each(upto, (tf.constant(numbers, tf.int32), words), parallel=3)


@pytest.mark.parametrize("in_graph", [False, True])
def test_by_hand(in_graph):
    function = tf.function(lambda: run([2, -1, 10, -10, 3])) if in_graph else None
    index, (ranges, lengths) = function() if function else run([2, -1, 10, -10, 3])
    np.testing.assert_array_equal(index, [0, 2, 4])
    assert index.dtype == tf.int64
    np.testing.assert_array_equal(lengths, [1, 2, 1])
    expected = np.zeros([3, 10], int)
    expected[0, :2], expected[1], expected[2, :3] = range(2), range(10), range(3)
    np.testing.assert_array_equal(ranges, expected)


@pytest.mark.parametrize("numbers", [[], [-1], [-1, -2, -3]])
def test_nothing_is_left(numbers):
    index, (ranges, lengths) = run(numbers)
    assert index.shape == (0,)
    assert ranges.shape == (0, 0)
    assert lengths.shape == (0,)


def test_many_in_order():
    numbers = np.random.default_rng(0).integers(-3, 9, 500)
    index, (ranges, _) = run(numbers)
    np.testing.assert_array_equal(index, np.flatnonzero(numbers >= 0))
    np.testing.assert_array_equal(
        np.count_nonzero(ranges, axis=1), np.maximum(numbers[numbers >= 0] - 1, 0)
    )
