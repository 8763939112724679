import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import candidates, implementation, leading

VALID = tf.constant([[True, False, True, False, False], [True, True, False, False, False]])


@pytest.mark.parametrize(
    ("valid", "rows"),
    [(VALID, 3), (tf.zeros([2, 5], tf.bool), 1), (tf.ones([1, 5], tf.bool), 5)],
    ids=["gaps", "nothing", "everything"],
)
def test_rows_up_to_the_last_valid_one_on_a_cpu_all_on_accelerators(valid, rows):
    assert leading.num_rows(valid) == rows
    assert tf.function(leading.num_rows)(valid) == rows
    assert tf.function(leading.num_rows, jit_compile=True)(valid) == 5
    with implementation.force(accelerators=True):
        assert leading.num_rows(valid) == 5


def test_only_leading_rows_are_computed_and_the_rest_is_zero():
    seen = []

    def double(x):
        seen.append(x.shape)
        return 2 * x

    x = tf.reshape(tf.range(2 * 5 * 3), [2, 5, 3])
    got = leading.only(leading.num_rows(VALID), double, x)
    assert seen == [[2, 3, 3]]
    np.testing.assert_array_equal(got[:, :3], 2 * x[:, :3])
    np.testing.assert_array_equal(got[:, 3:], 0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_function_on_leading_rows_keeps_its_shape_in_a_graph(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def run(valid, x):
        got = leading.only(leading.num_rows(valid), tf.square, x)
        assert got.shape == [2, 5, 3]
        return tf.where(valid[..., tf.newaxis], got, 0)

    x = tf.reshape(tf.range(2 * 5 * 3), [2, 5, 3])
    np.testing.assert_array_equal(run(VALID, x), np.where(VALID[..., np.newaxis], x**2, 0))


def test_traced_outside_of_xla_and_compiled_by_somebody_else():
    """As a SavedModel whose owner compiles it: a size that follows the data would not compile."""
    inner = tf.function(
        lambda valid, x: leading.only(leading.num_rows(valid), tf.square, x),
        [tf.TensorSpec([2, 5], tf.bool), tf.TensorSpec([2, 5, 3])],
    ).get_concrete_function()
    x = tf.ones([2, 5, 3])
    np.testing.assert_array_equal(tf.function(inner, jit_compile=True)(VALID, x), x)


def test_candidates_by_hand():
    scores = tf.constant([[0.1, 0.7, float("nan"), 0.7, 0.05], [0.2, 0.05, 0.0, 0.3, 0.01]])
    kept, index = candidates.above(scores, 0.05)
    np.testing.assert_allclose(kept, [[0.7, 0.7, 0.1], [0.3, 0.2, -1]])
    np.testing.assert_array_equal(index[0], [1, 3, 0])  # of two equal ones the first
    np.testing.assert_array_equal(index[1, :2], [3, 0])
    with implementation.force(accelerators=True):
        kept, index = candidates.above(scores, 0.05)
    np.testing.assert_allclose(kept, [[0.1, 0.7, -1, 0.7, -1], [0.2, -1, -1, 0.3, -1]])
    np.testing.assert_array_equal(index, [range(5)] * 2)


def test_candidates_when_nothing_is_above():
    kept, index = candidates.above(tf.zeros([2, 4]), 0.0)
    np.testing.assert_array_equal(kept, [[-1], [-1]])
    np.testing.assert_array_equal(index, [[0], [0]])
