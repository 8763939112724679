"""accumulation.py: a step in parts is the step of the whole batch."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment import fields, inputs, loading
from mrcnn_tf.experiment.experiment import Task
from mrcnn_tf.training import accumulation, decay
from mrcnn_tf.training import task as task_lib
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD
from tests.training.replicas_script import WIDE, networks

IMAGES = [EMPTY, TWO_OBJECTS, WITH_CROWD, WIDE]
CANVAS = (64, 96)


def test_hand_worked():
    """The loss is the mean of w * x over what counts: 2 of the first part, 1 of the second.

    x = 1, 2, 4 have the mean 7 / 3; the mean of the parts' means would be 2.75. Beside it a loss
    of which there is nothing.
    """
    weight = tf.Variable(3.0)
    batch = {"x": tf.constant([1.0, 2.0, 4.0, 9.0]), "valid": tf.constant([1.0, 1.0, 1.0, 0.0])}

    def counts_of(part):
        return {"loss": tf.reduce_sum(part["valid"]), "nothing": tf.constant(0.0)}

    def gradients_of(part, counts):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(weight * part["x"] * part["valid"])
            loss = total / counts["loss"]
        metrics = {"largest": (tf.reduce_max(part["x"]), tf.reduce_sum(part["valid"]))}
        return {"loss": loss, "nothing": 0.0 * loss}, metrics, tape.gradient(loss, [weight])

    one = tf.constant(0.0)
    for call in (accumulation.in_parts, tf.function(accumulation.in_parts, autograph=False)):
        terms, metrics, [gradient] = call(
            batch,
            (2, 2),
            counts_of,
            lambda counts: counts,
            gradients_of,
            ({"loss": one, "nothing": one}, {"largest": (one, one)}, [weight]),
        )
        assert float(terms["loss"]) == pytest.approx(7.0)
        assert float(terms["nothing"]) == 0.0
        assert float(gradient) == pytest.approx(7 / 3)
        mean, count = metrics["largest"]
        assert (float(mean), float(count)) == (pytest.approx((2 * 2 + 9 * 1) / 3), 3.0)


def _task(config: fields.Model, images_at_once: int, **more) -> task_lib.MaskRCNNTask:
    data = fields.Data(is_training=True, images_per_replica=images_at_once, images_per_update=4)
    return task_lib.MaskRCNNTask(
        Task(model=config, train_data=data), decay.Decay(0.1, 0.02, 2.0), **more
    )


def _batch(config):
    batch = tiny_network.batch(IMAGES, CANVAS)
    if config.proposals == "file":
        batch |= tiny_network.proposals_near_objects(IMAGES, 4)
    return batch


def _scaled_optimizer():
    return tf_keras.mixed_precision.LossScaleOptimizer(
        tf_keras.optimizers.SGD(0.1), dynamic=False, initial_scale=1024.0
    )


@pytest.mark.parametrize(
    ("system", "at_once", "wrap"),
    [
        ("rpn", 1, "eager"),
        ("detector", 2, "eager"),
        pytest.param("detector", 1, "scaled", marks=pytest.mark.slow),
        pytest.param("rpn", 2, "graph", marks=pytest.mark.slow),
        pytest.param("detector", 1, "graph", marks=pytest.mark.slow),
        pytest.param("detector", 2, "unknown batch", marks=pytest.mark.slow),
        pytest.param("detector", 2, "compiled", marks=pytest.mark.slow),
        pytest.param("rpn", 1, "compiled", marks=pytest.mark.slow),
    ],
)
def test_a_step_in_parts_is_the_step_of_the_whole(system, at_once, wrap):
    """Losses, metrics and gradients with decay: one of the images has nothing to learn from.

    Proposals and RPN apart, as in `replicas_script.py`: where NMS ranks by what is computed, the
    last bit may decide what is sampled.
    """
    config = networks("group_norm")[system]
    model = tiny_network.build_network(config)
    batch = _batch(config)
    optimizer = _scaled_optimizer() if wrap == "scaled" else tf_keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    want = _task(config, 4).forward_backward(batch, model, tf_keras.optimizers.SGD(0.1))
    parts = _task(config, at_once, enable_xla=wrap == "compiled")

    def step(batch):
        return parts.forward_backward(batch, model, optimizer)

    if wrap == "unknown batch":  # as a distributed data set of several canvases gives it
        specs = {key: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for key, v in batch.items()}
        step = tf.function(step, input_signature=[specs], autograph=False)
    elif wrap in ("graph", "compiled"):
        step = tf.function(step, autograph=False)
    got = step(batch)
    tolerance = 1e-4  # of sums in another order
    for ours, theirs in zip(got[:2], want[:2], strict=True):
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=tolerance, err_msg=name)
    assert float(want[0]["loss"]) > 0
    largest = max(np.abs(g).max() for g in want[2])
    for a, b in zip(got[2], want[2], strict=True):
        assert np.abs(a - b).max() <= tolerance * largest


@pytest.mark.parametrize(
    ("batch", "per_replica", "update", "replicas", "step", "at_once"),
    [
        (0, 2, 0, 4, 8, 2),
        (0, 2, 16, 1, 16, 2),
        (0, 2, 16, 8, 16, 2),
        (4, 2, 16, 2, 16, 2),
        (16, 2, 16, 8, 16, 2),
    ],
)
def test_images_of_a_step_and_of_a_part(batch, per_replica, update, replicas, step, at_once):
    data = fields.Data(
        is_training=True,
        global_batch_size=batch,
        images_per_replica=per_replica,
        images_per_update=update,
    )
    assert inputs.batch_size(data, replicas) == step
    assert inputs.parts(data, replicas) == (step // at_once // replicas, at_once)


def test_an_update_that_is_no_multiple_is_refused():
    data = fields.Data(is_training=True, images_per_replica=3, images_per_update=16)
    with pytest.raises(ValueError, match="no multiple of the 6 that go .* at once. Make it 18"):
        inputs.batch_size(data, 2)


def test_the_schedule_is_that_of_the_update():
    """One GPU with two images at once and 16 an update: the paper's rate and steps."""
    override = "task.train_data.images_per_update=16"
    experiment = loading.load("maskrcnn_r50_fpn", params_override=override)
    images = inputs.batch_size(experiment.task.train_data, 1)
    assert loading.scale_to_batch(experiment, images) == ""
    assert experiment.trainer.train_steps == 160_000
