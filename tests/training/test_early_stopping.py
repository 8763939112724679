"""When a run ends early: by hand, and beside Keras' callback."""

import math

import numpy as np
import pytest
import tf_keras

from mrcnn_tf.experiment import loading
from mrcnn_tf.training.early_stopping import EarlyStopping


def config_of(patience, metric="mask_ap", comparison="higher"):
    config = loading.load("maskrcnn_shapes").trainer
    config.patience = patience
    config.best_checkpoint_eval_metric, config.best_checkpoint_metric_comp = metric, comparison
    return config


def stops_at(values, config, known=0):
    """The evaluation after which the run ends, counted from 1; None if it does not.

    The first `known` ones come from the lines of a run that was stopped after them.
    """
    name = config.best_checkpoint_eval_metric
    rows = [{"step": 10 * n, name: value} for n, value in enumerate(values, start=1)]
    stopping = EarlyStopping(config, rows[:known])
    if stopping.is_due:
        return known
    for number, row in enumerate(rows[known:], start=known + 1):
        stopping.add(row["step"], row)
        if stopping.is_due:
            return number
    return None


def test_by_hand():
    values = [0.1, 0.3, 0.2, 0.3, 0.25, 0.4]
    assert stops_at(values, config_of(0)) is None
    assert stops_at(values, config_of(1)) == 3  # 0.2 after 0.3
    assert stops_at(values, config_of(2)) == 4  # as good as the best is not better
    assert stops_at(values, config_of(3)) == 5
    assert stops_at(values, config_of(4)) is None  # 0.4 came in time
    assert stops_at([-v for v in values], config_of(2, "validation_loss", "lower")) == 4


def test_before_something_is_right_nothing_is_counted():
    """Nor what is not finite or not measured; a loss may be 0 or below."""
    assert stops_at([0, 0, 0, 0, 0, 0.1, 0.2, 0.3], config_of(3)) is None
    assert stops_at([0, -1, 0.1, math.nan, 0.1, -1, 0, 0.1], config_of(3)) == 8
    assert stops_at([math.nan, -1, -1, math.inf, -2, -2, -1], config_of(2, "m", "lower")) == 7
    assert stops_at([0, 0, 0], config_of(2, "m", "lower")) == 3


@pytest.mark.parametrize("comparison", ["higher", "lower"])
def test_as_keras_wherever_the_run_was_stopped_in_between(comparison):
    rng = np.random.default_rng(5)
    ends = set()
    for _ in range(60):
        values = rng.integers(1, 12, 15) / 12  # with ties
        patience = int(rng.integers(1, 5))
        callback = tf_keras.callbacks.EarlyStopping(
            "m", patience=patience, mode={"higher": "max", "lower": "min"}[comparison]
        )
        callback.model = tf_keras.Sequential()
        callback.on_train_begin()
        for epoch, value in enumerate(values):
            callback.on_epoch_end(epoch, {"m": value})
            if callback.model.stop_training:
                break
        want = callback.stopped_epoch + 1 if callback.model.stop_training else None
        ends.add(want)
        config = config_of(patience, "m", comparison)
        for known in range(want or len(values)):
            assert stops_at(values, config, known) == want
    assert len(ends) > 4


def test_what_it_says():
    stopping = EarlyStopping(config_of(2), [{"step": 1500, "mask_ap": 0.41234}])
    stopping.add(3000, {"mask_ap": 0.4})
    stopping.add(4500, {"box_ap": 0.9})  # not by the metric: no evaluation
    assert not stopping.is_due
    stopping.add(6000, {"mask_ap": 0.4})
    assert stopping.reason() == (
        "mask_ap was best at step 1,500 (0.4123) and not better in the 2 evaluations since "
        "(trainer.patience: 2)"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.patience=-1", "trainer.patience: got -1"),
        (
            "trainer.patience=3,trainer.best_checkpoint_eval_metric=''",
            "trainer.patience: 3, but trainer.best_checkpoint_eval_metric is empty",
        ),
    ],
)
def test_a_patience_that_cannot_be_kept_is_refused(override, message):
    with pytest.raises(ValueError, match=message):
        loading.load("maskrcnn_shapes", params_override=override)
