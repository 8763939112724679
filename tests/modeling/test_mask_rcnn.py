"""The whole network, tiny: what a traced, a compiled and an eager run have to have in common."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import loading
from mrcnn_tf.modeling import build
from mrcnn_tf.ops import boxes as box_ops
from tests import tiny_network
from tests.marks import one_quick
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD, Image, Object

LANDSCAPE = Image((64, 90), [Object((2, 40, 50, 88), 2, has_mask=False)], key=31)
SQUARES = [TWO_OBJECTS, WITH_CROWD, EMPTY]


@dataclasses.dataclass
class Network:
    """A network and its two uses as functions of (batch, step) and (images, sizes)."""

    model: tf_keras.Model
    train: object
    detect: object

    @classmethod
    def build(cls, mode: str) -> "Network":
        """`mode`: eager, graph or xla; the last two are traced once, for unknown B, H and W."""
        model = tiny_network.build_network()

        def train(batch, step):
            with tf.GradientTape() as tape:
                outputs = model.train_forward(batch, 3, step)
                sums = model.losses_of(outputs)
                loss = tf.add_n([term.mean() for term in sums.values()])
            return outputs, sums, tape.gradient(loss, model.trainable_variables)

        def detect(images, image_size_hw):
            return model(images, image_size_hw)

        if mode == "eager":
            return cls(model, train, detect)
        jit = mode == "xla"
        specs = {
            key: tf.TensorSpec([None, None, None, 3] if t.shape.rank == 4 else [None, *t.shape[1:]],
                               t.dtype)
            for key, t in tiny_network.batch([EMPTY]).items()
        }  # fmt: skip
        step = tf.TensorSpec([], tf.int64)
        images = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 2])]
        return cls(
            model,
            tf.function(train, [specs, step], jit_compile=jit, autograph=False),
            tf.function(detect, images, jit_compile=jit, autograph=False),
        )

    def losses(self, images, step=0, canvas_hw=(64, 64)):
        """Mean losses as Python numbers."""
        batch = tiny_network.batch(images, canvas_hw)
        _, sums, _ = self.train(batch, tf.constant(step, tf.int64))
        return {name: float(term.mean()) for name, term in sums.items()}


@pytest.fixture(scope="module")
def eager():
    return Network.build("eager")


@pytest.fixture(scope="module")
def graph():
    return Network.build("graph")


@pytest.fixture(scope="module")
def xla():
    return Network.build("xla")


@pytest.fixture(scope="module")
def networks(eager, graph, xla):
    return {"eager": eager, "graph": graph, "xla": xla}


CASES = {"square": (SQUARES, (64, 64)), "landscape": ([LANDSCAPE], (64, 96))}

# The traced function gets a second batch size and width without being traced again. Under XLA that
# means compiling once more.
EACH_CASE_AND_MODE = pytest.mark.parametrize(
    ("case", "mode"),
    [
        pytest.param("square", "graph", marks=pytest.mark.slow),
        pytest.param("landscape", "graph", marks=pytest.mark.slow),
        ("square", "xla"),
        pytest.param("landscape", "xla", marks=pytest.mark.slow),
    ],
)


@pytest.fixture(scope="module")
def trained(networks):
    """Return f(case, mode) -> what `Network.train` returns at step 5, computed once each."""

    @functools.cache
    def run(case, mode):
        return networks[mode].train(tiny_network.batch(*CASES[case]), tf.constant(5, tf.int64))

    return run


@EACH_CASE_AND_MODE
def test_training_samples_the_same_and_has_the_same_losses_as_eager(case, mode, trained):
    want, want_sums, _ = trained(case, "eager")
    outputs, sums, _ = trained(case, mode)
    pairs = (outputs.rpn.targets, want.rpn.targets), (outputs.roi_targets, want.roi_targets)
    for got_part, want_part in pairs:
        for name, tensor in want_part._asdict().items():
            if tensor.dtype != tf.float32:
                np.testing.assert_array_equal(getattr(got_part, name), tensor, name)
    np.testing.assert_allclose(outputs.roi_targets.rois, want.roi_targets.rois, atol=1e-3)
    # A graph on a CPU computes as many masks as there are positives, XLA as many as there may be.
    count = want.masks.targets.shape[1]
    np.testing.assert_array_equal(outputs.masks.targets[:, :count], want.masks.targets)
    np.testing.assert_array_equal(outputs.masks.valid[:, :count], want.masks.valid)
    assert not np.asarray(outputs.masks.valid)[:, count:].any()
    for name, term in want_sums.items():
        np.testing.assert_allclose(sums[name].total, term.total, rtol=1e-4, err_msg=name)
        np.testing.assert_array_equal(sums[name].count, term.count)


@EACH_CASE_AND_MODE
def test_gradients_are_those_of_eager(case, mode, trained, eager):
    largest = max(np.abs(dense(g)).max() for g in trained(case, "eager")[2])
    pairs = zip(trained(case, mode)[2], trained(case, "eager")[2], strict=True)
    for variable, (got, want) in zip(eager.model.trainable_variables, pairs, strict=True):
        difference = np.abs(dense(got) - dense(want)).max()
        assert difference <= 1e-4 * largest, variable.name


def dense(gradient):
    return tf.convert_to_tensor(gradient).numpy()


def test_training_outputs_are_what_the_images_call_for(trained):
    outputs, sums, _ = trained("square", "eager")
    rois, anchors = outputs.roi_targets, outputs.rpn.targets
    positives = rois.is_positive.numpy().sum(-1)
    assert (positives[:2] >= 1).all()  # their own boxes at least
    assert (positives <= 4).all()  # a quarter of 16
    assert positives[2] == 0
    assert set(rois.classes[0].numpy()) <= {0, 1, 3}
    assert set(rois.classes[1].numpy()) <= {0, 2}
    assert (anchors.is_positive.numpy().sum(-1)[:2] >= 1).all()
    assert outputs.masks.logits.shape == (3, positives.max(), 14, 14)
    np.testing.assert_array_equal(outputs.masks.valid, rois.is_positive[:, : positives.max()])
    assert float(sums["class_loss"].count) == rois.valid.numpy().sum()
    assert float(sums["mask_loss"].count) == positives.sum()
    # A RoI that is exactly the notched object: its target is the object.
    own = np.all(rois.rois[0, :4].numpy() == TWO_OBJECTS.objects[0].box, axis=-1)
    assert own.sum() == 1
    target = outputs.masks.targets[0, int(np.argmax(own))].numpy()
    want = np.ones([14, 14])
    want[7:, 7:] = 0
    np.testing.assert_array_equal(target, want)


def test_an_object_without_a_mask_trains_boxes_only(trained):
    outputs, sums, _ = trained("landscape", "eager")
    assert outputs.roi_targets.is_positive.numpy().any()
    assert float(sums["box_loss"].total) > 0
    assert (float(sums["mask_loss"].total), float(sums["mask_loss"].count)) == (0.0, 0.0)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_images_without_objects_have_no_box_and_mask_loss_and_finite_gradients(mode, networks):
    batch = tiny_network.batch([EMPTY, EMPTY, dataclasses.replace(EMPTY, key=8)])
    _, sums, gradients = networks[mode].train(batch, tf.constant(0, tf.int64))
    for name in ("rpn_box_loss", "box_loss", "mask_loss"):
        assert float(sums[name].total) == 0.0
        assert float(sums[name].mean()) == 0.0
    assert float(sums["class_loss"].total) > 0
    assert all(np.isfinite(dense(g)).all() for g in gradients)


def test_same_seed_same_losses_and_another_step_another_sample(graph):
    first = graph.losses(SQUARES, step=1)
    assert graph.losses(SQUARES, step=1) == first
    assert graph.losses(SQUARES, step=2)["class_loss"] != first["class_loss"]


def test_an_image_samples_the_same_anywhere_in_any_batch(graph):
    def samples(images):
        outputs, _, _ = graph.train(tiny_network.batch(images), tf.constant(1, tf.int64))
        keys = [image.key for image in images]
        anchors = dict(zip(keys, outputs.rpn.targets.index.numpy(), strict=True))
        rois = dict(zip(keys, outputs.roi_targets.rois.numpy(), strict=True))
        return anchors, rois

    anchors, rois = samples(SQUARES)
    for images in (SQUARES[::-1], [TWO_OBJECTS]):
        moved_anchors, moved_rois = samples(images)
        for key in moved_anchors:
            np.testing.assert_array_equal(moved_anchors[key], anchors[key])
            np.testing.assert_allclose(moved_rois[key], rois[key], atol=1e-3)


def test_crowds_are_background_when_not_ignored(eager):
    ignoring = eager.model
    model = tiny_network.build_network(
        dataclasses.replace(tiny_network.config(), ignore_crowds=False)
    )
    batch = tiny_network.batch([WITH_CROWD])
    crowd = batch[schema.GT_BOXES][0, 1:2]

    def negatives_on_crowd(network):
        levels = network.rpn.anchors(network.features(batch[schema.IMAGE], training=False))
        anchors = tf.concat([levels[level] for level in sorted(levels)], axis=0)
        sampled = network.train_forward(batch, 3, tf.constant(0, tf.int64)).rpn.targets
        inside = box_ops.ioa(tf.gather(anchors, sampled.index[0]), crowd)[:, 0] >= 0.7
        return int(np.sum(inside & sampled.valid[0] & ~sampled.is_positive[0]))

    assert negatives_on_crowd(ignoring) == 0
    assert negatives_on_crowd(model) > 0


@pytest.fixture(scope="module")
def detected(networks):
    """Return f(case, mode) -> Detections, computed once each."""

    @functools.cache
    def run(case, mode):
        batch = tiny_network.batch(*CASES[case])
        return networks[mode].detect(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])

    return run


@EACH_CASE_AND_MODE
def test_detections_are_those_of_eager(case, mode, detected):
    want, got = detected(case, "eager"), detected(case, mode)
    assert want.valid.numpy().sum() >= 4 * len(want.valid)
    same = (
        (want.classes == got.classes)
        & (np.abs(want.scores - got.scores) < 1e-4)
        & (np.abs(want.boxes - got.boxes).max(-1) < 1e-2)
        & (np.abs(want.masks - got.masks).max((-1, -2)) < 1e-3)
    )
    assert np.mean(same[want.valid.numpy()]) >= 0.99


def test_detections_are_inside_their_image_best_first_and_padded_with_zeros(detected):
    found = detected("landscape", "eager")
    assert found.boxes.shape == (1, 5, 4)
    assert found.masks.shape == (1, 5, 14, 14)
    assert np.all(found.boxes <= [64, 90, 64, 90])
    assert np.all(np.diff(found.scores) <= 0)
    assert np.all((found.masks.numpy() >= 0) & (found.masks.numpy() <= 1))
    padding = ~found.valid.numpy()
    for tensor in (found.boxes, found.classes, found.scores, found.masks):
        assert not tensor.numpy()[padding].any()


def test_a_image_of_nothing_valid_gives_zeros(graph):
    """An image of size 0, as fills up the last batch of an evaluation."""
    found = graph.detect(tf.zeros([1, 64, 64, 3]), tf.zeros([1, 2]))
    assert not any(np.any(tensor) for tensor in found if tensor is not None)


def test_anchors_of_a_canvas_that_p6_does_not_divide():
    """Canvas 64 x 96: P6 is 1 x 2. Spaced by level 64 pixels, by grid 96 // 2 = 48."""
    columns = {}
    for strides in ("level", "grid"):
        model = tiny_network.config()
        model.rpn.anchor_strides = strides
        network = build.build_model(model, tiny_network.NUM_CLASSES)
        anchors = network.rpn.anchors(network.features(tf.zeros([1, 64, 96, 3]), training=False))
        assert [anchors[k].shape[0] for k in range(2, 7)] == [1152, 288, 72, 18, 6]
        centers = (anchors[6][:, 1] + anchors[6][:, 3]) / 2
        columns[strides] = centers[::3].numpy().tolist()
        np.testing.assert_allclose(anchors[2][3 * 25 + 1], [0, 0, 8, 8])  # cell (1, 1), square
    assert columns == {"level": [0, 64], "grid": [0, 48]}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_losses_and_detections_in_float32(policy, mixed_precision, eager):
    """And close to those of float32, on the same sampled anchors."""
    mixed_precision(policy)
    network = tiny_network.build_network()
    batch = tiny_network.batch([TWO_OBJECTS])
    step = tf.constant(0, tf.int64)
    sums = network.losses_of(network.train_forward(batch, 3, step))
    want = eager.model.losses_of(eager.model.train_forward(batch, 3, step))
    assert {t.dtype for term in sums.values() for t in term} == {tf.float32}
    for name in ("rpn_class_loss", "rpn_box_loss"):
        np.testing.assert_allclose(sums[name].mean(), want[name].mean(), rtol=0.05)
    found = network(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])
    assert (found.boxes.dtype, found.scores.dtype, found.masks.dtype) == (tf.float32,) * 3
    assert found.valid.numpy().any()


# Of every kind the smallest, and the paper's two; the others are deeper or differ in a field.
QUICK = {name for name in loading.names() if name.endswith("shapes")}
QUICK |= {"maskrcnn_r50_fpn", "maskrcnn_r50_c4", "maskrcnn_r50_dc5", "maskrcnn_lite0_fpn"}


@pytest.mark.parametrize(
    "name", one_quick(sorted(loading.names(), key=lambda n: n not in QUICK), len(QUICK))
)
def test_every_experiment_builds(name):
    config = loading.load(name).task.model
    network = build.build_model(config, num_classes=81)
    if config.system != "rpn":
        assert network.roi_heads.box_head.class_logits.kernel.shape[-1] == 81
    if name == "maskrcnn_r50_fpn":
        # Detectron2 counts 44.4M, frozen norms and stages included.
        assert network.count_params() == pytest.approx(44.4e6, rel=0.005)


@pytest.mark.slow
def test_tiny_overfit():
    """Two images learnt by heart: the loss falls to a tenth, and both are found."""
    tf_keras.utils.set_random_seed(0)
    config = tiny_network.config(norm="group_norm")
    config.box_head.fc_channels = 256  # of 32 hidden units all may die for some RoI
    network = build.build_model(config, tiny_network.NUM_CLASSES)
    batch = tiny_network.batch([TWO_OBJECTS, WITH_CROWD])
    optimizer = tf_keras.optimizers.SGD(0.02, momentum=0.9)
    optimizer.build(network.trainable_variables)

    @tf.function(jit_compile=True, autograph=False)
    def gradients_of(step):
        with tf.GradientTape() as tape:
            sums = network.losses_of(network.train_forward(batch, 0, step))
            loss = tf.add_n([term.mean() for term in sums.values()])
        return loss, tape.gradient(loss, network.trainable_variables)

    history = []
    for step in range(300):
        loss, gradients = gradients_of(tf.constant(step, tf.int64))
        gradients, _ = tf.clip_by_global_norm(gradients, 5.0)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        history.append(float(loss))
    assert np.mean(history[-10:]) < 0.1 * np.mean(history[:3])
    found = network(batch[schema.IMAGE], batch[schema.IMAGE_SIZE_HW])
    for b, image in enumerate((TWO_OBJECTS, WITH_CROWD)):
        for thing in image.objects:
            if not thing.is_crowd:
                overlap = box_ops.iou(found.boxes[b], tf.constant([thing.box], tf.float32))[:, 0]
                right = (found.classes[b] == thing.class_id) & (found.scores[b] > 0.5)
                assert np.max(np.where(right, overlap, 0)) > 0.6
