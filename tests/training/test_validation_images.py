import numpy as np
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.training import network_input, validation_images
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD


def images_of():
    inputs = network_input.NetworkInput(
        LabelMap((1, 2, 3), ("red", "green", "blue")),
        channel_order="bgr",
        pixel_mean=(103.939, 116.779, 123.68),
        pixel_std=(1.0, 1.0, 1.0),
    )
    return validation_images.ValidationImages(inputs, "pixel_centres")


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
