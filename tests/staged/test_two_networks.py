import numpy as np
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.staged.two_networks import ProposalsAsDetections, TwoNetworks
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS


def network(system, proposals="rpn"):
    model = tiny_network.config()
    model.override({"system": system, "proposals": proposals})
    return tiny_network.build_network(model)


def inputs(*images):
    batch = tiny_network.batch(list(images))
    return batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW]


def test_two_networks_with_the_weights_of_one_find_what_it_finds():
    joint, rpn, detector = network("mask_rcnn"), network("rpn"), network("faster_rcnn", "file")
    values = {v.name: v for v in joint.weights}
    for variable in (*rpn.weights, *detector.weights):
        variable.assign(values[variable.name])
    two = TwoNetworks(rpn, detector)
    assert len(two.variables) == len(rpn.variables) + len(detector.variables)
    given = inputs(TWO_OBJECTS, EMPTY)
    want, got = joint(*given), tf.function(two, autograph=False)(*given)
    assert want.valid.numpy().any()
    assert got.masks is None
    for name in ("boxes", "classes", "scores", "valid"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-4, atol=1e-3)


def test_each_network_looks_at_its_own_features():
    rpn, detector = network("rpn"), network("faster_rcnn", "file")
    two = TwoNetworks(rpn, detector)
    given = inputs(TWO_OBJECTS)
    before = two(*given).scores.numpy()
    for variable in rpn.backbone.trainable_variables:  # other features, so other proposals
        variable.assign(-variable)
    after = two(*given).scores.numpy()
    proposals = rpn(*given)
    assert np.any(before != after)
    np.testing.assert_array_equal(after, detector(*given, proposals).scores)


def test_an_rpns_proposals_are_detections_of_one_class():
    rpn = network("rpn")
    given = inputs(TWO_OBJECTS, EMPTY)
    proposals, found = rpn(*given), ProposalsAsDetections(rpn)(*given)
    valid = proposals.valid.numpy()
    assert 0 < valid.sum() < valid.size  # some rows are padding
    np.testing.assert_array_equal(found.boxes, proposals.boxes)
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_array_equal(found.classes, valid.astype(np.int32))
    scores = found.scores.numpy()
    assert np.all(np.diff(scores, axis=1) <= 0)
    logits = proposals.scores.numpy().astype(np.float64)
    np.testing.assert_allclose(scores[valid], 1 / (1 + np.exp(-logits[valid])), rtol=1e-5)
    assert not scores[~valid].any()
    assert found.masks is None
