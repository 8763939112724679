"""What an experiment may say of its run: task, schedule, runtime, stages; and the paper's schedule.

Trainer, runtime and optimizer are Model Garden's, whose trainer reads them. Network and data are in
`fields.py`.
"""

import dataclasses

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import optimization

from mrcnn_tf.experiment.fields import MODULES, TTA, Data, Fields, Model


@dataclasses.dataclass
class Task(Fields):
    """The task: model, data and what to score against.

    Attributes:
      name: the experiment's name.
      init_checkpoint: a checkpoint, or a run's folder, whose weights training starts from.
      init_checkpoint_modules: what of it is taken: "" what fits, to fine-tune on other classes
        (`weights/fine_tune.py`, which prints what does not fit); "all", or some of `MODULES` with
        commas between, whole and nothing else; the others start as without it.
      tta: test-time augmentation; of evaluation, and of exports for who asks for it.
      annotation_file: COCO JSON to score against; empty scores against the validation records.
      seed: of the weights and of anchor and RoI sampling.
      cocoeval: who computes COCO's numbers from the detections: "hotcoco", compiled, or
        "pycocotools", the reference, in Python. The numbers are the same to the last bit.
      boundary_ap: score masks by boundary IoU too (`evaluation/boundary.py`), which pycocotools
        does: minutes for all of COCO's validation set.
      validation_loss: have an evaluation give the losses too, on sampled anchors and RoIs as in
        training; they share the backbone's and the pyramid's features with the detections.
      allow_image_summary: draw for TensorBoard: the first images of each evaluation, and some of
        training as they are augmented.
    """

    name: str = ""
    init_checkpoint: str = ""
    init_checkpoint_modules: str = ""
    model: Model = dataclasses.field(default_factory=Model)
    train_data: Data = dataclasses.field(
        default_factory=lambda: Data(is_training=True, flip_probability=0.5)
    )
    validation_data: Data = dataclasses.field(default_factory=lambda: Data(is_training=False))
    tta: TTA = dataclasses.field(default_factory=TTA)
    annotation_file: str = ""
    seed: int = 0
    cocoeval: str = "hotcoco"
    boundary_ap: bool = False
    validation_loss: bool = True
    allow_image_summary: bool = True

    # Model Garden's trainer looks whether it is set; not a field.
    differential_privacy_config = None

    def loaded_parts(self) -> tuple[str, ...]:
        """Parts of the network that start from `init_checkpoint`; none without one."""
        if not self.init_checkpoint:
            return ()
        names = tuple(name.strip() for name in self.init_checkpoint_modules.split(","))
        return MODULES if names in (("all",), ("",)) else names


@dataclasses.dataclass
class Trainer(cfg.TrainerConfig):
    """The schedule (section 3.1, "Training"), declared for `reference_batch_size` images a step.

    Attributes:
      reference_batch_size: what learning rate, steps and intervals are meant for: 8 GPUs x 2. If
        the real global batch is another, the rate is multiplied and steps are divided by their
        ratio (linear rule, Goyal et al. 2017), and both are printed.
      weight_decay: added to the gradient of every trainable kernel, not to norms.
      bias_weight_decay: the same for biases: none, as Detectron (`BIAS_WEIGHT_DECAY: False`), of
        which the paper says only that its weight decay is 0.0001. Detectron2 and torchvision treat
        biases as kernels.
      bias_learning_rate_factor: biases learn at so many times the rate: twice, as Detectron
        (`BIAS_DOUBLE_LR: True`, Caffe's custom); 1 in Detectron2 and torchvision. Only SGD has a
        use for it: Adam's step does not depend on the size of the gradient.
      ema_decay: scored, exported and kept as `model` in checkpoints are moving averages of the
        weights: each step they keep this part of themselves, 0.999 for one; 0 for the weights
        themselves. Another batch takes it to the power of the batches' ratio.
      patience: end the run after so many evaluations in a row of which none was better by
        `best_checkpoint_eval_metric` than the best before; 0 never does. The best checkpoint is
        kept either way. Only in mode train_and_eval.
      recovery_max_trials: how often a run goes back to its last checkpoint after a loss that is
        not finite; then it ends with an error that names step, term and images.
    """

    reference_batch_size: int = 16
    weight_decay: float = 1e-4
    bias_weight_decay: float = 0.0
    bias_learning_rate_factor: float = 2.0
    train_steps: int = 160_000
    steps_per_loop: int = 20
    summary_interval: int = 20
    checkpoint_interval: int = 5_000
    validation_interval: int = 20_000
    ema_decay: float = 0.0
    recovery_max_trials: int = 0
    best_checkpoint_export_subdir: str = "best"
    best_checkpoint_eval_metric: str = "mask_ap"
    patience: int = 0


@dataclasses.dataclass
class Runtime(cfg.RuntimeConfig):
    """The machine.

    Attributes:
      deterministic: add up in one order, so that two runs of the same command on the same machine,
        stopped and continued or not, end with the same bits.
    """

    deterministic: bool = False


@dataclasses.dataclass
class Stages(Fields):
    """Training in several runs, which `mrcnn_tf.train_stages` makes one after the other.

    Attributes:
      schedule: "joint", one run of RPN and detector together; "separate", an RPN, its proposals, a
        detector on them, nothing shared (section 3.1); "alternating", the four steps after which
        both share their features (Faster R-CNN section 3.2).
      rpn_experiment: trains the RPN of the other two. In the params.yaml of a detector that was
        trained apart, that of the RPN whose proposals it has seen.
      rpn_checkpoint: the checkpoint, or run's folder, of that RPN: both become one SavedModel.
    """

    schedule: str = "joint"
    rpn_experiment: str = ""
    rpn_checkpoint: str = ""


@dataclasses.dataclass
class Experiment(Fields):
    """Everything: `task`, `trainer`, `runtime`, `stages`."""

    task: Task = dataclasses.field(default_factory=Task)
    trainer: Trainer = dataclasses.field(default_factory=Trainer)
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    stages: Stages = dataclasses.field(default_factory=Stages)


@exp_factory.register_config_factory("maskrcnn")
def maskrcnn() -> Experiment:
    """Return the defaults that every experiment file starts from: the paper's R50-FPN."""
    return Experiment(
        trainer=Trainer(
            optimizer_config=optimization.OptimizationConfig(
                {
                    "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
                    "learning_rate": {
                        "type": "stepwise",
                        "stepwise": {"boundaries": [120_000], "values": [0.02, 0.002]},
                    },
                    # The paper does not mention a warm-up; Detectron, its code, has this one.
                    "warmup": {
                        "type": "linear",
                        "linear": {"warmup_steps": 500, "warmup_learning_rate": 0.02 / 3},
                    },
                }
            )
        )
    )
