"""Run lengths made in a graph, against pycocotools and the NumPy twin."""

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from mrcnn_tf.ops import coco_rle, coco_rle_in_graph

_NUMBER = tf.TensorSpec([], tf.int32)
encode = tf.function(
    coco_rle_in_graph.crop_to_counts,
    input_signature=[
        tf.TensorSpec([None, None], tf.bool),
        _NUMBER,
        _NUMBER,
        tf.TensorSpec([2], tf.int32),
    ],
)


def test_by_hand():
    """Two columns of three pixels: the last of the first and the first of the second."""
    columns = [[False, False, True], [True, False, False]]
    assert encode(columns, 0, 0, [3, 2]).numpy() == b"222"  # 2 outside, 2 inside, 2 outside
    assert (
        encode(columns, 1, 1, [4, 4]).numpy()
        == coco_mask.encode(
            np.asfortranarray(np.pad(np.array(columns).T, [[1, 0], [1, 1]]).astype(np.uint8))
        )["counts"]
    )


@pytest.mark.parametrize("size", [(6, 9), (1, 1), (1, 50), (50, 1), (200, 300)])
def test_equals_pycocotools(size):
    """Random places and sizes, full height among them, where runs go on in the next column."""
    height, width = size
    rng = np.random.default_rng(height)
    for k in range(60):
        h = height if k % 5 == 0 else int(rng.integers(0, height + 1))
        w = int(rng.integers(0, width + 1))
        top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        crop = rng.random((h, w)) < rng.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        full = np.zeros(size, np.uint8, order="F")
        full[top : top + h, left : left + w] = crop
        assert encode(crop.T, top, left, size).numpy() == coco_mask.encode(full)["counts"]


def test_counts_of_every_length():
    """One pixel in images of up to 2**30 pixels, and runs that shrink by as much."""
    crop = np.zeros([1, 700], bool)
    crop[0, [0, 1, 40, 41, 42, 690]] = True
    for side in (2, 30, 1000, 30_000, 1_000_000):
        for top in (0, side - 1):
            expected = coco_rle.crop_to_rle(crop, top, 3, side, 1000)["counts"]
            assert encode(crop.T, top, 3, [side, 1000]).numpy() == expected
