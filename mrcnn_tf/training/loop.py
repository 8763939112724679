"""The loop of a run: steps, their numbers, checkpoints, evaluations, and how it ends early."""

import contextlib
import math
import os
import re
from collections.abc import Iterator

import orbit
import tensorflow as tf

from mrcnn_tf.data import damage, record_files
from mrcnn_tf.experiment import fields, sources
from mrcnn_tf.training import (
    checkpoint_folder,
    curves,
    input_watch,
    progress,
    run_folder,
    same_weights,
)
from mrcnn_tf.training.trainer import Trainer, numbers

_BEHIND_THE_MESSAGE = ("\t", "Traceback", "Original stack trace", "Detected at node")
_NAMES_OF_OPERATIONS = re.compile(r"\{\{\w*node .*?\}\} ?| \[Op:\w*\]")


class Loop:
    """Trains and evaluates, and keeps what comes of it.

    Args:
      trainer: stands where the run goes on.
      model_dir: checkpoints go into it.
      training_log: shows the numbers of each loop; None where there is no training.
      evaluation_log: shows those of each evaluation.
    """

    def __init__(
        self,
        trainer: Trainer,
        model_dir: str,
        training_log: progress.TrainingLog | None,
        evaluation_log: progress.EvaluationLog,
    ):
        config = trainer.config.trainer
        self._trainer, self._config = trainer, config
        self._training_log, self._evaluation_log = training_log, evaluation_log
        self._manager = tf.train.CheckpointManager(
            trainer.checkpoint,
            model_dir,
            max_to_keep=config.max_to_keep if trainer.workers.is_chief else 1,
            checkpoint_name="ckpt",
        )
        self._newest: str | None = trainer.workers.from_chief(self._manager.latest_checkpoint)
        self._saved_step = self.step
        self._recoveries = 0
        self._training_images_written = False
        self._drawn_before = curves.files(os.path.join(model_dir, "train"))
        self._curves = self._curves_in("train")
        self._validation_curves = self._curves_in(config.validation_summary_subdir)

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self._trainer.global_step.numpy())

    def begin(self, is_evaluating: bool, is_evaluated: bool) -> None:
        """Drop what a run that was killed has drawn for TensorBoard beyond this step.

        Only where steps count in the batch in which they always have.

        Args:
          is_evaluating: whether this run evaluates; else another process may be drawing now
            (--mode=continuous_eval), and what is drawn of evaluations is its own.
          is_evaluated: whether this step is; what was drawn of it is kept then.
        """
        folder, validation = self._manager.directory, self._config.validation_summary_subdir
        curves.drop_beyond(os.path.join(folder, "train"), self.step)
        if is_evaluating:
            last = self.step if is_evaluated else self.step - 1
            curves.drop_beyond(os.path.join(folder, validation), max(0, last))

    def train_until(self, step: int) -> None:
        """Take steps up to a step, and leave a checkpoint of it.

        Raises:
          FloatingPointError: the loss, or what it did to the weights, is beyond all bounds.
          Stopped: the process was told to stop; the checkpoint is written.
        """
        while self.step < step:
            self._check_stop()
            count = min(self._config.steps_per_loop, step - self.step)
            with self._errors_explained(), input_watch.of(self._trainer.config.task.train_data):
                output = self._trainer.train(tf.constant(count, tf.int32))
            assert self._training_log is not None
            self._training_log(output)
            if not self._training_images_written:
                self._write_training_images()
            if self._diverged(float(output["training_loss"])):
                continue
            self._write_curves(output)
            if self.step - self._saved_step >= self._config.checkpoint_interval:
                self.save()
        if self.step != self._saved_step or not self._newest:
            self.save()

    def evaluate(self) -> dict[str, float]:
        """Score the network as it is; return the numbers.

        Raises:
          Stopped: the process was told to stop.
          ValueError: an image cannot be read, or a detection cannot be scored.
        """
        self._trainer.stop.check(" before an evaluation; the same command makes it")
        with self._validation_curves.summary_writer().as_default():
            tf.summary.experimental.set_step(self._trainer.global_step)
            try:
                output = self._trainer.evaluate(tf.constant(self._config.validation_steps))
            except (ValueError, tf.errors.OpError) as error:
                self._trainer.workers.raise_if_gone(error)
                text = self._said(error, self._trainer.task.task_config.validation_data)
                raise ValueError(f"the evaluation at step {self.step:,} failed: {text}") from error
        output = numbers(output)
        self._validation_curves.write_summaries(output)
        self._validation_curves.flush()
        self._evaluation_log(output)  # last: with its line, an evaluation counts as made
        if self._training_log:
            self._write_training_images()
            self._training_log.pause()
        return output

    def save(self) -> str:
        """Write a checkpoint of this step; return its path, which the chief has written.

        Raises:
          FloatingPointError: a weight is not a number.
        """
        if not self._trainer.weights_are_finite():
            raise self._floating_point_error(
                f"the weights are not finite any more after step {self.step:,}"
            )
        try:
            path = self._manager.save(checkpoint_number=self.step)
        except tf.errors.OpError as error:
            self._trainer.workers.raise_if_gone(error)
            checkpoint_folder.remove_half_written(self._manager.directory)
            last = self._newest
            raise OSError(
                f"the checkpoint of step {self.step:,} could not be written: "
                f"{first_lines(error.message)}. "
                + (f"The last one is {last}" if last else "There is none before it")
            ) from error
        self._newest = path = self._trainer.workers.from_chief(path)
        self._saved_step = self.step
        return path

    def _check_stop(self) -> None:
        if not self._trainer.stop.is_there():
            return
        where = ", before the first step"
        if self.step:
            path = self._newest
            if self.step != self._saved_step or not path:
                path = self.save()
            where = f" at step {self.step:,}, saved as {path}"
        self._trainer.stop.check(f"{where}; the same command goes on from there")

    def _write_curves(self, output: dict[str, tf.Tensor]) -> None:
        interval = self._config.summary_interval
        if self.step % interval == 0 or self.step >= self._config.train_steps:
            self._curves.write_summaries(numbers(output))
            self._curves.flush()

    def _curves_in(self, folder: str) -> orbit.utils.SummaryManager:
        return orbit.utils.SummaryManager(
            os.path.join(self._manager.directory, folder),
            tf.summary.scalar,
            global_step=self._trainer.global_step,
        )

    def _drop_curves_beyond(self, step: int) -> None:
        """Drop what this process has drawn of training beyond a step; it draws on in a new file.

        Files of processes before it may count steps in another batch. They end where it began.
        """
        self._curves.summary_writer().close()
        folder = os.path.join(self._manager.directory, "train")
        curves.drop_beyond(folder, step, kept=self._drawn_before)
        self._curves = self._curves_in("train")
        self._training_images_written = False

    def _write_training_images(self) -> None:
        images = self._trainer.task.training_images
        if images:
            with self._curves.summary_writer().as_default():
                images.write(self.step)
        self._training_images_written = True

    def _diverged(self, loss: float) -> bool:
        """Whether the run went back to its last checkpoint because of the loss."""
        config = self._config
        is_large = self.step >= config.recovery_begin_steps and loss > config.loss_upper_bound
        if (math.isfinite(loss) and not is_large) or config.recovery_max_trials < 0:
            return False
        self._recoveries += 1
        last = self._newest
        found = self._what_diverged() or f"{loss:.3g} in the mean of the last steps"
        if self._recoveries > config.recovery_max_trials or not last:
            raise self._floating_point_error(f"the loss was {found}")
        print(f"the loss was {found}. Going back to {last}", flush=True)
        batch = int(self._trainer.images_per_step.numpy())
        # It may be of a start with another batch, as long as this one has saved nothing.
        standing = run_folder.standing_at(last, batch, default_batch=batch)
        with self._trainer.strategy.scope():
            self._trainer.restore(last, standing.step, batch)
            same_weights.check(self._trainer.workers, self._trainer.checkpoint)
        losses = os.path.join(self._manager.directory, run_folder.LOSSES)
        run_folder.drop_rows_beyond(losses, standing.images)
        self._drop_curves_beyond(standing.step)
        assert self._training_log is not None
        self._training_log.pause()  # its next rate counts from here
        return True

    def _what_diverged(self) -> str:
        record = self._trainer.task.first_divergence
        return record.describe(self._trainer.strategy) if record else ""

    def _floating_point_error(self, what: str) -> FloatingPointError:
        last = self._newest
        kept = f"the last checkpoint, {last}, is from before" if last else "there is no checkpoint"
        cause = "A learning rate too high for the data is the usual cause"
        scale = self._trainer.config.runtime.loss_scale
        if scale not in (None, "", "dynamic"):  # which would have skipped the step
            scale = float(scale)  # YAML takes 1e30, which lacks a dot, for a text
            cause = (
                f"With the fixed runtime.loss_scale of {scale:g}, gradients beyond float16's "
                "65,504 are the first thing to suspect: leave it out for one that adapts itself. "
                "A learning rate too high for the data is the other"
            )
        return FloatingPointError(f"{what}. Nothing of this was saved: {kept}. {cause}")

    @contextlib.contextmanager
    def _errors_explained(self) -> Iterator[None]:
        """Say what it means if TensorFlow cannot take a step.

        Raises:
          FloatingPointError: numbers without bounds came to where indices and sizes are made.
          ValueError: the input is at fault.
        """
        try:
            yield
        except (tf.errors.OpError, UnicodeDecodeError) as error:  # of a record that it quotes
            input_watch.raise_if_forgotten(error)
            self._trainer.workers.raise_if_gone(error)
            found = self._what_diverged()
            if found:
                raise self._floating_point_error(f"the loss was {found}") from error
            if not self._trainer.weights_are_finite():
                raise self._floating_point_error("the weights are not finite any more") from error
            said = self._said(error, self._trainer.task.task_config.train_data)
            raise ValueError(f"step {self.step + 1:,} failed: {said}") from error

    def _said(self, error: Exception, data: fields.Data) -> str:
        """What TensorFlow says of an error; of a damaged record, where it is."""
        text = first_lines(getattr(error, "message", str(error)))
        if not isinstance(error, tf.errors.DataLossError):
            return text
        return damage.explain(text, record_files.find(sources.patterns(data))) or text


def first_lines(message: str) -> str:
    """Return what a person wants of an error of TensorFlow's, not the graph it came through."""
    lines = []
    for line in message.strip().splitlines():
        if line.startswith(_BEHIND_THE_MESSAGE) or "{{node" in line:
            break
        lines.append(line)
    text = " ".join(lines) or message.strip().partition("\n")[0]
    return _NAMES_OF_OPERATIONS.sub("", text).strip() or "TensorFlow names no reason"
