"""Keypoint R-CNN, tiny, against twins that take one RoI after the other."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import build, keypoint_head, losses
from tests import tiny_network
from tests.ops.test_heatmaps import twin_cell, twin_decode
from tests.tiny_network import EMPTY, MAX_INSTANCES, NUM_CLASSES, TWO_OBJECTS, WITH_CROWD

K = 3
HEAD = {"num_keypoints": K, "pool_size": 4, "conv_layers": 2, "conv_channels": 8}
IMAGES = [TWO_OBJECTS, WITH_CROWD, EMPTY]
# Of the objects of these images, network-input pixels; None is not annotated.
POINTS = {
    (0, 0): [(10.0, 8.0), (39.5, 29.5), (50.0, 12.0)],  # the third one lies outside its box
    (0, 1): [None, (30.0, 24.0), (57.0, 61.0)],
    (1, 0): [None, None, None],
    (1, 1): [(40.0, 40.0), None, None],  # of a crowd
}


def config(system="mask_rcnn"):
    model = tiny_network.config()
    model.override({"keypoint_head": HEAD, "system": system})
    return model


def batch(images=IMAGES):
    points = np.zeros([len(images), MAX_INSTANCES, K, 2], np.float32)
    valid = np.zeros([len(images), MAX_INSTANCES, K], bool)
    for (b, g), of_object in POINTS.items():
        for k, point in enumerate(of_object):
            if point:
                points[b, g, k], valid[b, g, k] = point, True
    given = {schema.GT_KEYPOINTS: points, schema.GT_KEYPOINTS_VALID: valid}
    return tiny_network.batch(images) | {k: tf.constant(v) for k, v in given.items()}


@pytest.fixture(scope="module")
def network():
    return tiny_network.build_network(config())


def test_the_papers_head():
    """Section 5: eight 3x3 of 512, deconvolution, 56x56 maps of 17 keypoints."""
    head = keypoint_head.KeypointHead(17)
    assert head(tf.zeros([1, 1, 14, 14, 256])).shape == (1, 1, 17, 56, 56)
    shapes = [tuple(v.shape) for v in head.trainable_variables]
    convs = [shape for shape in shapes if len(shape) == 4]
    assert convs == [(3, 3, 256, 512), *[(3, 3, 512, 512)] * 7, (4, 4, 17, 512)]
    assert head.deconv.bias.shape == (17,)
    # torchvision's of two classes counts 59,137,258 with the head, 41,299,161 without.
    assert head.count_params() == 59_137_258 - 41_299_161


def test_the_head_is_that_of_a_slow_twin(network):
    """Deconvolution as PyTorch's with kernel 4, stride 2, padding 1: an input spreads over 4x4."""
    head = network.roi_heads.keypoint_head
    pooled = tf.random.stateless_normal([1, 2, 4, 4, 16], [3, 4])
    found = head(pooled).numpy()
    kernel, bias = head.deconv.kernel.numpy(), head.deconv.bias.numpy()
    for r in range(2):
        hidden = pooled[:, r]
        for layer in head.convs:
            hidden = tf.nn.conv2d(hidden, layer.conv.kernel, 1, "SAME") + layer.conv.bias
            hidden = tf.nn.relu(hidden)
        spread = np.zeros([10, 10, K])  # with the pixel of padding on each side
        for i, j in np.ndindex(4, 4):
            # kernel [4, 4, K, C] x [C]
            spread[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += kernel @ hidden[0, i, j].numpy()
        maps = tf.image.resize(spread[1:-1, 1:-1] + bias, [16, 16]).numpy()
        np.testing.assert_allclose(found[0, r], maps.transpose(2, 0, 1), rtol=1e-3, atol=1e-4)


def test_targets_and_loss_are_those_of_a_slow_twin(network):
    given = batch()
    outputs = network.train_forward(given, 3, tf.constant(0, tf.int64))
    rois, keypoints = outputs.roi_targets, outputs.keypoints
    logits = keypoints.logits.numpy()
    total, count, outside = 0.0, 0, 0
    for b, r in np.ndindex(logits.shape[:2]):
        for k in range(K):
            point = None
            if rois.is_positive[b, r]:
                point = POINTS[b, int(rois.gt_index[b, r])][k]
            cell = twin_cell(np.float32(point), rois.rois[b, r].numpy(), 16) if point else None
            assert bool(keypoints.valid[b, r, k]) == (cell is not None)
            outside += point is not None and cell is None
            if cell:
                flat = np.float64(logits[b, r, k]).ravel()
                total += np.log(np.exp(flat).sum()) - flat[cell[0] * 16 + cell[1]]
                count += 1
    assert count >= 4
    assert outside >= 1
    sums = network.losses_of(outputs)
    assert list(sums) == list(build.loss_names(config()))
    assert int(sums["keypoint_loss"].count) == count
    np.testing.assert_allclose(sums["keypoint_loss"].total, total, rtol=1e-4)
    without = network.losses_of(outputs.of_images(tf.constant([False, True, True])))
    assert int(without["keypoint_loss"].count) == 0


def test_an_image_without_keypoints_teaches_none():
    flat = losses.keypoint_loss(
        tf.random.stateless_normal([1, 2, K, 4, 4], [1, 1]),
        tf.zeros([1, 2, K], tf.int32),
        tf.zeros([1, 2, K], tf.bool),
    )
    assert float(flat.mean()) == 0.0
    even = losses.keypoint_loss(
        tf.zeros([1, 1, 1, 56, 56]), tf.zeros([1, 1, 1], tf.int32), tf.ones([1, 1, 1], tf.bool)
    )
    np.testing.assert_allclose(even.mean(), np.log(3136), rtol=1e-6)


def test_the_other_branches_do_not_notice(network):
    """Same weights, same batch: all other losses and detections, bit for bit."""
    plain = build.build_model(tiny_network.config(), NUM_CLASSES)
    head = {id(v) for v in network.roi_heads.keypoint_head.trainable_variables}
    shared = [v for v in network.trainable_variables if id(v) not in head]
    for ours, theirs in zip(plain.trainable_variables, shared, strict=True):
        ours.assign(theirs)
    given = batch()
    step = tf.constant(0, tf.int64)
    with_head, without = (n.losses_of(n.train_forward(given, 3, step)) for n in (network, plain))
    for name, term in without.items():
        np.testing.assert_array_equal(term.total, with_head[name].total)
    found, same = network.infer(given), plain.infer(given)
    for name in ("boxes", "classes", "scores", "valid", "masks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(same, name))
    assert same.keypoints is None


def test_inference_is_that_of_a_slow_twin(network):
    given = batch()
    found = network.infer(given)
    assert found.keypoints.shape == (3, MAX_INSTANCES, K, 3)
    features = network.features(given[schema.IMAGE], training=False)
    logits = network.roi_heads.keypoints(features, found.boxes).numpy()
    count = 0
    for b, d, k in np.ndindex(3, MAX_INSTANCES, K):
        want = (0.0, 0.0, 0.0)
        if found.valid[b, d]:
            want = twin_decode(logits[b, d, k], found.boxes[b, d].numpy().tolist())
            count += 1
        np.testing.assert_allclose(found.keypoints[b, d, k], want, rtol=1e-3, atol=1e-3)
    assert count > 3 * K


def test_all_of_the_head_learns_and_features_learn_from_it(network):
    given = batch()
    with tf.GradientTape() as tape:
        outputs = network.train_forward(given, 3, tf.constant(0, tf.int64))
        loss = network.losses_of(outputs)["keypoint_loss"].mean()
    head = network.roi_heads.keypoint_head.trainable_variables
    watched = [*head, *network.pyramid.trainable_variables]
    gradients = tape.gradient(loss, watched)
    for variable, gradient in zip(head, gradients, strict=False):
        assert np.isfinite(gradient).all()
        if variable is network.roi_heads.keypoint_head.deconv.bias:
            # What is added to a whole map, a softmax over its places does not notice.
            np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
        else:
            assert np.any(gradient)
    assert any(g is not None and np.any(g) for g in gradients[len(head) :])


def test_faster_rcnn_with_keypoints():
    model = config("faster_rcnn")
    assert build.loss_names(model)[-1] == "keypoint_loss"
    assert "mask_loss" not in build.loss_names(model)
    built = build.build_model(model, NUM_CLASSES)
    assert isinstance(built, keypoint_head.KeypointRCNN)
    assert built.roi_heads.mask_head is None
    with pytest.raises(ValueError, match="none on features: c4, only on fpn"):
        build.build_model(fields.Model(features="c4", keypoint_head=model.keypoint_head), 2)
