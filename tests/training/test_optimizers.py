"""Who decays the weights, and that only one does."""

import json
import pathlib
import subprocess
import sys

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


def adamw_by_hand(values, gradients, rates, decays, clip):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) in NumPy, the gradients clipped before."""
    first, second = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values]
    for step, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), start=1):
        norm = np.sqrt(sum((g**2).sum() for g in gradient))
        for k, g in enumerate(gradient):
            g = g * min(1.0, clip / norm)
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g**2
            # Keras has epsilon beside the root before the bias of the second moment is removed.
            root = np.sqrt(second[k]) / np.sqrt(1 - 0.999**step)
            moved = first[k] / (1 - 0.9**step) / (root + 1e-7 / np.sqrt(1 - 0.999**step))
            values[k] = values[k] - rate * moved - rate * decays[k] * values[k]
    return values


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_adamw_with_warm_up_and_cosine_as_by_hand(dtype):
    """Gradients larger and smaller than the norm that they are clipped to."""
    experiment = experiment_of("adamw", gradient_clip_norm=1.0)
    experiment.trainer.override(
        {
            "optimizer_config": {
                "learning_rate": {
                    "type": "cosine",
                    "cosine": {"initial_learning_rate": 0.01, "decay_steps": 6},
                },
                "warmup": {
                    "type": "linear",
                    "linear": {"warmup_steps": 2, "warmup_learning_rate": 0.001},
                },
            }
        }
    )
    experiment.runtime.mixed_precision_dtype = dtype
    optimizer = optimizers.create(experiment.trainer, experiment.runtime)
    rng = np.random.default_rng(3)
    names, shapes = ("kernel", "gamma", "beta", "bias"), ([3, 2], [2], [2], [2])
    start = [rng.normal(size=shape) for shape in shapes]
    gradients = [[s * rng.normal(size=n) for n in shapes] for s in (5, 0.1, 3, 0.2, 1, 0.01)]
    variables = [
        tf.Variable(v, dtype=tf.float32, name=n) for n, v in zip(names, start, strict=True)
    ]
    for of_step in gradients:
        given = [tf.constant(g, tf.float32) for g in of_step]
        optimizer.apply_gradients(zip(given, variables, strict=True))
    cosine = [0.005 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    rates = [0.001, 0.001 + 0.5 * (cosine[2] - 0.001), *cosine[2:]]
    want = adamw_by_hand(start, gradients, rates, [DECAY, 0.0, 0.0, 0.0], clip=1.0)
    for variable, values in zip(variables, want, strict=True):
        np.testing.assert_allclose(variable.numpy(), values, rtol=2e-4, atol=2e-6)


def test_adamw_clips_the_sum_over_replicas():
    """Two replicas with half of a gradient each step as one with the whole of it."""
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.adamw_script"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for dtype, (one, two) in json.loads(done.stdout).items():
        np.testing.assert_allclose(one, two, rtol=1e-6, err_msg=dtype)
        assert max(one) < 0.9  # it did step


def test_two_ways_to_clip_are_refused():
    experiment = experiment_of("adamw", clipnorm=0.5)
    with pytest.raises(ValueError, match="adamw.clipnorm: 0.5, but .*gradient_clip_norm is 1.0"):
        optimizers.create(experiment.trainer, experiment.runtime)
    alone = experiment_of("adamw", clipnorm=0.5, gradient_clip_norm=0.0)
    optimizers.create(alone.trainer, alone.runtime)
