"""Pasting in a graph, against pasting in NumPy, which is tested against loops over pixels."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import paste, paste_in_graph

# On an image of 30 x 40, as an exported model's boxes are: inside or at the border.
BOXES = [
    (5, 6, 20, 30),
    (5.3, 6.8, 19.1, 30.4),
    (7, 9, 8, 10),
    (7.2, 9.4, 7.6, 30),
    (0, 0, 30, 40),
    (0, 39.5, 0.25, 40),
    (29.99, 0, 30, 40),
    (12, 0, 30, 17.7),
]


@pytest.mark.parametrize("convention", ["pixel_centres", "torchvision"])
@pytest.mark.parametrize("side", [14, 28])
def test_equals_numpy(convention, side):
    @tf.function(input_signature=[tf.TensorSpec([side, side]), tf.TensorSpec([4])])
    def in_graph(mask, box):
        return paste_in_graph.paste_transposed(mask, box, tf.constant([30, 40]), convention)

    rng = np.random.default_rng(side)
    random = np.sort(rng.uniform(0, 1, (40, 2, 2)), axis=1) * [30, 40]  # [n, (start, end), yx]
    for box in [*BOXES, *random.reshape(-1, 4).astype(np.float32)]:
        mask = rng.random((side, side)).astype(np.float32)
        expected = paste.paste_mask(mask, np.float32(box), 30, 40, convention)
        columns, top, left = in_graph(mask, np.float32(box))
        assert columns.shape == expected.probs.T.shape
        assert (top, left) == (expected.top, expected.left)
        np.testing.assert_allclose(columns, expected.probs.T, atol=1e-6)


def test_unknown_convention():
    with pytest.raises(ValueError, match="unknown convention 'nearest'; known"):
        paste_in_graph.paste_transposed(tf.zeros([2, 2]), tf.zeros([4]), tf.zeros([2]), "nearest")
