"""box_classes.py: the federated loss by hand, against a slow twin, and what is drawn over steps."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import box_classes, losses, roi_heads
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD

LN2 = math.log(2.0)


def _keys(*keys):
    return {schema.IMAGE_KEY: tf.constant(keys, tf.int32)}


def _taught(kind, target_classes, batch, step=0, seed=0, valid=None):
    classes = tf.constant(target_classes, tf.int32)
    valid = tf.ones_like(classes, tf.bool) if valid is None else tf.constant(valid)
    return kind.taught(classes, valid, batch, seed, tf.constant(step, tf.int64))


def test_loss_by_hand():
    """Two images, two RoIs each, classes 1..3; logits 0 have an entropy of log 2 either way.

    Image 0 teaches classes 1 and 2: its RoI of class 1 pays for both, and the background RoI, which
    has logit 3 for class 1, pays log(1 + e^3) + log 2. Image 1 teaches class 1: its RoI of class 3,
    which is not among them, pays for class 1 and for itself; its other RoI is padding.
    """
    logits = np.zeros([2, 2, 4], np.float32)
    logits[:, :, 0] = 99.0  # background's does not matter
    logits[0, 1, 1] = 3.0
    taught = tf.constant([[True, True, True, False], [False, True, False, False]])
    loss = losses.federated_class_loss(
        tf.constant(logits),
        tf.constant([[1, 0], [3, 2]]),
        tf.constant([[True, True], [True, False]]),
        taught,
    )
    np.testing.assert_allclose(loss.total, 5 * LN2 + math.log(1 + math.exp(3)), rtol=1e-6)
    assert loss.count == 3.0


def _slow_loss(logits, classes, valid, taught):
    total = 0.0
    for b, r in np.ndindex(classes.shape):
        for c in range(1, logits.shape[-1]):
            is_class = classes[b, r] == c
            if valid[b, r] and (taught[b, c] or is_class):
                x = float(logits[b, r, c])
                total += math.log1p(math.exp(-x if is_class else x))
    return total / valid.sum()


def test_loss_and_gradient_against_a_slow_twin():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=[3, 7, 12]).astype(np.float32)
    classes, valid = rng.integers(0, 12, [3, 7]), rng.random([3, 7]) < 0.8
    taught = rng.random([3, 12]) < 0.3
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = losses.federated_class_loss(
            variable, tf.constant(classes, tf.int32), tf.constant(valid), tf.constant(taught)
        ).mean()
    np.testing.assert_allclose(loss, _slow_loss(logits, classes, valid, taught), rtol=1e-5)
    is_class = classes[..., None] == np.arange(12)
    counts = valid[..., None] & (taught[:, None] | is_class)
    expected = np.where(counts, 1 / (1 + np.exp(-logits)) - is_class, 0.0) / valid.sum()
    expected[..., 0] = 0.0
    np.testing.assert_allclose(tape.gradient(loss, variable), expected, atol=1e-6)


def test_no_rois_and_nothing_taught():
    nothing = losses.federated_class_loss(
        tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.int32), tf.zeros([2, 0], tf.bool),
        tf.ones([2, 4], tf.bool),
    )  # fmt: skip
    assert nothing.mean() == 0.0
    silent = losses.federated_class_loss(
        tf.ones([1, 2, 4]), tf.zeros([1, 2], tf.int32), tf.ones([1, 2], tf.bool),
        tf.zeros([1, 4], tf.bool),
    )  # fmt: skip
    assert silent.total == 0.0


def test_classes_of_rois_are_taught_and_others_fill_up():
    kind = box_classes.Federated([5] * 20, classes_per_image=6)
    # Three classes and background; one class and no background; eight classes, more than six.
    classes = [[3, 7, 7, 9, 0, 0, 0, 0], [2] * 8, list(range(1, 9))]
    taught = _taught(kind, classes, _keys(1, 2, 3)).numpy()
    assert taught.shape == (3, 21)
    assert taught.sum(axis=1).tolist() == [6, 6, 8]
    assert taught[0, [0, 3, 7, 9]].all()
    assert taught[:, 0].tolist() == [True, False, False]
    assert taught[1, 2]
    np.testing.assert_array_equal(np.flatnonzero(taught[2]), np.arange(1, 9))
    # A RoI that is padding teaches nothing.
    valid = np.zeros([1, 8], bool)
    assert _taught(kind, [[4] * 8], _keys(1), valid=valid).numpy().sum() == 6
    # Classes that no training image has are never drawn, so few that they do not fill up.
    rare = box_classes.Federated([0, 3, 0, 2, 0], classes_per_image=4)
    assert _taught(rare, [[0, 1]], _keys(1)).numpy().tolist() == [
        [True, True, True, False, True, False]
    ]


def test_what_the_image_says_comes_on_top():
    kind = box_classes.Federated([1] * 9, classes_per_image=3)
    neg, more = np.zeros([2, 10], bool), np.zeros([2, 10], bool)
    neg[0, [4, 5]] = True
    more[1, [6, 7]] = True
    lists = {schema.NEG_CLASSES: tf.constant(neg), schema.NOT_EXHAUSTIVE_CLASSES: tf.constant(more)}
    classes = [[1, 0], [6, 2]]
    drawn = _taught(kind, classes, _keys(5, 6)).numpy()
    taught = _taught(kind, classes, _keys(5, 6) | lists).numpy()
    np.testing.assert_array_equal(taught[0], drawn[0] | neg[0])
    np.testing.assert_array_equal(taught[1], drawn[1] & ~more[1])
    assert drawn[1, 6]
    # The RoI of class 6 still learns that it is one, and no other RoI that it is none.
    logits = tf.zeros([1, 2, 10])
    only_six = tf.constant([[c == 6 for c in range(10)]])
    mine = losses.federated_class_loss(
        logits, tf.constant([[6, 2]]), tf.constant([[True, True]]), ~only_six
    )
    np.testing.assert_allclose(mine.total, LN2 * (9 + 8), rtol=1e-6)


def test_drawn_by_seed_step_and_image_alone():
    kind = box_classes.Federated(range(1, 41), classes_per_image=10)
    both = _taught(kind, [[1, 0], [2, 0]], _keys(11, 22), step=4).numpy()
    swapped = _taught(kind, [[2, 0], [1, 0]], _keys(22, 11), step=4).numpy()
    np.testing.assert_array_equal(both, swapped[::-1])
    alone = _taught(kind, [[2, 0]], _keys(22), step=4).numpy()
    np.testing.assert_array_equal(both[1:], alone)
    for other in ({"step": 5}, {"step": 4, "seed": 1}):
        assert (_taught(kind, [[2, 0]], _keys(22), **other).numpy() != alone).any()
    with_other_id = _taught(kind, [[2, 0]], _keys(23), step=4).numpy()
    assert (with_other_id != alone).any()
    compiled = tf.function(
        lambda classes, keys, step: kind.taught(
            classes, tf.ones_like(classes, tf.bool), {schema.IMAGE_KEY: keys}, 0, step
        ),
        jit_compile=True,
        autograph=False,
    )(tf.constant([[1, 0], [2, 0]]), tf.constant([11, 22]), tf.constant(4, tf.int64))
    np.testing.assert_array_equal(both, compiled)


def _inclusion(weights, count):
    """Slow twin: how probable it is that each is among `count` drawn one after the other."""
    probability = np.zeros(len(weights))

    def draw(left, already, drawn):
        if drawn == count:
            probability[list(already)] += left
            return
        rest = [i for i in range(len(weights)) if i not in already]
        total = sum(weights[i] for i in rest)
        for i in rest:
            draw(left * weights[i] / total, (*already, i), drawn + 1)

    draw(1.0, (), 0)
    return probability


def test_drawn_in_proportion_to_the_root_of_the_frequency():
    """Over 4,000 images, within 4 standard deviations; background is one of the three classes."""
    counts, images = np.array([1, 4, 9, 16, 100, 400]), 4_000
    classes, keys = np.zeros([images, 1], np.int32), _keys(*range(images))

    def drawn(kind):
        return tf.function(lambda: _taught(kind, classes, keys), autograph=False)()

    for power, expected in ((0.5, _inclusion(np.sqrt(counts), 2)), (0.0, np.full(6, 1 / 3))):
        kind = box_classes.Federated(counts, classes_per_image=3, frequency_power=power)
        part = drawn(kind).numpy()[:, 1:].mean(axis=0)
        deviation = np.sqrt(expected * (1 - expected) / images)
        assert (np.abs(part - expected) < 4 * deviation).all()


def test_large_powers_of_large_numbers_stay_numbers():
    """100,000^10 is no float32: the most frequent class is drawn, and nothing is infinite."""
    kind = box_classes.Federated([100_000, 90_000, 1], classes_per_image=2, frequency_power=10.0)
    classes, keys = np.zeros([200, 1], np.int32), _keys(*range(200))
    taught = tf.function(lambda: _taught(kind, classes, keys), autograph=False)().numpy()
    assert (taught.sum(axis=1) == 2).all()
    part = taught[:, 1:].mean(axis=0)
    share = 1 / (1 + 0.9**10)
    assert abs(part[0] - share) < 4 * np.sqrt(share * (1 - share) / 200)
    assert part[2] == 0.0


def _config(**changes):
    config = tiny_network.config()
    config.override({"federated": {"classes_per_image": 3}} | changes)
    return config


def _losses(network, batch, step=3):
    outputs = network.train_forward(batch, 0, tf.constant(step, tf.int64))
    return outputs, network.losses_of(outputs)


@pytest.mark.slow
def test_a_network_learns_and_finds_by_it():
    batch = tiny_network.batch([TWO_OBJECTS, EMPTY])
    network = tiny_network.build_network(_config())
    outputs, sums = _losses(network, batch)
    rois = outputs.roi_targets
    taught = outputs.taught_classes.numpy()
    assert taught[0, [1, 3]].all()  # of its objects
    assert taught[1].sum() == 3  # background and two that are drawn
    expected = _slow_loss(
        outputs.class_logits.numpy(), rois.classes.numpy(), rois.valid.numpy(), taught
    )
    np.testing.assert_allclose(sums["class_loss"].mean(), expected, rtol=1e-5)
    assert (outputs.class_logits.numpy()[..., 0] == 0.0).all()
    # Each image's part of the loss is what it is alone.
    alone = [
        _losses(network, tiny_network.batch([image]))[1]["class_loss"].total
        for image in (TWO_OBJECTS, EMPTY)
    ]
    np.testing.assert_allclose(sum(alone), sums["class_loss"].total, rtol=1e-5)
    # What is found best has the largest of all sigmoids.
    found = network(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])
    features = network.features(batch[schema.IMAGE], False)
    proposals = network.rpn(features, batch[schema.IMAGE_SIZE_HW])
    logits = network.roi_heads.boxes(features, proposals.boxes)[0].numpy()[..., 1:]
    scores = np.where(proposals.valid.numpy()[..., None], 1 / (1 + np.exp(-logits)), 0.0)
    np.testing.assert_allclose(found.scores.numpy()[:, 0], scores.max(axis=(1, 2)), rtol=1e-5)


def test_starts_with_the_prior():
    for kind, logit in ((box_classes.Federated(), -math.log(99.0)), (box_classes.Softmax(), 0.0)):
        head = roi_heads.BoxHead(4, fc_channels=8, kind=kind)
        head(tf.zeros([1, 1, 7, 7, 2]))
        np.testing.assert_allclose(head.class_logits.bias, np.full(4, logit), rtol=1e-6)


@pytest.mark.slow
def test_each_head_of_a_cascade_has_its_own_classes():
    config = _config(
        box_head={"class_agnostic": True},
        cascade={"positive_ious": (0.6,), "regression_factors": (2.0,)},
    )
    outputs, sums = _losses(
        tiny_network.build_network(config), tiny_network.batch([TWO_OBJECTS, WITH_CROWD])
    )
    (stage,) = outputs.later_stages
    for part, name in ((outputs, "class_loss"), (stage, "stage2_class_loss")):
        rois = part.roi_targets
        expected = _slow_loss(
            *(x.numpy() for x in (part.class_logits, rois.classes, rois.valid)),
            part.taught_classes.numpy(),
        )
        np.testing.assert_allclose(sums[name].mean(), expected, rtol=1e-5)


def test_nothing_is_learnt_without_counts():
    with pytest.raises(ValueError, match="which the label map does not say. Convert the records"):
        _taught(box_classes.Federated(), [[1, 0]], _keys(1))


def test_the_softmax_is_what_it_was():
    logits = tf.constant([[[1.0, 2.0, 3.0]]])
    kind = box_classes.build(dataclasses.replace(tiny_network.config().federated), ())
    assert type(kind) is box_classes.Softmax
    assert kind.logits(logits) is logits
    np.testing.assert_array_equal(kind.probabilities(logits), tf.nn.softmax(logits))
    assert kind.taught(None, None, {}, 0, 0) is None
