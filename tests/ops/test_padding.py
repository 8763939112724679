import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import padding


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("given", "axis", "want"), [
    (np.zeros([2, 0, 3], np.float32), 1, np.full([2, 1, 3], -1, np.float32)),
    (np.zeros([0, 2], bool), 0, [[True, True]]),
    (np.zeros([0, 0], np.int32), 1, np.zeros([0, 1])),
    (np.arange(6).reshape(3, 2), 1, np.arange(6).reshape(3, 2)),
])  # fmt: skip
def test_an_empty_axis_gets_one_entry(given, axis, want, known):
    shape = given.shape if known else [None] * given.ndim
    function = tf.function(
        lambda x: padding.at_least_one(x, axis, value=-1 if x.dtype == tf.float32 else True),
        input_signature=[tf.TensorSpec(shape, given.dtype)],
    )
    np.testing.assert_array_equal(function(given), want)
    if known:
        assert function.get_concrete_function().structured_outputs.shape == np.shape(want)


def test_what_is_not_empty_is_left_alone():
    tensor = tf.ones([1, 2])
    assert padding.at_least_one(tensor, 0) is tensor
