"""Train RPN and detector in several runs: separate, or alternating until they share features.

Used as

    python -m mrcnn_tf.train_stages --experiment=maskrcnn_r50_fpn_separate_rpn

Every stage is a command that a user could type (`staged/stages.py` says which), and is printed
before it runs. A finished stage is not run again; one that was stopped goes on where it was,
because the same command does.
"""

import os
import pathlib

from mrcnn_tf.console import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

from absl import app, flags, logging

from mrcnn_tf.console import running
from mrcnn_tf.console.durations import duration
from mrcnn_tf.experiment import precision
from mrcnn_tf.staged import stages
from mrcnn_tf.training import cluster


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("experiment", None, "Experiment, or a YAML file.", required=True)
    flags.DEFINE_string("model_dir", None, "Folder of all stages; default runs/EXPERIMENT.")
    flags.DEFINE_multi_string("config_file", [], "YAML laid over the detector's and the RPN's.")
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train; goes to both.")
    precision.define_flag()


def main(argv: list[str]) -> None:
    """Parse the flags and run."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    values = flags.FLAGS
    name = pathlib.Path(values.experiment).stem
    model_dir = values.model_dir or os.path.join("runs", name)
    try:
        override = precision.laid_over(values.params_override, values.mixed_precision)
        schedule = stages.Schedule(values.experiment, model_dir, values.config_file, override)
        cluster.check_alone(schedule.detector.runtime, "train_stages")
        seconds = running.run(schedule.stages, model_dir)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"\nall stages took {duration(sum(seconds.values()))}; what came out: {schedule.result}")
    result = running.Stage(
        "export",
        (
            "-m",
            "mrcnn_tf.export",
            f"--experiment={schedule.result}/params.yaml",
            f"--checkpoint_path={schedule.result}",
            f"--export_dir={model_dir}/saved_model",
        ),
    )
    print(f"To serve it:\n  {result.command()}")


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
