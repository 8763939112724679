"""The learning-rate range test: how the loss answers to rates that grow from step to step.

The network starts as a run would, the rate grows exponentially, and the loss first falls, then
grows. Suggested is a tenth of the rate at which the smoothed loss is lowest: there it still falls
well, and there is room for the noise of single batches.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186), section
3.3; the end (four times the lowest loss) and the rule are fast.ai's. What differs: the curve is
smoothed to both sides, which does not move its minimum to higher rates as a running mean does.
"""

import csv
import io
import json
import math
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.console import whole_file
from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.experiment.experiment import Trainer as TrainerConfig
from mrcnn_tf.training import input_watch
from mrcnn_tf.training.trainer import Trainer

FOLDER = "find_lr"  # in the run's folder
LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 140  # 20 steps for each factor of ten

_SIGMA = 3.0  # steps of the Gaussian that smooths the curve
_MEMORY = 0.9  # of the running mean that says when to end
_DIVERGED = 4.0  # times the lowest running mean
_LEAST_FALL = 0.05  # part of the first loss; a curve that falls less says nothing
_TENTH = 0.1


class Found(NamedTuple):
    """A curve and what it suggests.

    Attributes:
      rates: float64 [n], in their order.
      losses: float64 [n], of the step at that rate.
      smoothed: float64 [n], of the finite ones around it; NaN where there are none.
      suggestion: a tenth of the rate of the lowest smoothed loss; None if the loss hardly fell.
      steepest: the rate at which the smoothed loss fell fastest, per factor of the rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    steepest: float | None


def rate_at(step: int) -> float:
    """Return the rate of a step, counted from 0."""
    return LOWEST * (HIGHEST / LOWEST) ** (step / STEPS)


def set_schedule(config: TrainerConfig) -> None:
    """Have an experiment's rate grow as `rate_at` says; without warm-up."""
    growth = {
        "initial_learning_rate": LOWEST,
        "decay_rate": HIGHEST / LOWEST,
        "decay_steps": STEPS,
    }
    config.optimizer_config.override(
        {
            "learning_rate": {"type": "exponential", "exponential": growth},
            "warmup": {"type": None},
        }
    )


def search(trainer: Trainer) -> Found:
    """Take steps until the loss diverges or the highest rate is reached.

    Args:
      trainer: at its beginning, with the schedule of `set_schedule`.

    Raises:
      Stopped: the process was told to stop.
      ValueError: a step failed for another reason than the rate.
    """
    losses: list[float] = []
    places: list[int] = []
    running = running_weight = 0.0
    lowest = math.inf
    progress = ProgressBar("trying learning rates", STEPS + 1, "steps")
    for step in range(STEPS + 1):
        # With float16, a step whose gradients overflow changes nothing, the rate neither.
        place = int(trainer.optimizer.iterations.numpy())
        trainer.stop.check(f" after {step} of {STEPS + 1} steps; nothing was written")
        try:
            output = trainer.train(tf.constant(1, tf.int32))
        except tf.errors.OpError as error:
            input_watch.raise_if_forgotten(error)
            if trainer.weights_are_finite():
                raise ValueError(f"step {step + 1} failed: {error.message}") from error
            break  # the weights burst in the step before
        places.append(place)
        losses.append(float(output["training_loss"]))
        progress.add()
        if not math.isfinite(losses[-1]):
            break
        running = _MEMORY * running + losses[-1]
        running_weight = _MEMORY * running_weight + 1.0
        lowest = min(lowest, running / running_weight)
        if running / running_weight > _DIVERGED * lowest:
            break
    progress.close()
    return judge(np.array(losses), np.array(places))


def judge(losses: np.ndarray, places: np.ndarray) -> Found:
    """Smooth a curve and find what it suggests.

    Args:
      losses: float64 [n]; may end with what is not finite.
      places: int [n], in the schedule of `rate_at`, not falling: where each was measured.
    """
    rates = np.array([rate_at(place) for place in places])
    smoothed = _smooth(losses, places)
    known = np.flatnonzero(np.isfinite(smoothed))
    if len(known) < 3:
        return Found(rates, losses, smoothed, None, None)
    best = int(known[smoothed[known].argmin()])
    if smoothed[best] > (1.0 - _LEAST_FALL) * smoothed[0]:
        return Found(rates, losses, smoothed, None, None)
    slopes = np.diff(smoothed[: best + 1])
    steepest = float(np.sqrt(rates[slopes.argmin()] * rates[slopes.argmin() + 1]))
    return Found(rates, losses, smoothed, float(_TENTH * rates[best]), steepest)


def _smooth(losses: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Mean of the finite losses around each, weighted by a Gaussian over their distance."""
    finite = np.isfinite(losses)
    weights = np.exp(-0.5 * ((steps[:, None] - steps[finite]) / _SIGMA) ** 2)
    smoothed = weights @ losses[finite] / np.maximum(weights.sum(axis=1), 1e-300)
    smoothed[~finite] = np.nan
    return smoothed


def describe(found: Found, images_per_step: int, reference_batch_size: int) -> str:
    """Say what was found, in words.

    Args:
      found: the curve.
      images_per_step: that it was measured with.
      reference_batch_size: that the experiment's rates are declared for.
    """
    reached = f"tried {found.rates[0]:.0e} to {found.rates[-1]:.2g}" if len(found.rates) else ""
    if found.suggestion is None:
        return (
            f"{reached}: the loss did not fall at any rate, so nothing can be suggested. Look at "
            "the plot, the data and the weights it starts from"
        )
    text = (
        f"{reached}, lowest smoothed loss at {found.suggestion / _TENTH:.2g}, steepest descent at "
        f"{found.steepest:.2g}\nsuggested learning rate: {found.suggestion:.2g} (a tenth of that "
        f"of the lowest loss), at {images_per_step} images a step"
    )
    factor = reference_batch_size / images_per_step
    if factor != 1.0:
        text += (
            f"; in the experiment's fields, declared for {reference_batch_size} images a step, "
            f"that is {found.suggestion * factor:.2g}"
        )
    return text


def write(found: Found, folder: str, images_per_step: int) -> None:
    """Write `losses.csv`, `find_lr.json` and `plot.png` into a folder.

    Args:
      found: the curve.
      folder: of any file system; made if absent.
      images_per_step: that it was measured with.
    """
    tf.io.gfile.makedirs(folder)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("step", "learning_rate", "loss", "smoothed_loss"))
    for step, row in enumerate(zip(found.rates, found.losses, found.smoothed, strict=True)):
        rows.writerow((step, *(f"{value:.6g}" for value in row)))
    whole_file.write(os.path.join(folder, "losses.csv"), table.getvalue())
    summary = {
        "suggestion": found.suggestion,
        "rule": "a tenth of the rate with the lowest smoothed loss",
        "steepest_descent": found.steepest,
        "images_per_step": images_per_step,
    }
    whole_file.write(os.path.join(folder, "find_lr.json"), json.dumps(summary, indent=2) + "\n")
    whole_file.write(os.path.join(folder, "plot.png"), plot(found, images_per_step))


def plot(found: Found, images_per_step: int) -> bytes:
    """Draw loss against rate; return a PNG."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot(
        xscale="log",
        xlabel=f"learning rate, at {images_per_step} images a step",
        ylabel="training loss",
    )
    axes.plot(found.rates, found.losses, ".", color="#86b6e0", label="each step")
    axes.plot(found.rates, found.smoothed, color="#0072b2", linewidth=2, label="smoothed")
    for rate, text, style in (
        (found.suggestion, "suggested", "-"),
        (found.steepest, "steepest descent", ":"),
    ):
        if rate is not None:
            axes.axvline(rate, color="#d55e00", linestyle=style, label=f"{text}: {rate:.2g}")
    known = found.smoothed[np.isfinite(found.smoothed)]
    if len(known):  # what diverged would flatten all that matters
        axes.set_ylim(0.0, 1.5 * max(known[0], np.median(known)))
    axes.grid(True, color="#e4e4e4")
    axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
