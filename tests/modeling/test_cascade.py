"""Cascade R-CNN, tiny, against twins that take one RoI after the other."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.modeling import build, cascade, metrics, roi_heads
from mrcnn_tf.modeling.proposals import Proposals
from mrcnn_tf.modeling.roi_pooling import RoIAlign
from tests import tiny_network
from tests.modeling import compiled
from tests.modeling.test_detections import numpy_nms
from tests.tiny_network import EMPTY, MAX_INSTANCES, NUM_CLASSES, TWO_OBJECTS, WITH_CROWD

CASCADE = {
    "box_head": {"class_agnostic": True},
    "cascade": {"positive_ious": (0.6, 0.7), "regression_factors": (2.0, 3.0)},
}
IMAGES = [TWO_OBJECTS, WITH_CROWD, EMPTY]
IOUS = (0.5, 0.6, 0.7)
WEIGHTS = ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))


def config(**differs):
    model = tiny_network.config()
    model.override(CASCADE)
    model.override(differs)
    return model


def small_steps(network):
    """Boxes move by some pixels and classes differ, so that all heads have positives."""
    for head in network.roi_heads.box_heads:
        for layer, factor in ((head.box_deltas, 0.02), (head.class_logits, 0.3)):
            layer.kernel.assign(factor * layer.kernel)
    return network


@pytest.fixture(scope="module")
def network():
    return small_steps(tiny_network.build_network(config()))


# --- Twins: NumPy, one box after the other ------------------------------------------------------


def twin_head(network, head, features, box):
    """Class probabilities [N] and deltas [4] that a box head gives to one box."""
    rois = tf.constant(np.array(box, np.float32)[np.newaxis, np.newaxis])
    hidden = np.ravel(network.roi_heads.pool(features, rois, head.pool_size))
    for layer in head.hidden:
        hidden = np.maximum(hidden @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    logits = hidden @ head.class_logits.kernel.numpy() + head.class_logits.bias.numpy()
    exponentials = np.exp(logits - logits.max())
    deltas = hidden @ head.box_deltas.kernel.numpy() + head.box_deltas.bias.numpy()
    return exponentials / exponentials.sum(), deltas


def twin_move(box, deltas, weights, size):
    """Apply deltas to one box, and clip it to an image of (height, width)."""
    corners = [0.0] * 4
    for axis in (0, 1):
        side = box[2 + axis] - box[axis]
        centre = (box[axis] + box[2 + axis]) / 2 + deltas[axis] / weights[axis] * side
        half = side * math.exp(min(deltas[2 + axis] / weights[2 + axis], math.log(62.5))) / 2
        corners[axis] = min(max(centre - half, 0.0), size[axis])
        corners[2 + axis] = min(max(centre + half, 0.0), size[axis])
    return corners


def twin_overlap(a, b):
    """Shared area, and the areas of both."""
    sides = [max(0.0, min(a[2 + k], b[2 + k]) - max(a[k], b[k])) for k in (0, 1)]
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return sides[0] * sides[1], *areas


def twin_target(box, image, positive_iou, weights):
    """Class, index of the object and deltas of one box; None where it takes no part."""
    if box[2] <= box[0] or box[3] <= box[1]:
        return None
    best, index = 0.0, -1
    for g, thing in enumerate(image.objects):
        shared, mine, its = twin_overlap(box, thing.box)
        if not thing.is_crowd and shared / (mine + its - shared) > best:
            best, index = shared / (mine + its - shared), g
    if best >= positive_iou:
        its, deltas = image.objects[index].box, []
        for axis in (0, 1):
            side = box[2 + axis] - box[axis]
            away = (its[axis] + its[2 + axis] - box[axis] - box[2 + axis]) / 2
            deltas.append(weights[axis] * away / side)
        for axis in (0, 1):
            side = box[2 + axis] - box[axis]
            deltas.append(weights[2 + axis] * math.log((its[2 + axis] - its[axis]) / side))
        return image.objects[index].class_id, index, deltas
    for thing in image.objects:
        shared, mine, _ = twin_overlap(box, thing.box)
        if thing.is_crowd and shared / mine >= 0.7:
            return None
    return 0, 0, [0.0] * 4


def test_inference_is_that_of_a_slow_twin(network):
    batch = tiny_network.batch(IMAGES[:2])
    sizes = batch[schema.IMAGE_SIZE_HW].numpy()
    features = network.features(batch[schema.IMAGE], training=False)
    proposals = network.rpn(features, batch[schema.IMAGE_SIZE_HW])
    proposals = Proposals(*(field[:, :8] for field in proposals))
    found = network.find_boxes(features, proposals, batch[schema.IMAGE_SIZE_HW])
    for b, size in enumerate(sizes):
        of_image = {level: value[b : b + 1] for level, value in features.items()}
        boxes, scores = [], []
        for box, valid in zip(proposals.boxes[b].numpy(), proposals.valid[b].numpy(), strict=True):
            total = np.zeros(NUM_CLASSES)
            for head, weights in zip(network.roi_heads.box_heads, WEIGHTS, strict=True):
                probabilities, deltas = twin_head(network, head, of_image, box)
                total += probabilities
                box = twin_move(box, deltas, weights, size)
            boxes.append(box)
            scores.append(total / 3 * valid)
        settings = {"score_threshold": 0.05, "nms_iou": 0.5, "max_detections": MAX_INSTANCES}
        final = np.array(boxes)
        want = numpy_nms(np.array(scores), lambda k, final=final: final, settings)
        count = len(want)
        assert count > 2
        np.testing.assert_array_equal(found.valid[b], np.arange(MAX_INSTANCES) < count)
        np.testing.assert_array_equal(found.classes[b, :count], [f[1] for f in want])
        np.testing.assert_allclose(found.scores[b, :count], [f[0] for f in want], 1e-4)
        np.testing.assert_allclose(found.boxes[b, :count], [f[2] for f in want], atol=1e-2)


def test_targets_of_each_stage_are_those_of_a_slow_twin(network):
    batch = tiny_network.batch(IMAGES)
    outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
    assert len(outputs.later_stages) == 2
    before = outputs
    for stage, weights, iou, its_weights in zip(
        outputs.later_stages, WEIGHTS[1:], IOUS[1:], WEIGHTS[:-1], strict=True
    ):
        rois, targets = before.roi_targets, stage.roi_targets
        for b, image in enumerate(IMAGES):
            for r in range(rois.rois.shape[1]):
                moved = twin_move(
                    rois.rois[b, r].numpy(), before.box_deltas[b, r, 0].numpy(), its_weights,
                    image.size_hw,
                )  # fmt: skip
                want = twin_target(moved, image, iou, weights) if rois.valid[b, r] else None
                assert bool(targets.valid[b, r]) == (want is not None), (b, r)
                if want is None:
                    assert not np.any(targets.rois[b, r])
                    assert not targets.is_positive[b, r]
                    continue
                np.testing.assert_allclose(targets.rois[b, r], moved, atol=1e-3)
                assert int(targets.classes[b, r]) == want[0]
                assert bool(targets.is_positive[b, r]) == (want[0] > 0)
                if want[0]:
                    assert int(targets.gt_index[b, r]) == want[1]
                np.testing.assert_allclose(targets.deltas[b, r], want[2], atol=2e-3)
        assert np.sum(targets.is_positive) >= 3  # not for want of positives
        assert np.sum(targets.valid[2]) == np.sum(rois.valid[2])  # the image without objects
        before = stage


def test_losses_are_those_of_each_stages_targets(network):
    batch = tiny_network.batch(IMAGES)
    outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
    sums = network.losses_of(outputs)
    assert tuple(sums) == build.loss_names(config())
    assert tuple(sums)[5:] == (
        *("stage2_class_loss", "stage2_box_loss"),
        *("stage3_class_loss", "stage3_box_loss"),
    )
    for number, stage in enumerate(outputs.later_stages, start=2):
        classes, box = 0.0, 0.0
        targets = stage.roi_targets
        for b, r in np.argwhere(targets.valid.numpy()):
            logits = stage.class_logits[b, r].numpy().astype(np.float64)
            right = int(targets.classes[b, r])
            classes += np.log(np.exp(logits).sum()) - logits[right]
            if right:
                off = np.abs(stage.box_deltas[b, r, right - 1] - targets.deltas[b, r])
                box += np.where(off < 1, off**2 / 2, off - 0.5).sum()
        count = targets.valid.numpy().sum()
        for name, total in (("class", classes), ("box", box)):
            np.testing.assert_allclose(sums[f"stage{number}_{name}_loss"].total, total, 1e-4)
            assert float(sums[f"stage{number}_{name}_loss"].count) == count
        assert box > 0


def test_metrics_are_of_each_stage(network):
    outputs = network.train_forward(tiny_network.batch(IMAGES), 3, tf.constant(0, tf.int64))
    found = metrics.metrics(outputs)
    assert tuple(found) == build.metric_names(config())
    targets = outputs.later_stages[1].roi_targets
    positives = np.sum(targets.is_positive)
    np.testing.assert_allclose(found["stage3_positive_rois"], [positives / 3, 3])
    assert float(found["stage3_class_accuracy"][1]) == np.sum(targets.valid)


def test_images_that_are_left_out_count_in_no_stage(network):
    batch = tiny_network.batch(IMAGES)
    outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
    left = network.losses_of(outputs.of_images(tf.constant([True, False, False])))
    alone = network.train_forward(tiny_network.batch(IMAGES[:1]), 3, tf.constant(0, tf.int64))
    for name, want in network.losses_of(alone).items():
        np.testing.assert_allclose(left[name].total, want.total, 1e-4, err_msg=name)
        assert float(left[name].count) == float(want.count), name


def test_images_without_objects_teach_background_only(network):
    with tf.GradientTape() as tape:
        outputs = network.train_forward(tiny_network.batch([EMPTY]), 3, tf.constant(0, tf.int64))
        sums = network.losses_of(outputs)
        loss = tf.add_n([term.mean() for term in sums.values()])
    for number in (2, 3):
        assert float(sums[f"stage{number}_box_loss"].total) == 0.0
        assert float(sums[f"stage{number}_class_loss"].total) > 0
    for gradient in tape.gradient(loss, network.trainable_variables):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_no_gradient_goes_through_the_boxes(network):
    """The third head's loss teaches itself and the features, not the heads before."""
    batch = tiny_network.batch(IMAGES)
    with tf.GradientTape() as tape:
        outputs = network.train_forward(batch, 3, tf.constant(0, tf.int64))
        sums = network.losses_of(outputs)
        loss = sums["stage3_class_loss"].mean() + sums["stage3_box_loss"].mean()
    reached = {
        variable.name.split("/")[0]
        for variable, gradient in zip(
            network.trainable_variables,
            tape.gradient(loss, network.trainable_variables),
            strict=True,
        )
        if gradient is not None
    }
    assert "box_head_3" in reached
    assert not reached & {"box_head", "box_head_2", "rpn_head", "mask_head"}


def test_gradient_scale_by_hand():
    """y = 3 x1^2 + x2, so dy/dx = (6 x1, 1), of which a quarter is left."""
    x = tf.constant([2.0, 5.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        same = cascade.scale_gradient(x, 0.25)
        y = 3.0 * same[0] ** 2 + same[1]
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(tape.gradient(y, x), [3.0, 0.25])
    half = tf.constant([2.0], tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(half)
        same = cascade.scale_gradient(half, 0.25)
    assert (same.dtype, tape.gradient(same, half).dtype) == (tf.bfloat16, tf.bfloat16)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_head_gives_the_features_a_third_of_its_gradient_and_itself_all(network, number):
    features = network.features(tiny_network.batch([TWO_OBJECTS])[schema.IMAGE], training=False)
    rois = tf.constant([[[4.0, 6.0, 40.0, 30.0], [30.0, 24.0, 58.0, 62.0]]])
    head = network.roi_heads.box_heads[number]

    def gradients(training):
        with tf.GradientTape() as tape:
            tape.watch(features[2])
            logits, deltas = network.roi_heads.boxes_by(head, features, rois, training)
            total = tf.reduce_sum(logits**2) + tf.reduce_sum(deltas[:, :, 0])
        found = tape.gradient(total, [features[2], head.hidden[0].kernel])
        return [tf.convert_to_tensor(gradient).numpy() for gradient in found]

    (of_features, of_kernel), (plain_features, plain_kernel) = gradients(True), gradients(False)
    assert np.abs(plain_features).max() > 0
    np.testing.assert_allclose(of_features, plain_features / 3, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(of_kernel, plain_kernel, rtol=1e-4, atol=1e-7)


def test_what_is_not_finite_is_not_looked_at_again():
    head = roi_heads.BoxHead(NUM_CLASSES, class_agnostic=True)
    rois = tf.constant([[[0.0, 0.0, 10.0, 10.0]] * 3])
    deltas = np.zeros([1, 3, NUM_CLASSES - 1, 4], np.float32)
    deltas[0, 0, :, 1], deltas[0, 1, :, 0] = np.nan, np.inf
    boxes = cascade.refined(rois, tf.constant(deltas), head, tf.constant([[8.0, 20.0]]))
    np.testing.assert_allclose(boxes, [[[0] * 4, [0] * 4, [0, 0, 8, 10]]], atol=1e-6)


def test_a_class_agnostic_head_is_a_head_whose_classes_have_the_same_box():
    agnostic = roi_heads.BoxHead(NUM_CLASSES, fc_channels=8, class_agnostic=True)
    plain = roi_heads.BoxHead(NUM_CLASSES, fc_channels=8)
    pooled = tf.random.stateless_normal([2, 3, 7, 7, 4], [1, 2])
    agnostic(pooled), plain(pooled)
    assert agnostic.box_deltas.kernel.shape == (8, 4)
    tiny_network.randomize(agnostic)
    for ours, theirs in zip(plain.weights, agnostic.weights, strict=True):
        same = theirs.numpy()
        if "box_deltas" in ours.name:
            same = np.concatenate([same] * (NUM_CLASSES - 1), axis=-1)
        ours.assign(same)
    for got, want in zip(agnostic(pooled), plain(pooled), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="one box per RoI: set box_head.class_agnostic"):
        build.build_model(config(box_head={"class_agnostic": False}), NUM_CLASSES)
    with pytest.raises(ValueError, match="2 positive_ious, 1 regression_factors"):
        build.build_model(config(cascade={"regression_factors": (2.0,)}), NUM_CLASSES)
    with pytest.raises(ValueError, match="there is none on features: c4"):
        build.build_model(config(features="c4"), NUM_CLASSES)


def test_the_mask_head_sees_the_rois_of_the_first_box_head(network):
    outputs = network.train_forward(tiny_network.batch(IMAGES), 3, tf.constant(0, tf.int64))
    first = outputs.roi_targets
    count = outputs.masks.valid.shape[1]
    np.testing.assert_array_equal(outputs.masks.valid, first.is_positive[:, :count])


@pytest.mark.slow
@pytest.mark.parametrize("differs", [{}, {"system": "faster_rcnn"}, {"proposals": "file"}])
def test_compiled_is_eager(differs):
    model = config(**differs)
    network = small_steps(tiny_network.build_network(model))
    given = tiny_network.batch(IMAGES)
    if differs.get("proposals"):
        given |= tiny_network.proposals_near_objects(IMAGES, 4)

    assert compiled.train_as_eager(network, given, 1e-3) == build.loss_names(model)
    eager = network.infer(given)
    got = tf.function(network.infer, jit_compile=True, autograph=False)(given)
    compiled.detections_are_close(got, eager, 1e-4, 2e-3)
    in_graph = tf.function(
        network.infer,
        input_signature=[
            {k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in given.items()}
        ],
    )
    nothing = in_graph({key: value[:0] for key, value in given.items()})
    assert nothing.boxes.shape == (0, MAX_INSTANCES, 4)


def test_pooling_sees_the_boxes_of_the_head_before():
    """By hand: heads of no layers on a constant feature, deltas from their biases alone."""
    heads = [
        roi_heads.BoxHead(2, fc_layers=0, pool_size=1, class_agnostic=True, name=f"head_{k}",
                          regression_weights=[float(w) for w in WEIGHTS[k]])
        for k in range(3)
    ]  # fmt: skip
    parts = cascade.CascadeRoIHeads(heads, None, RoIAlign())
    features = {level: tf.ones([1, 64 >> level, 64 >> level, 1]) for level in range(2, 6)}
    parts.boxes(features, tf.zeros([1, 1, 4]))
    box = tf.constant([[[8.0, 8.0, 16.0, 24.0]]])
    for head in heads[1:]:
        head(tf.ones([1, 1, 1, 1, 1]))
    # By a quarter of the height down, by a quarter of the width to the right.
    heads[0].box_deltas.bias.assign([2.5, 0.0, 0.0, 0.0])
    heads[1].box_deltas.bias.assign([0.0, 5.0, 0.0, 0.0])
    for head, size, want in (
        (heads[0], [60.0, 60.0], [10.0, 8.0, 18.0, 24.0]),
        (heads[1], [17.0, 60.0], [10.0, 12.0, 17.0, 28.0]),  # clipped at the bottom
    ):
        head.box_deltas.kernel.assign(tf.zeros_like(head.box_deltas.kernel))
        _, deltas = parts.boxes_by(head, features, box, training=False)
        box = cascade.refined(box, deltas, head, tf.constant([size]))
        np.testing.assert_allclose(box[0, 0], want, atol=1e-5)
