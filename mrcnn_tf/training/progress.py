"""What a user sees while the network trains; the same numbers go to TensorBoard.

One line per loop:

    step  400/1,600  loss 1.834 = rpn 0.213+0.080 class 0.352 box 0.480 mask 0.709  lr 0.02
      61.3 img/s  input 1%  eta 2m 14s
"""

import os
import time
from typing import Any

from mrcnn_tf.console.durations import duration
from mrcnn_tf.training import run_folder
from mrcnn_tf.training.trainer import Trainer, numbers

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


class TrainingLog:
    """Adds rates to a loop's numbers, prints them in one line, keeps them."""

    def __init__(self, trainer: Trainer, model_dir: str, train_steps: int, images_per_step: int):
        """Start counting.

        Args:
          trainer: its step and waiting time are read.
          model_dir: every loop's numbers are appended to `train.jsonl` in it.
          train_steps: where training ends.
          images_per_step: over all replicas.
        """
        self._trainer = trainer
        self._path = os.path.join(model_dir, run_folder.LOSSES)
        self._train_steps = train_steps
        self._images_per_step = images_per_step
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
        value = numbers(output)
        position = {"step": step, "images": step * self._images_per_step, "first_loop": first}
        run_folder.append_row(self._path, position | value)
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
        if not self._trainer.workers.is_chief:
            return
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
        print(line, flush=True)


class EvaluationLog:
    """Prints the main numbers of an evaluation and keeps all of them in a file."""

    def __init__(self, trainer: Trainer, model_dir: str, checkpoint: str | None = None):
        """Write into `model_dir`/metrics.jsonl.

        Args:
          trainer: its step is read.
          model_dir: folder of the run.
          checkpoint: what is evaluated, if it is not the run itself.
        """
        self._trainer = trainer
        self._path = os.path.join(model_dir, run_folder.METRICS)
        self._precision = trainer.config.runtime.mixed_precision_dtype
        self._of = {"checkpoint": checkpoint} if checkpoint else {}

    def __call__(self, value: dict[str, float]) -> None:
        """Append one JSON line: step, images seen, type of numbers, and all of the evaluation."""
        step = int(self._trainer.global_step.numpy())
        images = step * int(self._trainer.images_per_step.numpy())
        position = {"step": step, "images": images, "precision": self._precision}
        run_folder.append_row(self._path, position | self._of | value)
        if not self._trainer.workers.is_chief:
            return
        print(self._trainer.task.evaluation_table)
        print(
            f"evaluated at step {step:,}: "
            + "  ".join(f"{text} {value[key]:.3f}" for key, text in _MAIN.items() if key in value),
            flush=True,
        )
