"""Training in both half types goes where float32 goes."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment import precision
from mrcnn_tf.experiment.experiment import Task, maskrcnn
from mrcnn_tf.modeling import build, prepared
from mrcnn_tf.training import optimizers
from mrcnn_tf.training import task as task_lib
from tests import tiny_network
from tests.marks import one_quick
from tests.tiny_network import TWO_OBJECTS, WITH_CROWD

STEPS = 24


def trained(dtype: str, norm: str = "group_norm") -> tuple[list[float], tf_keras.Model, object]:
    """Take a few steps on one batch; return the losses, the network and the optimizer."""
    experiment = maskrcnn()
    experiment.runtime.mixed_precision_dtype = dtype
    experiment.trainer.override(
        {
            "optimizer_config": {
                "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
                "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.002}},
                "warmup": {"type": None},
            }
        }
    )
    with precision.of(experiment.runtime):
        tf_keras.utils.set_random_seed(1)
        network = build.build_model(tiny_network.config(norm=norm), tiny_network.NUM_CLASSES)
        optimizer = optimizers.create(experiment.trainer, experiment.runtime)
    task = task_lib.MaskRCNNTask(Task(model=tiny_network.config(norm=norm)))
    batch = tiny_network.batch([TWO_OBJECTS, WITH_CROWD])
    step = tf.function(lambda: task.train_step(batch, network, optimizer), autograph=False)
    return [float(step()["loss"]) for _ in range(STEPS)], network, optimizer


@pytest.fixture(scope="module")
def in_float32():
    return trained("float32")[0]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_loss_is_that_of_float32_within_2_percent(dtype, in_float32):
    losses, network, optimizer = trained(dtype)
    assert in_float32[-1] < 0.7 * in_float32[0]  # it learns
    np.testing.assert_allclose(np.mean(losses[-8:]), np.mean(in_float32[-8:]), rtol=0.02)
    np.testing.assert_allclose(losses[0], in_float32[0], rtol=0.02)
    assert losses[0] != in_float32[0]  # it did compute in another type
    assert {variable.dtype for variable in network.trainable_variables} == {tf.float32}
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    assert scaled == (dtype == "float16")


@pytest.mark.slow
def test_a_gradient_beyond_float16_halves_the_scale_and_changes_nothing():
    _, network, optimizer = trained("float16")
    scale = float(optimizer.loss_scale)
    before = [variable.numpy() for variable in network.trainable_variables]
    infinite = [tf.fill(v.shape, float("inf")) for v in network.trainable_variables]
    optimizer.apply_gradients(zip(infinite, network.trainable_variables, strict=True))
    assert float(optimizer.loss_scale) == scale / 2
    for variable, old in zip(network.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


@pytest.mark.parametrize("norm", one_quick(["frozen_batch_norm", "batch_norm"]))
@pytest.mark.parametrize("dtype", one_quick(["bfloat16", "float32"]))
def test_weights_prepared_once_detect_the_same(norm, dtype):
    experiment = maskrcnn()
    experiment.runtime.mixed_precision_dtype = dtype
    with precision.of(experiment.runtime):
        network = tiny_network.build_network(tiny_network.config(norm=norm))
    batch = tiny_network.batch([TWO_OBJECTS, WITH_CROWD])
    want = tf.function(lambda: network.infer(batch), autograph=False)()
    function = tf.function(lambda: network.infer(batch), autograph=False)
    with prepared.once():
        concrete = function.get_concrete_function()
        read = concrete.variables
    own = {variable.name for variable in network.variables}
    made = [variable for variable in read if variable.name not in own]
    assert {variable.dtype for variable in made} == {tf.dtypes.as_dtype(dtype)}
    assert not any("moving_" in v.name for v in concrete.variables)
    for name, tensor in concrete()._asdict().items():
        if tensor is None:  # this network does not score masks
            continue
        np.testing.assert_allclose(
            tf.cast(tensor, tf.float32), tf.cast(getattr(want, name), tf.float32), atol=1e-5
        )
