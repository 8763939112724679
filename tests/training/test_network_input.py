"""A batch's row turned back into what it shows."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import preprocess, schema
from mrcnn_tf.training import network_input
from tests import tiny_network
from tests.tiny_network import TWO_OBJECTS

MEAN, STD = (103.939, 116.779, 123.68), (57.4, 57.1, 58.4)


@pytest.mark.parametrize("order", preprocess.CHANNEL_ORDERS)
def test_the_image_comes_back_from_network_input(order):
    """Not resized, so every byte has to be what it was; the padding is cut off."""
    image = np.random.default_rng(3).integers(0, 256, [20, 30, 3], np.uint8)
    prepared = preprocess.prepare_image(
        tf.constant(image),
        tf.constant([20, 30]),
        tf.constant([32, 64]),
        convention="detectron2",
        channel_order=order,
        pixel_mean=MEAN,
        pixel_std=STD,
    )
    back = network_input.to_rgb(
        prepared.numpy(), np.array([20.0, 30.0]), order, np.array(MEAN), np.array(STD)
    )
    np.testing.assert_array_equal(back, image)


def row_of(batch, row=0):
    return {key: value[row].numpy() for key, value in batch.items()}


def test_truth_mask_is_the_object_where_its_box_is():
    image = row_of(tiny_network.batch([TWO_OBJECTS]))
    want = np.zeros([60, 64], bool)
    want[4:40, 6:30] = TWO_OBJECTS.objects[0].mask()
    mask = network_input.truth_mask(image, 0, (60, 64))
    np.testing.assert_array_equal(mask, want)
    assert not mask[22:40, 18:30].any()  # the notch

    y1, x1, y2, x2 = image[schema.GT_MASK_FRAMES][0]
    image[schema.GT_MASK_FRAMES][0] = (y1, 64 - x1, y2, 64 - x2)  # mirrored
    mirrored = network_input.truth_mask(image, 0, (60, 64))
    np.testing.assert_array_equal(mirrored, want[:, ::-1])

    image[schema.GT_MASKS_VALID][0] = False
    assert network_input.truth_mask(image, 0, (60, 64)) is None
