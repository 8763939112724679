"""What a curve of the learning-rate range test suggests; the command is in tests/end_to_end."""

import csv
import json
import math
import types

import numpy as np
import pytest
import tensorflow as tf
from official.modeling.optimization import optimizer_factory

from mrcnn_tf.experiment import loading
from mrcnn_tf.training import find_lr

RATES = np.array([find_lr.rate_at(step) for step in range(find_lr.STEPS + 1)])


def valley(lowest_at, noise=0.0):
    """A loss of 4 that falls to 1 at a rate and grows to 16 a hundred times above."""
    distance = np.log10(RATES / lowest_at)
    losses = np.where(distance < 0, 4 - 3 * np.exp(-(distance**2)), 1 + 3.75 * distance**2)
    return losses + noise * np.random.default_rng(1).normal(size=len(losses))


def judge(losses):
    """Of a run that skipped no step."""
    return find_lr.judge(losses, np.arange(len(losses)))


def test_the_rates():
    assert RATES[0] == 1e-6
    assert RATES[-1] == pytest.approx(10.0)
    np.testing.assert_allclose(RATES[20:] / RATES[:-20], 10.0)  # 20 steps for a factor of ten


def test_the_schedule_of_the_optimizer_is_those_rates():
    experiment = loading.load("maskrcnn_shapes")
    find_lr.set_schedule(experiment.trainer)
    factory = optimizer_factory.OptimizerFactory(experiment.trainer.optimizer_config)
    schedule = factory.build_learning_rate()
    assert [float(schedule(step)) for step in (0, 1, 70, 140)] == pytest.approx(
        [RATES[0], RATES[1], RATES[70], RATES[140]], rel=1e-4
    )


@pytest.mark.parametrize("lowest_at", [1e-3, 0.03])
def test_a_tenth_of_the_lowest(lowest_at):
    found = judge(valley(lowest_at))
    assert found.suggestion == pytest.approx(lowest_at / 10, rel=0.15)
    # 4 - 3 exp(-d^2) falls fastest where d = -sqrt(1/2).
    assert found.steepest == pytest.approx(lowest_at * 10 ** -math.sqrt(0.5), rel=0.15)
    noisy = judge(valley(lowest_at, noise=0.3))
    assert noisy.suggestion == pytest.approx(lowest_at / 10, rel=0.5)


class _Overflowing:
    """A trainer in float16 whose first eight steps overflow: they change nothing, nor the rate."""

    def __init__(self):
        self.optimizer = types.SimpleNamespace(iterations=tf.Variable(0, dtype=tf.int64))
        self.stop = types.SimpleNamespace(check=lambda where: None)
        self.steps = 0

    def train(self, count):
        loss = valley(1e-3)[int(self.optimizer.iterations)]
        self.steps += 1
        if self.steps > 8:
            self.optimizer.iterations.assign_add(1)
        return {"training_loss": tf.constant(loss)}


def test_a_step_that_is_skipped_does_not_shift_the_curve():
    found = find_lr.search(_Overflowing())
    whole = judge(valley(1e-3))
    assert found.suggestion == pytest.approx(whole.suggestion)
    assert found.steepest == pytest.approx(whole.steepest)
    np.testing.assert_allclose(found.rates[:10], [1e-6] * 9 + [RATES[1]])


def test_an_end_that_is_not_finite_is_not_smoothed_in():
    losses = valley(1e-3)[:80]
    whole = judge(losses)
    losses = np.append(losses, np.nan)
    found = judge(losses)
    assert np.isnan(found.smoothed[-1])
    np.testing.assert_allclose(found.smoothed[:-1], whole.smoothed)
    assert found.suggestion == whole.suggestion


@pytest.mark.parametrize(
    "losses", [[], [math.nan], [3.0, 2.0], [2.0] * 50, list(np.linspace(2, 9, 60))]
)
def test_a_loss_that_never_fell_suggests_nothing(losses):
    found = judge(np.array(losses))
    assert found.suggestion is None
    assert "nothing can be suggested" in find_lr.describe(found, 2, 16)


def test_the_rate_is_also_given_as_the_experiment_declares_it():
    found = judge(valley(1e-2))
    text = find_lr.describe(found, 2, 16)
    assert "suggested learning rate: 0.001 " in text
    assert "at 2 images a step; in the experiment's fields, declared for 16 images" in text
    assert text.endswith(f"that is {8 * found.suggestion:.2g}")
    assert "declared" not in find_lr.describe(found, 16, 16)


def test_files(tmp_path):
    found = judge(valley(1e-2)[:80])
    folder = tmp_path / "run" / "find_lr"
    find_lr.write(found, str(folder), 2)
    find_lr.write(found, str(folder), 2)  # again: replaced
    assert sorted(path.name for path in folder.iterdir()) == [
        "find_lr.json",
        "losses.csv",
        "plot.png",
    ]
    with open(folder / "losses.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(r["learning_rate"]) for r in rows], found.rates, rtol=1e-5)
    np.testing.assert_allclose([float(r["loss"]) for r in rows], found.losses, rtol=1e-5)
    summary = json.loads((folder / "find_lr.json").read_text())
    assert summary["suggestion"] == found.suggestion
    assert summary["images_per_step"] == 2
    picture = tf.io.decode_png((folder / "plot.png").read_bytes()).numpy()
    assert picture.shape[:2] == (600, 960)
    orange = np.abs(picture[..., :3].astype(int) - (213, 94, 0)).sum(axis=-1) < 30
    assert orange.any(axis=0).sum() >= 2  # the two lines
