"""Train and evaluate: flags in, one call out.

Used as

    python -m mrcnn_tf.train --experiment=maskrcnn_r50_fpn
    python -m mrcnn_tf.train --experiment=NAME --mode=eval --checkpoint_path=runs/NAME/best/ckpt-1
"""

import os

from mrcnn_tf import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import orbit
import tensorflow as tf
from absl import app, flags, logging
from official.common import distribute_utils
from official.common import flags as garden_flags
from official.core import config_definitions as cfg
from official.core import train_lib, train_utils
from official.modeling import performance

from mrcnn_tf.experiment import loading
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.staged import stages
from mrcnn_tf.training import divergence, progress
from mrcnn_tf.training import task as task_lib

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define Model Garden's flags, with defaults that make `--experiment` enough, and ours."""
    garden_flags.define_flags()
    FLAGS["mode"].default = FLAGS["mode"].value = "train_and_eval"
    FLAGS["model_dir"].help = "Folder of the run; default runs/EXPERIMENT."
    flags.DEFINE_string(
        "checkpoint_path", None, "With --mode=eval: checkpoint to score; default the run's newest."
    )


def run(
    experiment: Experiment,
    mode: str,
    model_dir: str,
    checkpoint_path: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Train, evaluate or both.

    Args:
      experiment: as `loading.load` returns it.
      mode: "train", "train_and_eval", "eval", "continuous_eval" or "train_and_post_eval".
      model_dir: where checkpoints, summaries and the experiment itself are written.
      checkpoint_path: in mode "eval", what to score.
      strategy: default: what `runtime` says, over all visible GPUs.

    Returns:
      The numbers of the last evaluation; empty if there was none.

    Raises:
      ValueError: the experiment trains in several runs, see `stages.py`.
      FloatingPointError: the loss is not finite.
    """
    if "train" in mode and experiment.stages.schedule != "joint":
        raise ValueError(
            f"stages.schedule: {experiment.stages.schedule!r} is not one run but several. Start "
            f"all of them with\n  python -m mrcnn_tf.train_stages "
            f"--experiment={experiment.task.name}"
        )
    runtime = experiment.runtime
    strategy = strategy or _strategy(runtime)
    if runtime.mixed_precision_dtype:
        performance.set_mixed_precision_policy(runtime.mixed_precision_dtype)
    images_per_step = task_lib.batch_size(experiment.task.train_data, strategy.num_replicas_in_sync)
    for field in ("train_data", "validation_data"):
        data = getattr(experiment.task, field)
        data.global_batch_size = task_lib.batch_size(data, strategy.num_replicas_in_sync)
    scaled = loading.scale_to_batch(experiment, images_per_step)
    if scaled and "train" in mode:
        print(scaled)
    task = task_lib.MaskRCNNTask(
        experiment.task,
        weight_decay=experiment.trainer.weight_decay,
        enable_xla=runtime.enable_xla,
        logging_dir=model_dir,
        # What is only scored knows its own classes, maybe more than occur in the records.
        label_map=None if "train" in mode else task_lib.label_map_of(checkpoint_path or model_dir),
    )
    print(
        f"{experiment.task.name}: {mode} on {strategy.num_replicas_in_sync} "
        f"{'GPU' if runtime.num_gpus else 'CPU'}{'s' if runtime.num_gpus > 1 else ''}, "
        f"{images_per_step} images a step, {task.label_map.num_classes - 1} categories, "
        f"into {model_dir}"
    )
    tf.io.gfile.makedirs(model_dir)
    if "train" in mode:
        loading.save(experiment, os.path.join(model_dir, "params.yaml"))
        with tf.io.gfile.GFile(os.path.join(model_dir, "label_map.json"), "w") as file:
            file.write(task.label_map.to_json())
    # The task compiles what can be compiled. Left on, Model Garden's trainer would on GPUs compile
    # the whole step, whose update several replicas cannot do inside a compiled function.
    runtime.enable_xla = False
    return _run(experiment, task, mode, model_dir, checkpoint_path, strategy, images_per_step)


def _run(
    experiment: Experiment,
    task: task_lib.MaskRCNNTask,
    mode: str,
    model_dir: str,
    checkpoint_path: str | None,
    strategy: tf.distribute.Strategy,
    images_per_step: int,
) -> dict[str, float]:
    """Hand everything to Model Garden's runner."""
    training, evaluating = "train" in mode, "eval" in mode
    with strategy.scope():
        model = task.build_model()
        if training:
            task.first_non_finite = divergence.FirstNonFinite(
                task.loss_names, images_per_step // strategy.num_replicas_in_sync
            )
        trainer = progress.Trainer(
            experiment,
            task,
            model=model,
            optimizer=train_utils.create_optimizer(task, experiment),
            train=training,
            evaluate=evaluating,
            checkpoint_exporter=train_utils.maybe_create_best_ckpt_exporter(experiment, model_dir)
            if training and evaluating
            else None,
        )
    training_log = None
    if training:
        training_log = progress.TrainingLog(
            trainer, model_dir, experiment.trainer.train_steps, images_per_step
        )
    results: dict[str, float] = {}
    evaluation_log = progress.EvaluationLog(trainer, model_dir, training_log)
    runner = train_lib.OrbitExperimentRunner(
        strategy,
        task,
        mode,
        experiment,
        model_dir,
        trainer=trainer,
        controller_cls=progress.QuietController,
        train_actions=[training_log] if training_log else [],
        eval_actions=[evaluation_log, lambda output: results.update(_floats(output))],
    )
    if mode == "eval":
        if checkpoint_path:
            task_lib.load_checkpoint(model, checkpoint_path)
        elif not tf.train.latest_checkpoint(model_dir):
            raise ValueError(f"{model_dir} has no checkpoint to evaluate; give --checkpoint_path")
        runner.controller.evaluate(steps=experiment.trainer.validation_steps)
    else:
        step = int(trainer.global_step.numpy())
        if step:
            print(f"resuming at step {step:,} from {tf.train.latest_checkpoint(model_dir)}")
        if training and step:
            if experiment.task.train_data.exact_resume:
                print(f"reading past the {step * images_per_step:,} images that it has seen")
            trainer.resume_inputs()
        if training:
            loop = experiment.trainer.steps_per_loop
            print(f"tracing the training step and taking the first {loop} steps ...", flush=True)
        _run_to_the_end(runner, task, strategy)
    return results


def _run_to_the_end(
    runner: train_lib.OrbitExperimentRunner,
    task: task_lib.MaskRCNNTask,
    strategy: tf.distribute.Strategy,
) -> None:
    """Run; where Model Garden gives up because of the loss, say what it was that went wrong.

    Raises:
      FloatingPointError: the loss was not finite, more than `trainer.recovery_max_trials` times.
    """
    try:
        runner.run()
    except RuntimeError as error:
        found = task.first_non_finite.describe(strategy) if task.first_non_finite else ""
        if not found:
            raise
        raise FloatingPointError(
            f"the loss was {found}. Nothing of this was saved: the last checkpoint is from before. "
            "A learning rate too high for the data is the usual cause"
        ) from error


def _floats(output: orbit.runner.Output) -> dict[str, float]:
    return {key: float(value) for key, value in output.items()}


def _strategy(runtime: cfg.RuntimeConfig) -> tf.distribute.Strategy:
    """Mirror over all visible GPUs; `runtime.num_gpus` (0 by default) is set to their number."""
    runtime.num_gpus = runtime.num_gpus or len(tf.config.list_physical_devices("GPU"))
    return distribute_utils.get_distribution_strategy(
        distribution_strategy=runtime.distribution_strategy,
        all_reduce_alg=runtime.all_reduce_alg,
        num_gpus=runtime.num_gpus,
        num_packs=runtime.num_packs,
        tpu_address=runtime.tpu,
    )


def main(argv: list[str]) -> None:
    """Parse the flags and run."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")  # evaluation restores no optimizer, and would be told so
    if not FLAGS.experiment:
        known = "\n  ".join(loading.names())
        raise app.UsageError(f"--experiment=NAME is needed. Known experiments:\n  {known}")
    try:
        given = FLAGS.config_file or (), FLAGS.params_override or ""
        experiment = loading.load(FLAGS.experiment, *given)
        model_dir = FLAGS.model_dir or os.path.join("runs", experiment.task.name)
        if FLAGS.mode == "eval":
            experiment, model_dir = stages.of_run(experiment, model_dir, *given)
        run(experiment, FLAGS.mode, model_dir, FLAGS.checkpoint_path)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, define_flags, main)


if __name__ == "__main__":
    run_main()
