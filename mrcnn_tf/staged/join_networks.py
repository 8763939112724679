r"""Join an RPN and a detector that were trained on the same features into one network.

Used by `mrcnn_tf.train_stages`, whose alternating schedule ends with it, as

    python -m mrcnn_tf.staged.join_networks --experiment=maskrcnn_r50_fpn_alternating \
      --rpn_checkpoint=runs/X/step3_rpn --detector_checkpoint=runs/X/step4_detector \
      --model_dir=runs/X

What comes out is a checkpoint of the joint network, with which `train --mode=eval`, `export` and
`Detector` work as with any other.
"""

import os

from mrcnn_tf.console import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
command_line.require("train")  # before its packages are

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from mrcnn_tf import checkpoints
from mrcnn_tf.console import whole_file
from mrcnn_tf.data import schema
from mrcnn_tf.experiment import label_maps, loading
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.modeling import build

_SHARED = ("model/backbone/", "model/pyramid/")  # as checkpoints name variables


def join(
    experiment: Experiment, rpn_checkpoint: str, detector_checkpoint: str, model_dir: str
) -> str:
    """Write the checkpoint of the joint network, its label map and its experiment.

    Args:
      experiment: of the joint network.
      rpn_checkpoint: checkpoint or run's folder; the RPN is taken from it.
      detector_checkpoint: likewise; backbone, pyramid and heads are taken from it.
      model_dir: folder to write into.

    Returns:
      The checkpoint's path.

    Raises:
      ValueError: a checkpoint does not fit, or the two were not trained on the same features.
    """
    rpn_path, detector_path = map(checkpoints.newest, (rpn_checkpoint, detector_checkpoint))
    check_same_features(rpn_path, detector_path)
    label_map = label_maps.of_experiment(experiment.task)
    model = build.build_model(experiment.task.model, label_map.num_classes)
    checkpoints.load(model, detector_path, ("backbone", "pyramid", "roi_heads"))
    checkpoints.load(model, rpn_path, ("rpn",))
    step = tf.Variable(checkpoints.position(detector_path).step, dtype=tf.int64)
    tf.io.gfile.makedirs(model_dir)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model, global_step=step),
        model_dir,
        max_to_keep=1,
        checkpoint_name="ckpt",
    )
    loading.save(experiment, os.path.join(model_dir, "params.yaml"))
    whole_file.write(os.path.join(model_dir, schema.LABEL_MAP_FILE), label_map.to_json())
    return manager.save(checkpoint_number=step)


def check_same_features(rpn_path: str, detector_path: str) -> None:
    """Refuse two networks unless backbone and pyramid have the same values, bit for bit.

    Stage 5 of a C4 backbone is a part of the detector's heads; an RPN has none, so only what the
    RPN has is compared.

    Raises:
      ValueError: with the first variable that differs.
    """
    rpn, detector = checkpoints.reader(rpn_path), checkpoints.reader(detector_path)
    has = detector.get_variable_to_shape_map()
    for key in sorted(rpn.get_variable_to_shape_map()):
        if not key.startswith(_SHARED) or not key.endswith(checkpoints.VALUE):
            continue
        if key not in has or not np.array_equal(rpn.get_tensor(key), detector.get_tensor(key)):
            raise ValueError(
                f"{key.removesuffix(checkpoints.VALUE)} differs between {rpn_path} and "
                f"{detector_path}: their features are not the same, so that one network cannot "
                "have both RPN and heads"
            )


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("experiment", None, "Of the joint network.", required=True)
    flags.DEFINE_string("rpn_checkpoint", None, "Checkpoint, or a run's folder.", required=True)
    flags.DEFINE_string("detector_checkpoint", None, "Likewise.", required=True)
    flags.DEFINE_string("model_dir", None, "Where to write.", required=True)
    flags.DEFINE_multi_string("config_file", [], "As for mrcnn_tf.train.")
    flags.DEFINE_string("params_override", "", "As for mrcnn_tf.train.")


def main(argv: list[str]) -> None:
    """Parse the flags and join."""
    if len(argv) > 1:
        raise app.UsageError(f"not a flag: {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    values = flags.FLAGS
    try:
        experiment = loading.load(values.experiment, values.config_file, values.params_override)
        path = join(experiment, values.rpn_checkpoint, values.detector_checkpoint, values.model_dir)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{path}: RPN and detector on the same features, bit for bit")


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
