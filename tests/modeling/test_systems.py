"""The paper's systems, tiny: each trains and infers, and parts that are the same are the same."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import build, metrics
from tests import tiny_network
from tests.marks import one_quick
from tests.tiny_network import EMPTY, MAX_INSTANCES, TWO_OBJECTS, WITH_CROWD


def config(system="mask_rcnn", features="fpn", proposals="rpn") -> fields.Model:
    differs = {"system": system, "features": features, "proposals": proposals}
    if features == "c4":
        differs |= {"box_head": {"pool_size": 6}, "mask_head": {"mask_size": 6}}
    model = tiny_network.config()
    model.override(differs)
    return model


def batch(images, num_proposals=0):
    given = tiny_network.batch(images)
    if num_proposals:
        given |= tiny_network.proposals_near_objects(images, num_proposals)
    return given


SYSTEMS = [
    ("mask_rcnn", "fpn", "rpn"),
    ("mask_rcnn", "c4", "rpn"),
    ("faster_rcnn", "fpn", "rpn"),
    ("faster_rcnn", "c4", "rpn"),
    ("rpn", "fpn", "rpn"),
    ("rpn", "c4", "rpn"),
    ("mask_rcnn", "fpn", "file"),
    ("mask_rcnn", "c4", "file"),
    ("faster_rcnn", "fpn", "file"),
]


@pytest.mark.parametrize(("system", "features", "proposals"), SYSTEMS)
def test_losses_gradients_and_metrics(system, features, proposals):
    model_config = config(system, features, proposals)
    network = tiny_network.build_network(model_config)
    given = batch([TWO_OBJECTS, WITH_CROWD, EMPTY], 4 if proposals == "file" else 0)
    with tf.GradientTape() as tape:
        outputs = network.train_forward(given, 3, tf.constant(0, tf.int64))
        sums = network.losses_of(outputs)
        loss = tf.add_n([term.mean() for term in sums.values()])
    assert tuple(sums) == build.loss_names(model_config)
    assert all(term.total > 0 for term in sums.values())
    assert set(metrics.metrics(outputs)) == set(build.metric_names(model_config))
    variables = network.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None, variable.name
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.name


@pytest.mark.parametrize(("system", "features", "proposals"), one_quick(SYSTEMS, quick=2))
def test_compiled_inference_is_the_eager_one(system, features, proposals):
    given = batch([TWO_OBJECTS, EMPTY], 4 if proposals == "file" else 0)
    eager = tiny_network.build_network(config(system, features, proposals)).infer(given)
    network = tiny_network.build_network(config(system, features, proposals))
    compiled = tf.function(network.infer, jit_compile=True, autograph=False)(given)
    assert eager.valid.numpy().any()
    for name, want in eager._asdict().items():
        got = getattr(compiled, name)
        if want is None:
            assert got is None
        else:
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-3, err_msg=name)
    if system == "mask_rcnn":
        side = {"fpn": 14, "c4": 6}[features]
        assert eager.masks.shape == (2, MAX_INSTANCES, side, side)


@pytest.mark.parametrize(("system", "features", "proposals"), one_quick(SYSTEMS, quick=2))
def test_features_that_are_there_already_give_the_same(system, features, proposals):
    """Of finding and of the losses, which a validation step takes from one forward pass."""
    network = tiny_network.build_network(config(system, features, proposals))
    given = batch([TWO_OBJECTS, WITH_CROWD, EMPTY], 4 if proposals == "file" else 0)
    shared = network.features(given[schema.IMAGE], training=False)
    for name, want in network.infer(given)._asdict().items():
        got = getattr(network.infer(given, shared), name)
        assert (got is None) == (want is None)
        if want is not None:
            np.testing.assert_array_equal(got, want, name)
    step = tf.constant(0, tf.int64)
    want_sums = network.losses_of(network.train_forward(given, 3, step, training=False))
    outputs = network.train_forward(given, 3, step, training=False, features=shared)
    for name, (total, count) in network.losses_of(outputs).items():
        np.testing.assert_allclose(total, want_sums[name].total, rtol=1e-6, err_msg=name)
        assert float(count) == float(want_sums[name].count)


@pytest.mark.parametrize("features", ["fpn", "c4"])
def test_faster_rcnn_is_mask_rcnn_without_its_masks(features):
    """The same weights find the same boxes and have the same four losses."""
    mask = tiny_network.build_network(config("mask_rcnn", features))
    faster = tiny_network.build_network(config("faster_rcnn", features))
    of_mask_head = {id(v) for v in mask.roi_heads.mask_head.weights}
    common = [v for v in mask.weights if id(v) not in of_mask_head]
    assert len(common) == len(faster.weights)
    for ours, theirs in zip(faster.weights, common, strict=True):
        assert ours.shape == theirs.shape
        ours.assign(theirs)
    given = batch([TWO_OBJECTS, WITH_CROWD])
    want, got = mask.infer(given), faster.infer(given)
    assert got.masks is None
    np.testing.assert_array_equal(got.boxes, want.boxes)
    np.testing.assert_array_equal(got.scores, want.scores)
    step = tf.constant(2, tf.int64)
    want_sums = mask.losses_of(mask.train_forward(given, 3, step))
    for name, term in faster.losses_of(faster.train_forward(given, 3, step)).items():
        np.testing.assert_allclose(term.total, want_sums[name].total, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("features", ["fpn", "c4"])
def test_given_what_the_rpn_proposes_a_detector_finds_what_the_joint_network_finds(features):
    joint = tiny_network.build_network(config("mask_rcnn", features))
    apart = tiny_network.build_network(config("mask_rcnn", features, "file"))
    alone = tiny_network.build_network(config("rpn", features))
    values = {v.name: v for v in joint.weights}
    assert len(values) == len(joint.weights)
    for variable in (*apart.weights, *alone.weights):
        variable.assign(values[variable.name])
    given = batch([TWO_OBJECTS, WITH_CROWD])
    proposals = alone.infer(given)
    want = joint.infer(given)
    given[schema.PROPOSAL_BOXES], given[schema.PROPOSALS_VALID] = proposals.boxes, proposals.valid
    got = apart.infer(given)
    for name, tensor in want._asdict().items():
        np.testing.assert_array_equal(getattr(got, name), tensor, name)


def test_c4_anchors_are_all_sizes_and_ratios_at_every_place():
    network = tiny_network.build_network(config("rpn", "c4"))
    features = network.features(tf.zeros([1, 64, 96, 3]), training=False)
    assert {level: f.shape[1:3].as_list() for level, f in features.items()} == {4: [4, 6]}
    anchors = network.rpn.anchors(features)[4].numpy()
    assert anchors.shape == (4 * 6 * 15, 4)
    sides = np.sqrt(np.prod(anchors[:15, 2:] - anchors[:15, :2], axis=1))
    np.testing.assert_allclose(sides, np.repeat([8, 16, 32, 48, 64], 3), rtol=1e-5)


def test_c4_runs_stage5_once_for_both_branches_of_training():
    network = tiny_network.build_network(config("mask_rcnn", "c4"))
    calls = []
    stage5 = network.roi_heads.stage5
    original = stage5.call
    stage5.call = lambda inputs, training=False: calls.append(inputs.shape) or original(inputs)
    network.train_forward(batch([TWO_OBJECTS]), 3, tf.constant(0, tf.int64))
    assert [tuple(shape) for shape in calls] == [(16, 6, 6, 32)]  # 16 RoIs, stage 4's 32 channels
    assert stage5 is network.backbone.stage5
    names = [id(v) for v in network.weights]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(("system", "features", "proposals"), one_quick(SYSTEMS))
def test_a_batch_of_no_images_has_no_detections(system, features, proposals, in_graph):
    network = tiny_network.build_network(config(system, features, proposals))
    given = batch([TWO_OBJECTS], 4 if proposals == "file" else 0)
    infer = network.infer
    if in_graph:  # of any number of images
        specs = {k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in given.items()}
        infer = tf.function(infer, input_signature=[specs])
    want = infer(given)
    nothing = infer({key: value[:0] for key, value in given.items()})
    for name, tensor in nothing._asdict().items():
        of_one = getattr(want, name)
        assert (tensor is None) == (of_one is None)
        if tensor is not None:
            assert tensor.shape == (0, *of_one.shape[1:]), name


def test_a_network_without_rpn_says_that_it_needs_proposals():
    network = tiny_network.build_network(config("mask_rcnn", "fpn", "file"))
    with pytest.raises(ValueError, match="needs proposals beside the images"):
        network.infer(batch([TWO_OBJECTS]))


def test_a_frozen_pyramid_does_not_train():
    model = config("rpn")
    model.override({"fpn": {"frozen": True}, "backbone": {"freeze_at": 5}})
    network = tiny_network.build_network(model)
    assert len(network.trainable_variables) == 6  # kernel and bias of the RPN's three convolutions
