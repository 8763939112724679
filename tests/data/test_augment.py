"""augment.py: image, boxes and masks move together."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import augment, decoder, schema


@pytest.fixture(scope="module")
def scene(make_scene):
    return make_scene(4, 11, 14, 4)


@pytest.fixture(scope="module")
def example(scene, serialize):
    return decoder.decode(serialize(scene), label_ids=(1, 7, 90), include_masks=True)


def test_flip_mirrors_everything(scene, example, example_masks):
    x1, x2 = scene.boxes[:, 1].astype(int), scene.boxes[:, 3].astype(int)
    crops = [mask[:, a:b] for mask, a, b in zip(scene.masks, x1, x2, strict=True)]
    assert sum((crop != crop[:, ::-1]).any() for crop in crops) >= 2  # flipping them shows
    flipped = augment.flip_left_right(example, tf.constant(True))
    np.testing.assert_array_equal(flipped[schema.IMAGE], scene.image[:, ::-1])
    np.testing.assert_array_equal(example_masks(flipped, 11, 14), scene.masks[:, :, ::-1])
    scene_boxes = scene.boxes
    expected = np.stack(
        [scene_boxes[:, 0], 14 - scene_boxes[:, 3], scene_boxes[:, 2], 14 - scene_boxes[:, 1]], 1
    )
    np.testing.assert_allclose(flipped[schema.GT_BOXES], expected, atol=1e-5)
    assert flipped[schema.GT_MASK_BITS] is example[schema.GT_MASK_BITS]


def test_flip_twice_and_no_flip_change_nothing(example):
    twice = augment.flip_left_right(example, tf.constant(True))
    twice = augment.flip_left_right(twice, tf.constant(True))
    never = augment.flip_left_right(example, tf.constant(False))
    for key, value in example.items():
        if value.dtype == tf.float32:
            np.testing.assert_allclose(twice[key], value, atol=1e-5)
        else:
            np.testing.assert_array_equal(twice[key], value)
        np.testing.assert_array_equal(never[key], value)


def _is_flipped(example, seed, probability):
    flipped = augment.random_flip_left_right(example, seed, probability)
    return tf.reduce_all(flipped[schema.IMAGE] == example[schema.IMAGE][:, ::-1])


def test_random_flip_is_a_function_of_the_seed(example):
    def flips(seed, probability=0.5):
        dataset = tf.data.Dataset.range(200).map(
            lambda position: _is_flipped(example, tf.stack([seed, position]), probability)
        )
        return np.array(list(dataset.as_numpy_iterator()))

    first = flips(1)
    np.testing.assert_array_equal(first, flips(1))
    assert 70 <= first.sum() <= 130  # 200 fair coins: mean 100, four standard deviations are 28
    assert (first != flips(2)).any()
    assert not flips(1, probability=0.0).any()
    assert flips(1, probability=1.0).all()
    eager = _is_flipped(example, tf.constant([1, 0], tf.int64), 0.5)
    assert bool(eager) == first[0]


def test_random_short_edges_take_each_equally_often():
    edges = augment.random_short_edges((640, 672, 800), tf.constant([3, 0], tf.int64), 300)
    counts = collections.Counter(edges.numpy().tolist())
    assert set(counts) == {640, 672, 800}
    assert min(counts.values()) > 65  # mean 100, four standard deviations are 33


def test_choices_are_independent():
    """A flip says nothing about the short edge: they draw from streams of their own."""
    plain = {
        schema.IMAGE: tf.constant([[[0, 0, 0], [1, 1, 1]]], tf.uint8),
        schema.GT_BOXES: tf.zeros([0, 4]),
        schema.GT_MASK_FRAMES: tf.zeros([0, 4]),
    }

    def choose(position):
        seed = tf.stack([0, position])
        return _is_flipped(plain, seed, 0.5), augment.random_short_edges((1, 2), seed, 1)[0]

    choices = tf.data.Dataset.range(200).map(choose)
    pairs = collections.Counter(choices.as_numpy_iterator())
    assert len(pairs) == 4
    assert min(pairs.values()) > 25  # mean 50 each
