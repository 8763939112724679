"""Train and evaluate: how a run starts, goes on and is scored.

Used as

    python -m mrcnn_tf.train --experiment=maskrcnn_r50_fpn
    python -m mrcnn_tf.train --experiment=NAME --mode=eval --checkpoint_path=runs/NAME/best
    python -m mrcnn_tf.train --experiment=NAME --mode=find_lr

The same command goes on where a run was stopped; `docs/runs.md` says what happens in which case. A
step is taken in `training/task.py`; `mrcnn_tf.export` makes a SavedModel of what comes out.
"""

import contextlib
import copy
import os
import traceback
from collections.abc import Iterable

from mrcnn_tf.console import command_line, threads, xla_cache

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf import checkpoints
from mrcnn_tf.experiment import experiment as experiment_lib
from mrcnn_tf.experiment import inputs, label_maps, loading, precision
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.staged import stages
from mrcnn_tf.training import (
    checkpoints_to_come,
    cluster,
    determinism,
    devices,
    divergence,
    find_lr,
    input_watch,
    optimizers,
    preflight,
    progress,
    same_weights,
)
from mrcnn_tf.training.early_stopping import EarlyStopping
from mrcnn_tf.training.loop import Loop, first_lines
from mrcnn_tf.training.run_folder import RunFolder, Standing
from mrcnn_tf.training.stopping import Stopped, StopRequest
from mrcnn_tf.training.task import MaskRCNNTask
from mrcnn_tf.training.trainer import Trainer
from mrcnn_tf.training.workers import WorkerGone, Workers

MODES = ("train_and_eval", "train", "train_and_post_eval", "eval", "continuous_eval", "find_lr")
_OF_ONE_MACHINE = ("continuous_eval", "find_lr")
_TRAINING = ("train_and_eval", "train", "train_and_post_eval")


def run(
    experiment: Experiment,
    mode: str,
    model_dir: str,
    checkpoint_path: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Train, evaluate or both; or try learning rates.

    Args:
      experiment: as `loading.load` returns it.
      mode: one of `MODES`.
      model_dir: where checkpoints, summaries and the experiment itself are written.
      checkpoint_path: in mode "eval", what to score; default the newest of `model_dir`.
      strategy: default: what `runtime` says, over all visible GPUs, and over the machines that
        TF_CONFIG or `runtime` names.

    Returns:
      The numbers of the last evaluation; empty if there was none. In mode "find_lr" the
      "learning_rate" that is suggested, if any is.

    Raises:
      ValueError: something does not fit. Nothing was written then.
      FileNotFoundError: likewise, something is missing.
      FloatingPointError: the loss or the weights went beyond all bounds.
      Stopped: the process, or another worker, was told to stop.
      WorkerGone: another worker has ended.
    """
    if checkpoint_path and mode != "eval":
        raise ValueError("--checkpoint_path: only --mode=eval scores a checkpoint of one's choice")
    experiment = copy.deepcopy(experiment)
    if experiment.runtime.deterministic:
        determinism.enable(experiment.runtime)
    if not strategy and (ended := _ended(experiment, mode, model_dir)) is not None:
        return ended
    strategy = strategy or devices.strategy(experiment.runtime)
    experiment.runtime = cluster.of_any_machine(experiment.runtime)
    workers = Workers(strategy)
    try:
        if workers.count > 1 and mode in _OF_ONE_MACHINE:
            raise ValueError(
                f"--mode={mode} runs on one machine: start it there, without the others"
            )
        preflight.check_workers(workers, experiment, mode)
        if not workers.is_chief:  # nobody would see them
            experiment.task.allow_image_summary = False
        with precision.of(experiment.runtime):
            numbers = _run(experiment, mode, model_dir, checkpoint_path, strategy)
        workers.leave()
    except Stopped:  # by all workers at the same place
        with contextlib.suppress(tf.errors.OpError, RuntimeError):
            workers.leave()
        raise
    except WorkerGone:  # known by now
        raise
    except Exception as error:  # of any kind: the others would wait, or take this one for gone
        workers.raise_if_gone(error)
        workers.report(error)
        raise
    except KeyboardInterrupt:  # before the first step; later it is a `Stopped`
        workers.report(RuntimeError("stopped by SIGINT"))
        raise
    return numbers


def _ended(experiment: Experiment, mode: str, model_dir: str) -> dict[str, float] | None:
    """Say of a run of several machines that it has ended, before the others are waited for.

    A worker that was killed while the others left comes back alone, and they do not. What does not
    fit here is said where all are together, by all of them.

    Returns:
      The numbers of the last evaluation, or {}; None if there is something to do.
    """
    machines = cluster.find(experiment.runtime)
    if not machines or not machines.others or mode not in _TRAINING:
        return None
    experiment, folder = copy.deepcopy(experiment), RunFolder(model_dir)
    experiment.runtime = cluster.of_any_machine(experiment.runtime)
    replicas = len(machines.hosts) * devices.replicas_of_a_machine()
    try:
        _refuse_several_runs(experiment)
        images_per_step = inputs.batch_size(experiment.task.train_data, replicas)
        loading.scale_to_batch(experiment, images_per_step)
        standing = folder.standing(images_per_step)
        if not standing:
            return None
        folder.check(experiment, label_maps.of_experiment(experiment.task))
        evaluations = folder.evaluations(standing.images)
    except (ValueError, OSError, tf.errors.OpError):
        return None
    end = _Plan(experiment.trainer, mode, standing, evaluations).end
    if not end:
        return None
    print(f"worker {machines.task_index}: {model_dir}: {end}")
    return evaluations[-1] if evaluations else {}


def _run(
    experiment: Experiment,
    mode: str,
    model_dir: str,
    checkpoint_path: str | None,
    strategy: tf.distribute.Strategy,
) -> dict[str, float]:
    if mode == "eval":
        path = Workers(strategy).from_chief(checkpoints.newest(checkpoint_path or model_dir))
        return _evaluate(experiment, strategy, model_dir, path, is_own=not checkpoint_path)
    if mode == "continuous_eval":
        return _evaluate_as_they_come(experiment, strategy, model_dir)
    if mode == "find_lr":
        return _find_lr(experiment, strategy, model_dir)
    return _train(experiment, strategy, mode, model_dir)


def _train(
    experiment: Experiment, strategy: tf.distribute.Strategy, mode: str, model_dir: str
) -> dict[str, float]:
    """Check everything, go on where the run stands, take the steps, evaluate in between."""
    _refuse_several_runs(experiment)
    workers = Workers(strategy)
    images_per_step = inputs.batch_size(experiment.task.train_data, strategy.num_replicas_in_sync)
    scaled = loading.scale_to_batch(experiment, images_per_step)
    task = _task(experiment, model_dir)
    folder, changed = RunFolder(model_dir), list[str]()
    standing = folder.standing(images_per_step)
    _print_notes(folder.newest.lines())
    if standing:
        changed = folder.check(experiment, task.label_map)
        changed = changed if workers.is_chief else []
    evaluations = folder.evaluations(standing.images) if standing else []
    # The chief's view of the folder counts: a network file system may show another machine less.
    standing, evaluations = workers.from_chief((standing, evaluations))
    standing = Standing(*standing) if standing else None
    plan = _Plan(experiment.trainer, mode, standing, evaluations)
    if plan.end:
        print(f"{model_dir}: {plan.end}")
        return evaluations[-1] if evaluations else {}
    print(_headline(experiment, task, mode, strategy, images_per_step, model_dir))
    _print_notes([scaled] if scaled else [])
    records = None
    if not standing or standing.step < experiment.trainer.train_steps:
        _print_notes(preflight.check_training(task))
        if workers.is_chief:
            records = preflight.index_of_records(experiment.task.train_data)
            changed += folder.check_records(records) if standing else []
    preflight.check_stages(experiment)
    if plan.interval:
        _print_notes(preflight.check_validation(task, experiment.trainer))
        preflight.check_best(task, experiment.trainer)
    trainer = _trainer_at(standing, experiment, task, strategy, images_per_step, plan)
    with strategy.scope():
        same_weights.check(workers, trainer.checkpoint)  # ends here if one of them has failed
    # All that can be known before the first step is known to be right, and nothing is written yet.
    write_dir = workers.folder_to_write(model_dir)
    if workers.is_chief:
        folder.begin(standing.images if standing else 0, bool(plan.interval))
        folder.write(experiment, task.label_map)
        if records is not None:
            folder.write_records(records)
    if plan.interval:
        trainer.keep_best(write_dir)
    training_log = progress.TrainingLog(
        trainer, write_dir, experiment.trainer.train_steps, images_per_step
    )
    loop = Loop(trainer, write_dir, training_log, progress.EvaluationLog(trainer, write_dir))
    if standing:
        print(f"going on {_standing_text(standing)}, from {standing.checkpoint}")
        _print_notes(f"other than before: {line}" for line in changed)
    if not standing or standing.step == checkpoints.position(standing.checkpoint).step:
        loop.begin(bool(plan.interval), plan.evaluated)
    answer = "stopping after this loop of steps; again to stop at once"
    with strategy.scope(), trainer.stop.listen(answer):
        return _to_the_end(loop, experiment.trainer, plan)


class _Plan:
    """What is left to do of a run.

    Attributes:
      interval: steps between evaluations; 0 for none.
      evaluated: whether the checkpoint that the run goes on from has been.
      early_stopping: knows the evaluations so far.
      end: why there is nothing to do; "" if there is.
    """

    def __init__(
        self,
        config: experiment_lib.Trainer,
        mode: str,
        standing: Standing | None,
        evaluations: list[dict[str, float]],
    ):
        in_between = mode == "train_and_eval"
        self.interval = 0
        if "eval" in mode:
            self.interval = config.validation_interval if in_between else config.train_steps
        self.evaluated = bool(
            standing and evaluations and evaluations[-1]["images"] == standing.images
        )
        self.early_stopping = EarlyStopping(config, evaluations)
        self.end = ""
        if not standing:
            return
        if in_between and self.early_stopping.is_due:
            self.end = (
                f"stopped early, {_standing_text(standing)}: {self.early_stopping.reason()}. "
                "Nothing to do; with a larger trainer.patience, or 0, it goes on"
            )
        elif standing.step >= config.train_steps and (self.evaluated or not self.interval):
            self.end = f"finished, {_standing_text(standing)}. Nothing to do"


def _trainer_at(
    standing: Standing | None,
    experiment: Experiment,
    task: MaskRCNNTask,
    strategy: tf.distribute.Strategy,
    images_per_step: int,
    plan: "_Plan | None" = None,
) -> Trainer:
    """Make what takes the steps, where the run stands; without a standing at its beginning."""
    with strategy.scope(), input_watch.of(experiment.task.train_data):
        task.first_divergence = divergence.FirstDivergence(
            task.loss_names,
            images_per_step // strategy.num_replicas_in_sync,
            experiment.trainer.loss_upper_bound,
        )
        trainer = _trainer(
            experiment,
            task,
            images_per_step=images_per_step,
            training=True,
            evaluating=bool(plan and plan.interval),
            first_step=standing.step if standing else 0,
        )
        if standing:
            trainer.restore(standing.checkpoint, standing.step, images_per_step)
        else:
            trainer.initialize()
    return trainer


def _to_the_end(loop: Loop, config: experiment_lib.Trainer, plan: _Plan) -> dict[str, float]:
    """Take all steps that are left, with an evaluation every so many and after the last.

    Each evaluation has a checkpoint before it, so that what is killed during one makes it up.
    """
    numbers: dict[str, float] = {}

    def evaluate() -> bool:
        """Score; whether the run is over."""
        nonlocal numbers
        numbers = loop.evaluate()
        plan.early_stopping.add(loop.step, numbers)
        is_over = plan.early_stopping.is_due
        if is_over and loop.step < config.train_steps:
            print(f"stopping early, at step {loop.step:,}: {plan.early_stopping.reason()}")
        return is_over

    due = plan.interval and loop.step and loop.step % plan.interval == 0
    missing = plan.interval and not plan.evaluated and (due or loop.step >= config.train_steps)
    if missing and evaluate():
        return numbers
    if loop.step < config.train_steps:
        count = min(config.steps_per_loop, config.train_steps - loop.step)
        print(f"tracing the training step and taking the first {count} steps ...", flush=True)
    while loop.step < config.train_steps:
        stop = config.train_steps
        if plan.interval:
            stop = min(stop, (loop.step // plan.interval + 1) * plan.interval)
        loop.train_until(stop)
        if plan.interval and evaluate():
            break
    return numbers


def _find_lr(
    experiment: Experiment, strategy: tf.distribute.Strategy, model_dir: str
) -> dict[str, float]:
    """Try learning rates on the network as a run would begin; nothing of the run is touched."""
    _refuse_several_runs(experiment)
    images_per_step = inputs.batch_size(experiment.task.train_data, strategy.num_replicas_in_sync)
    find_lr.set_schedule(experiment.trainer)
    task = _task(experiment, model_dir)
    print(_headline(experiment, task, "find_lr", strategy, images_per_step, model_dir))
    _print_notes(preflight.check_training(task))
    trainer = _trainer_at(None, experiment, task, strategy, images_per_step)
    listening = trainer.stop.listen("stopping after this step")
    with strategy.scope(), listening, input_watch.of(experiment.task.train_data):
        found = find_lr.search(trainer)
    folder = os.path.join(model_dir, find_lr.FOLDER)
    find_lr.write(found, folder, images_per_step)
    print(find_lr.describe(found, images_per_step, experiment.trainer.reference_batch_size))
    print(f"plot and numbers: {folder}")
    return {} if found.suggestion is None else {"learning_rate": found.suggestion}


def _refuse_several_runs(experiment: Experiment) -> None:
    if experiment.stages.schedule != "joint":
        raise ValueError(
            f"stages.schedule: {experiment.stages.schedule!r} is not one run but several. Start "
            f"all of them with\n  python -m mrcnn_tf.train_stages "
            f"--experiment={experiment.task.name}"
        )


def _headline(
    experiment: Experiment,
    task: MaskRCNNTask,
    mode: str,
    strategy: tf.distribute.Strategy,
    images_per_step: int,
    model_dir: str,
) -> str:
    return (
        f"{experiment.task.name}: {mode} on {devices.describe(strategy)} in "
        f"{experiment.runtime.mixed_precision_dtype}, {images_per_step} images a step, "
        f"{task.label_map.num_classes - 1} categories, into {model_dir}"
    )


def _evaluate(
    experiment: Experiment,
    strategy: tf.distribute.Strategy,
    model_dir: str,
    checkpoint: str,
    is_own: bool,
) -> dict[str, float]:
    """Score a checkpoint. The weights that its training started from are not needed."""
    task = _task(experiment, model_dir, of=checkpoint)
    where_in = f"{devices.describe(strategy)} in {experiment.runtime.mixed_precision_dtype}"
    print(f"{experiment.task.name}: eval of {checkpoint} on {where_in}")
    _print_notes(preflight.check_validation(task, experiment.trainer))
    where = checkpoints.position(checkpoint)
    with strategy.scope():
        trainer = _trainer(experiment, task, images_per_step=where.images_per_step or 0)
        checkpoints.load(trainer.evaluated_model, checkpoint)
        trainer.global_step.assign(where.step)
        same_weights.check(trainer.workers, trainer.checkpoint)
    write_dir = trainer.workers.folder_to_write(model_dir)
    tf.io.gfile.makedirs(write_dir)
    log = progress.EvaluationLog(trainer, write_dir, None if is_own else checkpoint)
    with strategy.scope(), trainer.stop.listen("stopping after this batch"):
        return Loop(trainer, write_dir, None, log).evaluate()


def _evaluate_as_they_come(
    experiment: Experiment, strategy: tf.distribute.Strategy, model_dir: str
) -> dict[str, float]:
    """Score each new checkpoint of a run that another process trains, and keep the best."""
    config, folder = experiment.trainer, RunFolder(model_dir)
    # The other process may have another batch; both schedules have as many images.
    all_images = config.train_steps * config.reference_batch_size
    numbers: dict[str, float] = {}
    loop: Loop | None = None
    stop, timeout = StopRequest(), config.continuous_eval_timeout
    with stop.listen("stopping, at the end of a batch if one is being scored"):
        for path in checkpoints_to_come.each(model_dir, timeout, stop):
            try:
                where = checkpoints.position(path)
                batch = where.images_per_step or config.reference_batch_size
                if loop is None:  # the label map is there now
                    task = _task(experiment, model_dir, of=path)
                    _print_notes(preflight.check_validation(task, config))
                    preflight.check_best(task, config)
                    with strategy.scope():
                        trainer = _trainer(experiment, task, images_per_step=batch)
                    trainer.stop = stop
                    trainer.keep_best(model_dir)
                    log = progress.EvaluationLog(trainer, model_dir)
                    loop = Loop(trainer, model_dir, None, log)
                is_new = folder.evaluation_at(where.step * batch) is None
                if is_new:
                    with strategy.scope():
                        trainer.restore(path, where.step, batch)
            except ValueError as error:
                if not checkpoints.damage(path):
                    raise
                print(f"{path} was removed before it was read: {error}", flush=True)
                continue
            if is_new:
                with strategy.scope():
                    numbers = loop.evaluate()
            if (where.step + 0.5) * batch >= all_images:
                return numbers
    print(f"no new checkpoint in {model_dir} for {timeout:,} s")
    return numbers


def _task(experiment: Experiment, model_dir: str, of: str = "") -> MaskRCNNTask:
    """Make the task, with the classes of a checkpoint `of` which, else with those of the records.

    What is only scored knows its own classes, maybe more than occur in the records.
    """
    return MaskRCNNTask(
        experiment.task,
        weight_decay=optimizers.decay_in_gradient(experiment.trainer),
        enable_xla=experiment.runtime.enable_xla,
        logging_dir=model_dir,
        label_map=checkpoints.label_map_of(of) if of else None,
    )


def _trainer(
    experiment: Experiment,
    task: MaskRCNNTask,
    *,
    images_per_step: int,
    training: bool = False,
    evaluating: bool = True,
    first_step: int = 0,
) -> Trainer:
    experiment = copy.deepcopy(experiment)
    experiment.runtime.enable_xla = False  # the task compiles what can be compiled
    if first_step >= experiment.trainer.train_steps:  # an evaluation is left, or nothing
        experiment.task.train_data.enable_tf_data_service = False
    return Trainer(
        experiment,
        task,
        images_per_step=images_per_step,
        training=training,
        evaluating=evaluating,
        first_step=first_step,
    )


def _standing_text(standing: Standing) -> str:
    return f"at step {standing.step:,}, after {standing.images:,} images"


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"  {note}")


# Flags of Model Garden's commands that have no meaning here: {name: why}.
_REFUSED_FLAGS = {
    "tpu": "networks run on GPUs and CPUs here",
    "tpu_platform": "networks run on GPUs and CPUs here",
    "gin_file": "experiments are YAML files; give --config_file",
    "gin_params": "give --params_override",
    "tf_data_service": "set task.train_data.enable_tf_data_service and tf_data_service_address",
    "tfhub_handle": "python -m mrcnn_tf.export writes a SavedModel",
    "tflex_output_uri": "python -m mrcnn_tf.export writes a SavedModel",
}


def define_flags() -> None:
    """Define Model Garden's flags as far as they are read, and what is said of the others."""
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.")
    flags.DEFINE_enum("mode", MODES[0], MODES, "What to do.")
    flags.DEFINE_string("model_dir", None, "Folder of the run; default runs/EXPERIMENT.")
    flags.DEFINE_multi_string("config_file", [], "YAML laid over the experiment, in order.")
    flags.DEFINE_string("params_override", "", "a.b=value,c.d=value, or YAML; laid over all.")
    flags.DEFINE_string(
        "checkpoint_path", None, "With --mode=eval: checkpoint to score; default the run's newest."
    )
    flags.DEFINE_bool(
        "verify_records", False, "Read all records first and hold them against their checksums."
    )
    flags.DEFINE_bool(
        "deterministic",
        False,
        "The same command gives the same bits, with several threads too (runtime.deterministic).",
    )
    precision.define_flag()
    threads.define_flag()
    for name, why in _REFUSED_FLAGS.items():
        flags.DEFINE_string(name, None, f"Refused: {why}.")


def main(argv: list[str]) -> None:
    """Parse the flags and run."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    threads.use(values.threads)
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")  # evaluation restores no optimizer, and would be told so
    if not values.experiment:
        known = "\n  ".join(loading.names())
        raise app.UsageError(f"--experiment=NAME is needed. Known experiments:\n  {known}")
    for name, why in _REFUSED_FLAGS.items():
        if values[name].value is not None:
            raise SystemExit(f"error: --{name} would not be read: {why}")
    try:
        override = precision.laid_over(values.params_override, values.mixed_precision)
        given = values.config_file, override
        experiment = loading.load(values.experiment, *given)
        model_dir = values.model_dir or os.path.join("runs", experiment.task.name)
        if values.mode == "eval":
            experiment, model_dir = stages.of_run(experiment, model_dir, *given)
        if values.verify_records:
            for data in (experiment.task.train_data, experiment.task.validation_data):
                data.verify_records = True
        experiment.runtime.deterministic |= values.deterministic
        run(experiment, values.mode, model_dir, values.checkpoint_path)
    except (ValueError, OSError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error
    except tf.errors.OpError as error:  # a disk that is full, a folder that cannot be written
        raise SystemExit(f"error: {first_lines(error.message)}") from error
    except (Stopped, WorkerGone) as ended:
        print(ended, flush=True)
        raise SystemExit(ended.exit_code) from ended
    except KeyboardInterrupt as interrupt:
        print("stopped by SIGINT", flush=True)
        raise SystemExit(130) from interrupt
    except Exception as error:  # nobody has thought of it: where it comes from is worth knowing
        traceback.print_exc()
        raise SystemExit(f"error: {type(error).__name__}: {error}") from error


def run_main() -> None:
    """Run the command that was typed."""
    xla_cache.use()
    command_line.run(__doc__, define_flags, main)


if __name__ == "__main__":
    run_main()
