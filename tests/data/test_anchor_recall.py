"""The best anchor of each object: worked by hand, and against all anchors written out."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import anchor_recall
from mrcnn_tf.ops import anchors, boxes


def test_worked_by_hand():
    levels = anchor_recall.levels([32, 64], [1.0], [8, 16])
    image = np.array([[128, 128]])

    def best(box, **options):
        return anchor_recall.best_ious(np.array([box]), image, levels, **options)[0]

    assert best([24, 24, 56, 56]) == 1  # centre (40, 40), a cell of stride 8: side 32
    assert best([28, 24, 60, 56]) == pytest.approx(28 * 32 / (2 * 1024 - 28 * 32))  # half a cell
    assert best([28, 28, 60, 60], offset=0.5) == 1
    assert best([36, 36, 44, 44]) == 64 / 1024  # inside one
    assert best([0, 0, 128, 128]) == 64 * 64 / 128**2
    assert best([40, 40, 40, 60]) == 0  # no area
    # A cell's centre is the image's corner, where three quarters of the anchor are outside.
    assert best([0, 0, 16, 16]) == 16 * 16 / 1024
    assert best([0, 0, 32, 32]) == 1
    assert best([0, 0, 64, 16], within_image=False) == pytest.approx(32 * 16 / (2 * 1024 - 512))


def test_without_anchors_across_the_border():
    levels = anchor_recall.levels([32], [1.0], [16])
    image = np.array([[50, 50]])  # centres at 0, 16, 32, 48; within are those of 16 and 32
    box = np.array([[20.0, 20.0, 50.0, 50.0]])
    assert anchor_recall.best_ious(box, image, levels, within_image=True)[0] == pytest.approx(
        28 * 28 / (900 + 1024 - 784)  # the one around 32 covers 16..48
    )
    large = anchor_recall.levels([64], [1.0], [16])  # none fits into the image
    assert anchor_recall.best_ious(box, image, large, within_image=True)[0] == 0
    assert anchor_recall.best_ious(box, image, large)[0] > 0.2


@pytest.mark.parametrize("within_image", [False, True])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_equals_the_best_of_all_anchors(offset, within_image):
    rng = np.random.default_rng(3)
    strides, sizes, ratios = [4, 8, 16, 32, 64], [16, 32, 64, 128, 256], [0.5, 1.0, 2.0]
    image_hw = np.array([200, 300])
    corners = rng.uniform(0, 1, (200, 2, 2)) * image_hw
    found = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    levels = anchor_recall.levels(sizes, ratios, strides, rounded=True)
    every = np.concatenate([
        anchors.grid_anchors((-(-224 // s), -(-320 // s)), s, of_cell, offset).numpy()
        for s, of_cell in levels
    ])  # fmt: skip
    if within_image:
        every = every[(every[:, :2] >= 0).all(1) & (every[:, 2:] <= image_hw).all(1)]
    expected = boxes.iou(tf.constant(found, tf.float32), tf.constant(every)).numpy().max(1)
    ours = anchor_recall.best_ious(
        found, np.tile(image_hw, (200, 1)), levels, offset=offset, within_image=within_image
    )
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_one_level_has_all_sizes():
    (level,) = anchor_recall.levels([32, 64], [1.0], [16])
    assert level.cell_anchors.shape == (2, 4)
    with pytest.raises(ValueError, match="2 levels need"):
        anchor_recall.levels([32], [1.0], [8, 16])
