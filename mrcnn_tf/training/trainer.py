"""Model Garden's trainer, with what a run needs that stops and goes on."""

import contextlib
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import base_trainer, train_utils

from mrcnn_tf import checkpoints
from mrcnn_tf.console import whole_file
from mrcnn_tf.experiment import fields
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.training import averages, checkpoint_folder, optimizers, run_folder
from mrcnn_tf.training.stopping import StopRequest
from mrcnn_tf.training.task import MaskRCNNTask
from mrcnn_tf.training.workers import Workers


class Trainer(base_trainer.Trainer):
    """One training step and one validation step, over all replicas; the state of a run.

    Attributes:
      input_seconds: how long steps have waited for their input.
      images_per_step: the batch in which `global_step` counts, a part of every checkpoint.
      workers: the processes that take these steps together.
      stop: asked between the batches of an evaluation.
    """

    def __init__(
        self,
        experiment: Experiment,
        task: MaskRCNNTask,
        *,
        images_per_step: int,
        training: bool,
        evaluating: bool,
        first_step: int = 0,
    ):
        """Build network, optimizer and inputs; in the scope of the strategy.

        Args:
          experiment: `runtime.enable_xla` is false: the task compiles what can be compiled. Model
            Garden would on GPUs compile the whole step, whose update several replicas cannot do
            inside a compiled function.
          task: builds everything.
          images_per_step: over all replicas.
          training: whether there will be training steps.
          evaluating: whether there will be evaluations.
          first_step: where the order of the images goes on.
        """
        with tf.device("CPU:0"):
            self.input_seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
            self.images_per_step = tf.Variable(images_per_step, dtype=tf.int64, trainable=False)
        self.workers = Workers(tf.distribute.get_strategy())
        self.stop = StopRequest(self.workers)
        # First: it sets the seed that the order of the images depends on.
        model = task.build_model()
        # Both here: what Model Garden's constructor raises, it adds a line of its own to.
        train_dataset = validation_dataset = None
        if training:
            train_dataset = self._distributed(task, experiment.task.train_data, first_step)
        if evaluating:
            validation_dataset = self._distributed(task, experiment.task.validation_data, 0)
        super().__init__(
            experiment,
            task,
            model=model,
            optimizer=optimizers.create(experiment.trainer, experiment.runtime),
            train=training,
            evaluate=evaluating,
            train_dataset=train_dataset,
            validation_dataset=validation_dataset,
        )
        if training:
            # Left to the first step, it would be traced a second time for having created variables.
            _create_slots(self.optimizer, self.model)
        self._averages: averages.Averages | None = None
        decay = experiment.trainer.ema_decay
        if decay:
            self._averages = averages.Averages(self.model, task.build_model(), decay)
        self._checkpoint = tf.train.Checkpoint(
            global_step=self.global_step,
            model=self.evaluated_model,
            optimizer=self.optimizer,
            images_per_step=self.images_per_step,
            **({"trained": self.model} if self._averages else {}),
        )

    @property
    def evaluated_model(self) -> tf_keras.Model:
        """The network that is scored, and that others read from a checkpoint."""
        return self._averages.network if self._averages else self.model

    def initialize(self) -> None:
        """Load the weights that a run begins with."""
        self.task.initialize(self.model)
        if self._averages:
            self._averages.begin()

    def keep_best(self, model_dir: str) -> None:
        """Keep the best checkpoint of the evaluations to come, if the experiment says by what."""
        config = self.config.trainer
        if config.best_checkpoint_export_subdir and config.best_checkpoint_eval_metric:
            self._checkpoint_exporter = BestCheckpoint(
                os.path.join(model_dir, config.best_checkpoint_export_subdir),
                config.best_checkpoint_eval_metric,
                config.best_checkpoint_metric_comp,
                run_folder.RunFolder(model_dir).evaluations(),
            )

    def restore(self, checkpoint: str, step: int, images_per_step: int) -> None:
        """Go on from a checkpoint.

        Args:
          checkpoint: of this run.
          step: where it stands, counted in batches of this start.
          images_per_step: of this start.

        Raises:
          ValueError: see `checkpoints.restore`; or its run averaged weights and this one does not,
            or the other way round.
        """
        was_averaged = checkpoints.holds(checkpoint, "trained")
        if was_averaged != bool(self._averages):
            what = "averaged weights beside those" if was_averaged else "no averages of the weights"
            raise ValueError(
                f"{checkpoint} holds {what} that its run trained, but trainer.ema_decay is "
                f"{self.config.trainer.ema_decay:g}. Go on with what the run began with; to start "
                "from its weights with another, take another --model_dir and set "
                "task.init_checkpoint to this checkpoint"
            )
        _create_slots(self.optimizer, self.model)
        checkpoints.restore(self.checkpoint, self.evaluated_model, checkpoint)
        self.images_per_step.assign(images_per_step)
        self.global_step.assign(step)
        self.optimizer.iterations.assign(step)

    def weights_are_finite(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(tf.reduce_all(tf.math.is_finite(v))) for v in self.model.trainable_weights)

    def train_loop_begin(self) -> None:
        """Look for the first loss out of bounds anew: weights may have been restored."""
        if self.task.first_divergence:
            self.task.first_divergence.reset()

    def next_train_inputs(self, iterator: Any) -> Any:
        """Fetch the next batch and add the time it took to `input_seconds`."""
        before = self._now()
        with tf.control_dependencies([before]):
            inputs = next(iterator)
        first = tf.nest.flatten(self.strategy.experimental_local_results(inputs))[0]
        with tf.control_dependencies([first]):
            self.input_seconds.assign_add(self._now() - before)
        return inputs

    def _now(self) -> tf.Tensor:
        """Return the seconds of a clock, float64 []."""
        if not self.config.runtime.deterministic:
            return tf.timestamp()
        # TensorFlow's clock refuses to be read where everything is to be the same again.
        seconds = tf.numpy_function(time.monotonic, [], tf.float64)
        return tf.ensure_shape(seconds, [])

    def train_step(self, iterator: Any) -> None:
        """Take a step; the averages follow it."""
        super().train_step(iterator)
        if self._averages:
            self._averages.update(self.strategy, self.optimizer.iterations)

    def evaluate(self, num_steps: tf.Tensor) -> Any:
        """Score the network as it is, or the averages of its weights."""
        with self._evaluated_model_in_place():
            return super().evaluate(num_steps)

    @contextlib.contextmanager
    def _evaluated_model_in_place(self) -> Iterator[None]:
        # Model Garden's evaluation step takes the network from here when it is traced.
        trained = self.model
        self._model: Any = self.evaluated_model
        try:
            yield
        finally:
            self._model = trained

    def eval_reduce(self, state: Any = None, step_outputs: Any = None) -> Any:
        """Hand a batch's detections on, unless the run was told to stop."""
        self.stop.check(" during an evaluation; the same command begins it again")
        return super().eval_reduce(state, step_outputs)

    def _distributed(
        self, task: MaskRCNNTask, data: fields.Data, first_step: int
    ) -> tf.distribute.DistributedDataset:
        start = uuid.uuid4().hex
        if data.enable_tf_data_service:  # whose job is one for all workers
            start = self.workers.from_chief(start)
        return tf.distribute.get_strategy().distribute_datasets_from_function(
            lambda input_context: task.build_inputs(data, input_context, first_step, start),
        )


class BestCheckpoint(train_utils.BestCheckpointExporter):
    """Model Garden's keeper of the best checkpoint, in an order that a kill cannot spoil.

    An equal score replaces one that is not above 0: as long as nothing is right, the network that
    has learnt longest is the best guess. What is not finite replaces no number.

    Args:
      export_dir: the checkpoint and info.json are in it.
      metric_name: which number is compared.
      metric_comp: "higher" or "lower".
      evaluations: of the run so far. They have the numbers of the best checkpoint once more, should
        info.json be damaged.
    """

    def __init__(
        self,
        export_dir: str,
        metric_name: str,
        metric_comp: str,
        evaluations: Sequence[dict[str, float]] = (),
    ):
        newest = checkpoints.find_newest(export_dir)
        for line in newest.lines():
            print(line)
        checkpoint_folder.tidy(export_dir, newest)
        self._evaluations = evaluations
        self._newest = newest.checkpoint
        super().__init__(export_dir, metric_name, metric_comp)

    def _maybe_load_best_eval_metric(self) -> Any:
        """Read info.json; without a checkpoint that it could be of it counts for nothing."""
        if not self._newest:
            return None
        try:
            found = super()._maybe_load_best_eval_metric()
            if isinstance(found, dict):
                return found
            why = "it is gone" if found is None else "these are no named numbers"
        except ValueError as error:  # cut, or no text
            why = str(error)
        step, images_per_step = checkpoints.position(self._newest)
        images = step * (images_per_step or 0)
        known = [row for row in self._evaluations if row["images"] == images]
        then = (
            f"the numbers of {self._newest} are taken from {run_folder.METRICS}"
            if known
            else "the best checkpoint is chosen anew"
        )
        print(f"{self.best_ckpt_logs_path} cannot be read ({why}): {then}")
        return known[0] if known else None

    def maybe_export_checkpoint(
        self, checkpoint: tf.train.Checkpoint, eval_logs: Any, global_step: int, write_logs=True
    ) -> bool:
        """Save if the metric is better than before; only then say so in info.json."""
        before: Any = self.best_ckpt_logs
        is_better = before is None or self._new_metric_is_better(before, eval_logs)
        workers = Workers(tf.distribute.get_strategy())
        if workers.count > 1:  # the others see another folder, and all have to save, or none
            before, is_better = workers.from_chief((before and numbers(before), is_better))
            self._best_ckpt_logs = before
        if not is_better:
            return False
        self._get_checkpoint_manager(checkpoint).save(checkpoint_number=global_step)
        self._best_ckpt_logs = eval_logs
        if write_logs:
            self.export_best_eval_metric(eval_logs, global_step)
        return True

    def _new_metric_is_better(self, old_logs: Any, new_logs: Any) -> bool:
        name = "|".join(self._metric_name)  # Model Garden has cut it there
        before, now = (float(np.mean(logs.get(name, np.nan))) for logs in (old_logs, new_logs))
        if not math.isfinite(before):  # also: chosen by another number so far
            return True
        if self._metric_comp == "lower":
            return now < before
        return now > before or now == before <= 0

    def export_best_eval_metric(self, eval_logs: Any, global_step: int) -> None:
        """Replace info.json, which a run that goes on reads, as a whole."""
        values = numbers(eval_logs) | {"best_ckpt_global_step": float(global_step)}
        whole_file.write(self.best_ckpt_logs_path, json.dumps(values, indent=4) + "\n")


def _create_slots(optimizer: tf_keras.optimizers.Optimizer, model: tf_keras.Model) -> None:
    """Create what an optimizer otherwise creates in its first step, so that it can be compared."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(optimizer, "_create_all_weights"):
        optimizer._create_all_weights(model.trainable_variables)
    else:
        optimizer.build(model.trainable_variables)


def numbers(output: dict[str, Any]) -> dict[str, float]:
    """Return an output of training or evaluation as plain numbers."""

    def number(value: Any) -> float:
        if isinstance(value, tf.Variable):  # a constant learning rate
            value = value.read_value()
        return float(np.mean(value))

    return {key: number(value) for key, value in output.items()}
