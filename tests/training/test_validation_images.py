import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import preprocess, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.training import validation_images
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD

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
    back = validation_images.to_rgb(
        prepared.numpy(), np.array([20.0, 30.0]), order, np.array(MEAN), np.array(STD)
    )
    np.testing.assert_array_equal(back, image)


def row_of(batch, row=0):
    return {key: value[row].numpy() for key, value in batch.items()}


def test_truth_mask_is_the_object_where_its_box_is():
    image = row_of(tiny_network.batch([TWO_OBJECTS]))
    want = np.zeros([60, 64], bool)
    want[4:40, 6:30] = TWO_OBJECTS.objects[0].mask()
    mask = validation_images.truth_mask(image, 0, (60, 64))
    np.testing.assert_array_equal(mask, want)
    assert not mask[22:40, 18:30].any()  # the notch

    y1, x1, y2, x2 = image[schema.GT_MASK_FRAMES][0]
    image[schema.GT_MASK_FRAMES][0] = (y1, 64 - x1, y2, 64 - x2)  # mirrored
    mirrored = validation_images.truth_mask(image, 0, (60, 64))
    np.testing.assert_array_equal(mirrored, want[:, ::-1])

    image[schema.GT_MASKS_VALID][0] = False
    assert validation_images.truth_mask(image, 0, (60, 64)) is None


def images_of():
    return validation_images.ValidationImages(
        LabelMap((1, 2, 3), ("red", "green", "blue")),
        channel_order="bgr",
        pixel_mean=MEAN,
        pixel_std=(1.0, 1.0, 1.0),
        mask_paste="pixel_centres",
    )


def evaluated(images):
    """A batch, and detections that are its ground truth with full masks, score 0.9."""
    batch = tiny_network.batch(images)
    batch[schema.IMAGE] *= 50.0
    return batch | {
        "boxes": batch[schema.GT_BOXES],
        "classes": batch[schema.GT_CLASSES],
        "scores": tf.fill(batch[schema.GT_CLASSES].shape, 0.9),
        "valid": batch[schema.GT_VALID],
        "masks": tf.ones([*batch[schema.GT_CLASSES].shape, 28, 28]),
    }


def test_truth_is_drawn_left_and_prediction_right():
    drawings = images_of()
    drawings.add(evaluated([TWO_OBJECTS]))
    sure = drawings.drawn["1001"]
    drawings.reset()
    unsure = evaluated([TWO_OBJECTS])
    unsure["scores"] *= 0.5  # below MIN_SCORE
    drawings.add(unsure)
    nothing = drawings.drawn["1001"]
    assert sure.dtype == np.uint8
    assert sure.shape == nothing.shape
    middle = sure.shape[1] // 2
    np.testing.assert_array_equal(sure[:, :middle], nothing[:, :middle])
    assert (sure[:, middle:] != nothing[:, middle:]).any()


def test_the_first_images_are_drawn_and_no_filler(monkeypatch):
    monkeypatch.setattr(validation_images, "NUM_IMAGES", 3)
    drawings = images_of()
    batch = evaluated([EMPTY, TWO_OBJECTS])
    batch[schema.SOURCE_ID] *= tf.constant([[0], [1]], tf.uint8)
    drawings.add(batch)
    assert list(drawings.drawn) == ["1001"]
    drawings.add(evaluated([EMPTY, WITH_CROWD]))
    drawings.add(evaluated([tiny_network.Image((64, 64), [], key=9)]))
    assert list(drawings.drawn) == ["1001", "7", "-5"]


def test_images_are_written_to_the_summary(tmp_path):
    drawings = images_of()
    drawings.add(evaluated([TWO_OBJECTS, WITH_CROWD]))
    drawings.write(step=5)  # nobody listens
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        drawings.write(step=6)
    found = {}
    for file in tmp_path.glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found[value.tag, event.step] = value.tensor.string_val
    assert set(found) == {("validation/1001", 6), ("validation/-5", 6)}
    width, height, png = found["validation/1001", 6]
    decoded = tf.io.decode_png(png).numpy()
    assert decoded.shape == (int(height), int(width), 3)
    np.testing.assert_array_equal(decoded, drawings.drawn["1001"])
