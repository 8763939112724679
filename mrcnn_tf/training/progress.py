"""What a user sees while the network trains; the same numbers go to TensorBoard.

One line per loop:

    step  400/1,600  loss 1.834 = rpn 0.213+0.080 class 0.352 box 0.480 mask 0.709  lr 0.02
      61.3 img/s  input 1%  eta 2m 14s
"""

import contextlib
import io
import json
import os
import sys
import time
from typing import Any

import numpy as np
import orbit
import tensorflow as tf
from official.core import base_trainer

from mrcnn_tf.durations import duration

# Counts that grow while training goes on: {name: (of what, which field limits it)}.
_DROPPED = {
    "dropped_objects": ("objects", "max_instances"),
    "dropped_masks": ("masks", "mask_arena_pixels"),
}


# Of an evaluation's numbers, those for one line: {name: how it is printed}.
_MAIN = {
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
    "ar_100": "AR@100",
    "ar_300": "AR@300",
    "ar_1000": "AR@1000",
    "validation_loss": "validation loss",
}


class QuietController(orbit.Controller):
    """Orbit's controller without its own lines, which print each loop's dictionary over a page."""

    def __init__(self, *args: Any, **kwargs: Any):
        """See `orbit.Controller`."""
        with _discard_stdout():
            super().__init__(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> None:
        """See `orbit.Controller.train`."""
        with _discard_stdout():
            super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """See `orbit.Controller.evaluate`."""
        with _discard_stdout():
            return super().evaluate(*args, **kwargs)


class Trainer(base_trainer.Trainer):
    """Model Garden's trainer, which also measures how long the step waits for its input."""

    def __init__(self, *args: Any, **kwargs: Any):
        """See `base_trainer.Trainer`."""
        with tf.device("CPU:0"):
            self.input_seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        super().__init__(*args, **kwargs)

    def resume_inputs(self) -> None:
        """Let the data go on where they were at the step that the weights are of.

        Without, a resumed run would see the first images of its order again. A run that went back
        to an earlier checkpoint by itself, after a loss that is not finite, goes on with new ones.
        """
        first_step = int(self.global_step.numpy())
        self.train_dataset = self.distribute_dataset(
            lambda input_context: self.task.build_inputs(
                self.config.task.train_data, input_context, first_step
            )
        )

    def train_loop_begin(self) -> None:
        """Look for the first loss that is not finite anew: weights may have been restored."""
        if self.task.first_non_finite:
            self.task.first_non_finite.reset()

    def next_train_inputs(self, iterator: Any) -> Any:
        """Fetch the next batch and add the time it took to `input_seconds`."""
        before = tf.timestamp()
        with tf.control_dependencies([before]):
            inputs = next(iterator)
        first = tf.nest.flatten(self.strategy.experimental_local_results(inputs))[0]
        with tf.control_dependencies([first]):
            self.input_seconds.assign_add(tf.timestamp() - before)
        return inputs


class TrainingLog:
    """A train action: adds rates to the loop's numbers, prints them in one line, keeps them."""

    def __init__(self, trainer: Trainer, model_dir: str, train_steps: int, images_per_step: int):
        """Start counting.

        Args:
          trainer: its step and waiting time are read.
          model_dir: every loop's numbers are appended to `train.jsonl` in it.
          train_steps: where training ends.
          images_per_step: over all replicas.
        """
        self._trainer = trainer
        self._path = os.path.join(model_dir, "train.jsonl")
        self._train_steps = train_steps
        self._images_per_step = images_per_step
        self._stdout = sys.stdout
        self._started: tuple[float, int] | None = None
        self._dropped = dict.fromkeys(_DROPPED, 0.0)
        self._restart()

    def _restart(self) -> None:
        self._time = time.monotonic()
        self._step = int(self._trainer.global_step.numpy())
        self._waited = float(self._trainer.input_seconds.numpy())

    def pause(self) -> None:
        """Leave what happened since the last loop (an evaluation) out of the next rate."""
        self._restart()

    def __call__(self, output: dict[str, Any]) -> None:
        """Add `images_per_second` and `input_wait` (part of the time) to `output`; print.

        `dropped_objects` and `dropped_masks`, what of the loop was too much for `max_instances` and
        `mask_arena_pixels`, become the sums since training was started or resumed.

        Args:
          output: the loop's means, as `Trainer.train_loop_end` returns them.
        """
        now, step = time.monotonic(), int(self._trainer.global_step.numpy())
        seconds, steps = max(now - self._time, 1e-9), step - self._step
        waited = float(self._trainer.input_seconds.numpy()) - self._waited
        first = self._started is None
        if first:  # tracing and compiling: not a rate to plan with
            self._started = (now, step)
        output["images_per_second"] = steps * self._images_per_step / seconds
        output["input_wait"] = waited / seconds
        for name in _DROPPED:
            self._dropped[name] += float(output[name])
        output |= self._dropped
        value = {k: float(np.mean(v)) for k, v in output.items()}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "first_loop": first} | value) + "\n")
        self._print(step, value, now, seconds if first else None)
        self._restart()

    def _terms(self, value: dict[str, float]) -> str:
        """`rpn 0.213+0.080 class 0.352`, of the terms that the network has."""
        names = list(self._trainer.task.loss_names)
        text = []
        if "rpn_class_loss" in names:
            text.append(f"rpn {value['rpn_class_loss']:.3f}+{value['rpn_box_loss']:.3f}")
            names = names[2:]
        return " ".join(text + [f"{n.removesuffix('_loss')} {value[n]:.3f}" for n in names])

    def _print(
        self, step: int, value: dict[str, float], now: float, first_loop: float | None
    ) -> None:
        line = (
            f"step {step:>{len(f'{self._train_steps:,}')},}/{self._train_steps:,}  "
            f"loss {value['training_loss']:.3f} = {self._terms(value)}  "
            f"lr {value['learning_rate']:.2g}  "
        )
        if first_loop is not None:
            line += f"first loop {first_loop:.0f} s (tracing the graph included)"
        else:
            begin, begin_step = self._started or (now, step)
            left = (self._train_steps - step) * (now - begin) / max(step - begin_step, 1)
            line += (
                f"{value['images_per_second']:.1f} img/s  input {value['input_wait']:.0%}  "
                f"eta {duration(left)}"
            )
        for name, (what, limit) in _DROPPED.items():
            if value[name]:
                line += f"  {value[name]:,.0f} {what} dropped ({limit})"
        print(line, file=self._stdout, flush=True)


class EvaluationLog:
    """An eval action: prints the main numbers, keeps all of them in a file, restarts the rates."""

    def __init__(self, trainer: Trainer, model_dir: str, training_log: TrainingLog | None):
        """Write into `model_dir`/metrics.jsonl."""
        self._trainer = trainer
        self._path = os.path.join(model_dir, "metrics.jsonl")
        self._training_log = training_log
        self._stdout = sys.stdout

    def __call__(self, output: dict[str, Any]) -> None:
        """Append one JSON line: the step and every number of the evaluation."""
        step = int(self._trainer.global_step.numpy())
        value = {k: float(np.mean(v)) for k, v in output.items()}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | value) + "\n")
        print(self._trainer.task.evaluation_table, file=self._stdout)
        print(
            f"evaluated at step {step:,}: "
            + "  ".join(f"{text} {value[key]:.3f}" for key, text in _MAIN.items() if key in value),
            file=self._stdout,
            flush=True,
        )
        if self._training_log:
            self._training_log.pause()


class ImageProgress:
    """Images done, their rate and the time left: a line every few seconds."""

    SECONDS_BETWEEN_LINES = 5.0

    def __init__(self, doing: str, total: int):
        """Start counting up to `total` images.

        Args:
          doing: what is done to them, the line's beginning.
          total: how many there are.
        """
        self._doing, self._total = doing, total
        self._start = self._shown = time.monotonic()
        # The controller's own lines go nowhere; these are to be seen.
        self._stdout = sys.__stdout__

    def show(self, done: int) -> None:
        """Print a line if the last one is some seconds old.

        Args:
          done: images so far.
        """
        now = time.monotonic()
        if done == 0 or now - self._shown < self.SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        rate = done / (now - self._start)
        print(
            f"{self._doing} {done:,}/{self._total:,}  {rate:.1f} img/s  "
            f"eta {duration((self._total - done) / rate)}",
            file=self._stdout,
            flush=True,
        )


def _discard_stdout() -> contextlib.redirect_stdout:
    return contextlib.redirect_stdout(io.StringIO())
