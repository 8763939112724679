"""averages.py: the numbers by hand, and what a run scores, keeps and goes on with."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf import checkpoints
from mrcnn_tf.experiment import loading
from mrcnn_tf.training.averages import Averages
from mrcnn_tf.training.loop import Loop
from mrcnn_tf.training.trainer import Trainer

METRIC = "mask_ap"


def _dense(value):
    model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(1,), use_bias=False)])
    model.set_weights([np.array([[value]], np.float32)])
    return model


def test_hand_worked():
    """From 1; the weights are 2, 3, then 3 for ever. Early on the first weights count little."""
    trained, averaged = _dense(1.0), _dense(9.0)
    averages = Averages(trained, averaged, decay=0.25)
    averages.begin()
    assert averaged.get_weights()[0] == 1.0
    expected = 1.0
    for step, weight in enumerate((2.0, 3.0, 3.0, 3.0), start=1):
        trained.set_weights([np.array([[weight]])])
        averages.update(tf.distribute.get_strategy(), tf.constant(step, tf.int64))
        decay = (2 / 11, 0.25, 0.25, 0.25)[step - 1]  # (1 + 1) / (10 + 1); 3 / 12; 4 / 13 > 0.25
        expected = decay * expected + (1 - decay) * weight
        assert averaged.get_weights()[0][0, 0] == pytest.approx(expected, rel=1e-6)
    assert trained.get_weights()[0] == 3.0


def test_weights_that_do_not_train_keep_every_bit():
    trained, averaged = _dense(0.1), _dense(0.0)
    averages = Averages(trained, averaged, decay=0.9)
    averages.begin()
    for step in range(1, 50):
        averages.update(tf.distribute.get_strategy(), tf.constant(step))
    assert averaged.get_weights()[0] == trained.get_weights()[0]


class _Task:
    """Learns y = 3 x, and scores the weight."""

    loss = "loss"
    first_divergence = training_images = None

    def build_model(self):
        return _dense(1.0)

    def initialize(self, model):
        model.set_weights([np.array([[2.0]], np.float32)])

    def build_metrics(self, training):
        return []

    def build_inputs(self, data, input_context=None, first_step=0, start=""):
        return tf.data.Dataset.from_tensors(tf.ones([1, 1])).repeat()

    def train_step(self, inputs, model, optimizer, metrics):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs) - 3.0) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return {"loss": loss}

    def validation_step(self, inputs, model, metrics):
        return {"found": model(inputs)}

    def aggregate_logs(self, state, step_outputs):
        return step_outputs["found"][0].numpy().item()

    def reduce_aggregated_logs(self, aggregated_logs, global_step=None):
        return {METRIC: aggregated_logs}


class _Silent:
    """What shows numbers in a run."""

    def __call__(self, output):
        pass

    def pause(self):
        pass


def _trainer(decay=0.5, evaluating=True):
    experiment = loading.load(
        "maskrcnn_shapes",
        params_override=f"trainer.ema_decay={decay},trainer.validation_steps=1,"
        "trainer.optimizer_config.warmup.linear.warmup_steps=1",
    )
    return Trainer(experiment, _Task(), images_per_step=2, training=True, evaluating=evaluating)


def _weights(checkpoint):
    """(averaged, trained) of a checkpoint, by way of networks that know of nothing."""
    averaged, trained = _dense(0.0), _dense(0.0)
    checkpoints.load(averaged, checkpoint)
    tf.train.Checkpoint(trained=trained).read(checkpoint).expect_partial()
    return float(averaged.get_weights()[0][0, 0]), float(trained.get_weights()[0][0, 0])


def _run(trainer, folder, steps):
    loop = Loop(trainer, str(folder), _Silent(), _Silent())
    loop.train_until(steps)
    return loop


def test_a_run_scores_and_keeps_the_averages_and_goes_on_with_the_weights(tmp_path):
    trainer = _trainer()
    trainer.initialize()
    trainer.keep_best(str(tmp_path))
    expected, found = 2.0, []
    for step in range(1, 6):
        loop = _run(trainer, tmp_path, step)
        averaged, trained = _weights(loop.save())
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trained
        assert averaged == pytest.approx(expected, rel=1e-6)
        assert averaged != trained
        if step == 3:
            assert loop.evaluate()[METRIC] == averaged
            assert _weights(str(tmp_path / "best" / "best_ckpt-3")) == (averaged, trained)
            assert json.loads((tmp_path / "best" / "info.json").read_text())[METRIC] == averaged
        found.append((averaged, trained))

    # Without an evaluation, and stopped after two steps: bit by bit the same.
    stopped = _trainer(evaluating=False)
    stopped.initialize()
    path = _run(stopped, tmp_path / "again", 2).save()
    resumed = _trainer(evaluating=False)
    resumed.restore(path, 2, 2)
    assert _weights(_run(resumed, tmp_path / "again", 5).save()) == found[-1]


def test_beginning_or_ending_it_on_the_way_is_refused(tmp_path):
    path = {}
    for decay in (0.0, 0.5):
        trainer = _trainer(decay, evaluating=False)
        trainer.initialize()
        path[decay] = _run(trainer, tmp_path / str(decay), 1).save()
    with pytest.raises(ValueError, match=r"no averages of the weights .*\.ema_decay is 0.5"):
        _trainer(0.5, evaluating=False).restore(path[0.0], 1, 2)
    with pytest.raises(ValueError, match=r"averaged weights beside those .*\.ema_decay is 0. Go"):
        _trainer(0.0, evaluating=False).restore(path[0.5], 1, 2)


def test_the_decay_is_meant_for_the_batch_of_the_schedule():
    """Two steps of 8 images are as one of 16: 0.99 ** 0.5 each."""
    experiment = loading.load("maskrcnn_r50_fpn", params_override="trainer.ema_decay=0.99")
    loading.scale_to_batch(experiment, 8)
    assert experiment.trainer.ema_decay == pytest.approx(0.99**0.5)
    with pytest.raises(ValueError, match="ema_decay: got 1.0, needs 0 to below 1"):
        loading.load("maskrcnn_r50_fpn", params_override="trainer.ema_decay=1.0")
