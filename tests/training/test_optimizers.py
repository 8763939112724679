"""Who decays the weights, and that only one does."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.experiment import loading
from mrcnn_tf.training import optimizers

RATE, DECAY = 0.5, 0.1


def experiment_of(kind, **fields):
    override = {
        "trainer.weight_decay": DECAY,
        "trainer.optimizer_config.optimizer.type": kind,
        "trainer.optimizer_config.learning_rate.type": "constant",
        "trainer.optimizer_config.learning_rate.constant.learning_rate": RATE,
        "trainer.optimizer_config.warmup.type": None,
    }
    override |= {f"trainer.optimizer_config.optimizer.{kind}.{k}": v for k, v in fields.items()}
    text = ",".join(f"{key}={'null' if v is None else v}" for key, v in override.items())
    return loading.load("maskrcnn_r50_fpn", params_override=text)


def after_a_step_without_gradient(kind):
    """What becomes of a kernel, of a norm's scale and of a bias, all 2."""
    experiment = experiment_of(kind)
    optimizer = optimizers.create(experiment.trainer, experiment.runtime)
    variables = [tf.Variable([2.0], name=f"head/{name}") for name in ("kernel", "gamma", "bias")]
    optimizer.apply_gradients([(tf.zeros([1]), v) for v in variables])
    return [float(v[0]) for v in variables], optimizers.decay_in_gradient(
        experiment.trainer
    ).kernels


@pytest.mark.parametrize("kind", ["adamw", "adamw_experimental"])
def test_adamw_decays_apart_from_the_gradient_and_once(kind):
    (kernel, gamma, bias), in_gradient = after_a_step_without_gradient(kind)
    assert kernel == pytest.approx(2.0 - RATE * DECAY * 2.0)
    assert gamma == bias == 2.0
    assert in_gradient == 0.0


@pytest.mark.parametrize("kind", ["sgd", "adam", "rmsprop"])
def test_others_see_the_decay_in_the_gradient(kind):
    (kernel, gamma, bias), in_gradient = after_a_step_without_gradient(kind)
    assert kernel == gamma == bias == 2.0
    assert in_gradient == DECAY


@pytest.mark.parametrize("kind", ["lamb", "lars"])
def test_layerwise_optimizers_leave_norms_alone(kind):
    (kernel, gamma, bias), in_gradient = after_a_step_without_gradient(kind)
    assert kernel < 2.0
    assert gamma == bias == 2.0
    assert in_gradient == 0.0


def test_a_decay_that_is_written_twice_is_refused():
    experiment = experiment_of("adamw", weight_decay_rate=0.05)
    with pytest.raises(ValueError, match=r"adamw.weight_decay_rate: 0.05, but .* is 0.1"):
        optimizers.create(experiment.trainer, experiment.runtime)
    same = experiment_of("adamw", weight_decay_rate=DECAY)
    optimizers.create(same.trainer, same.runtime)


@pytest.mark.parametrize("kind", ["slide", "adafactor"])
def test_an_optimizer_that_does_not_exist_is_refused(kind):
    experiment = experiment_of(kind)
    with pytest.raises(ValueError, match=f"optimizer.{kind}: .* has no such optimizer"):
        optimizers.create(experiment.trainer, experiment.runtime)


def test_the_experiment_is_left_as_it_was():
    experiment = experiment_of("adamw")
    before = experiment.as_dict()
    optimizers.create(experiment.trainer, experiment.runtime)
    assert experiment.as_dict() == before
    assert np.isclose(experiment.trainer.optimizer_config.optimizer.adamw.weight_decay_rate, 0.0)
