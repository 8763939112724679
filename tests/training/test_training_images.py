"""What TensorBoard shows of training is what the network gets, and nobody notices."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.images import drawing
from mrcnn_tf.training import network_input, training_images
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD


@pytest.fixture
def inputs():
    return network_input.NetworkInput(
        LabelMap((1, 2, 3), ("red", "green", "blue")),
        channel_order="rgb",
        pixel_mean=(100.0, 100.0, 100.0),
        pixel_std=(50.0, 50.0, 50.0),
    )


def batches():
    """Three of two images each."""
    pairs = [(TWO_OBJECTS, EMPTY), (WITH_CROWD, TWO_OBJECTS), (EMPTY, WITH_CROWD)]
    rows = [tiny_network.batch(list(pair)) for pair in pairs]
    stacked = {key: tf.stack([row[key] for row in rows]) for key in rows[0]}
    options = tf.data.Options()
    options.autotune.enabled = False  # which would fetch ahead
    return tf.data.Dataset.from_tensor_slices(stacked).with_options(options)


def written(folder):
    """{(tag, step): the picture}."""
    found = {}
    for file in folder.glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                png = value.tensor.string_val[2]
                found[value.tag, event.step] = tf.io.decode_png(png).numpy()
    return found


def test_batches_pass_as_they_are(inputs):
    watched = training_images.TrainingImages(inputs).watch(batches())
    assert watched.element_spec == batches().element_spec
    for before, after in zip(batches(), watched, strict=True):
        for key, value in before.items():
            np.testing.assert_array_equal(after[key], value)


def test_the_first_are_written_and_after_that_those_that_come_next(inputs, tmp_path):
    images = training_images.TrainingImages(inputs)
    stream = iter(images.watch(batches().repeat(2)))
    for _ in range(3):
        next(stream)
    images.write(step=1)  # nobody listens: gone
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        next(stream)  # two images
        images.write(step=5)
        images.write(step=6)  # nothing passed since
        for _ in range(2):
            next(stream)
        images.write(step=7)
    found = written(tmp_path)
    assert set(found) == {(f"training/{k}", s) for k, s in ((1, 5), (2, 5))} | {
        (f"training/{k}", 7) for k in (1, 2, 3, 4)
    }
    batch = tiny_network.batch([WITH_CROWD])
    row = {key: value[0].numpy() for key, value in batch.items()}
    drawn = inputs.draw(inputs.image(row), row)
    np.testing.assert_array_equal(
        found["training/1", 7], drawing.with_title(drawn, "image -5, augmented")
    )


def test_no_more_is_looked_at_than_is_shown(inputs, monkeypatch):
    images = training_images.TrainingImages(inputs)
    looked = []
    keep = images._keep
    monkeypatch.setattr(images, "_keep", lambda batch: looked.append(len(batch)) or keep(batch))
    for _ in images.watch(batches().repeat(4)):
        pass
    assert looked == [len(network_input.KEYS)] * 2  # of twelve batches
    assert len(images._rows) == training_images.NUM_IMAGES


def test_of_a_large_batch_no_more_is_kept_than_is_shown(inputs):
    images = training_images.TrainingImages(inputs)
    batch = tiny_network.batch([TWO_OBJECTS, EMPTY, WITH_CROWD] * 2)
    images._keep({key: batch[key].numpy() for key in network_input.KEYS})
    assert len(images._rows) == training_images.NUM_IMAGES
    assert not images._is_wanted()


def test_a_row_survives_its_batch(inputs, tmp_path):
    """What was kept is a copy: the memory of a batch is used again."""
    images = training_images.TrainingImages(inputs)
    batch = {key: value.numpy() for key, value in tiny_network.batch([TWO_OBJECTS]).items()}
    images._keep({key: batch[key] for key in network_input.KEYS})
    want = inputs.draw(inputs.image(_row(batch)), _row(batch))
    for value in batch.values():
        value.fill(0)
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        images.write(step=1)
    found = written(tmp_path)["training/1", 1]
    np.testing.assert_array_equal(found[-want.shape[0] :], want)


def _row(batch):
    return {key: value[0].copy() for key, value in batch.items()}
