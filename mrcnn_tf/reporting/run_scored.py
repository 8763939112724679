"""Detections of a checkpoint on its validation records, as `train --mode=eval` gets them."""

import copy

import tensorflow as tf

from mrcnn_tf import checkpoints
from mrcnn_tf.evaluation.coco import CocoEvaluator
from mrcnn_tf.experiment import precision
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.training import devices, optimizers, preflight
from mrcnn_tf.training.loop import first_lines
from mrcnn_tf.training.task import MaskRCNNTask
from mrcnn_tf.training.trainer import Trainer


def evaluate(experiment: Experiment, checkpoint: str) -> CocoEvaluator:
    """Run the network over the validation records.

    Args:
      experiment: of the run.
      checkpoint: to score.

    Returns:
      The evaluator, all detections added.

    Raises:
      ValueError: records, annotations and checkpoint do not fit, a record is damaged, or this
        network finds no objects.
      FileNotFoundError: there are no records.
    """
    if experiment.task.model.system == "rpn":
        raise ValueError(
            "an RPN proposes boxes of no category, which has no report; train --mode=eval scores it"
        )
    experiment = copy.deepcopy(experiment)
    experiment.task.validation_loss = False
    experiment.task.allow_image_summary = False
    task = MaskRCNNTask(
        experiment.task,
        weight_decay=optimizers.decay_in_gradient(experiment.trainer),
        enable_xla=experiment.runtime.enable_xla,
        label_map=checkpoints.label_map_of(checkpoint),
    )
    experiment.runtime.enable_xla = False  # the task compiles what can be compiled
    experiment.trainer.best_checkpoint_eval_metric = ""  # may be a loss; none is chosen here
    for note in preflight.check_validation(task, experiment.trainer):
        print(f"  {note}")
    strategy = devices.strategy(experiment.runtime)
    with precision.of(experiment.runtime), strategy.scope():
        trainer = Trainer(
            experiment,
            task,
            images_per_step=0,  # no steps are taken
            training=False,
            evaluating=True,
        )
        checkpoints.load(trainer.evaluated_model, checkpoint)
        try:
            trainer.evaluate(tf.constant(experiment.trainer.validation_steps))
        except (ValueError, tf.errors.OpError) as error:
            text = first_lines(getattr(error, "message", str(error)))
            raise ValueError(f"{checkpoint} could not be scored: {text}") from error
    evaluator = task.evaluator
    assert isinstance(evaluator, CocoEvaluator)
    return evaluator
