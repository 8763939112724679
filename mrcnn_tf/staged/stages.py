"""The commands that train a network in several runs, and the folders they leave.

"separate" (Mask R-CNN section 3.1: "RPN is trained separately and does not share features with Mask
R-CNN"), in the folder MODEL_DIR:

    rpn/          an RPN by itself
    proposals/    what it proposes for the training and the validation records
    detector/     the detector, trained and scored on them

"alternating" (Faster R-CNN section 3.2, "4-Step Alternating Training"):

    step1_rpn/ step1_proposals/    an RPN by itself, and its proposals
    step2_detector/                a detector on them; nothing is shared yet
    step3_rpn/ step3_proposals/    an RPN on the detector's backbone and pyramid, which stay as they
                                   are; its own layers start anew
    step4_detector/                the detector of step 2 goes on on those proposals, again with
                                   backbone and pyramid as they are
    ckpt-N params.yaml             heads of step 4, RPN of step 3, the features of both: one network

The paper's step 4 "keeps the shared convolutional layers fixed" and fine-tunes "the unique layers
of Fast R-CNN"; for an FPN the shared ones include the pyramid, for C4 the backbone ends at stage 4.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mrcnn_tf.console.running import Stage
from mrcnn_tf.experiment import loading, overrides
from mrcnn_tf.experiment.experiment import Experiment
from mrcnn_tf.experiment.sources import TFDS_FIELDS

DETECTOR = "detector"  # where a separate schedule leaves its result

# What an RPN and the detector on its proposals must agree in: they see the same images in the
# same way, and where they come to share their features, they are parts of one network.
_COMMON = (
    "task.model.features",
    "task.model.pixels",
    "task.model.backbone",
    "task.model.fpn",
    "task.model.rpn.anchor_sizes",
    "task.model.rpn.anchor_ratios",
    "task.model.rpn.anchors_rounded",
    "task.model.rpn.anchor_offset",
    "task.model.rpn.anchor_strides",
    *(f"task.{d}_data.{f}" for d in ("train", "validation") for f in ("input_path", *TFDS_FIELDS)),
    "task.validation_data.short_edges",
    "task.validation_data.long_edge",
)


class Schedule:
    """The stages of an experiment whose `stages.schedule` is not joint.

    Attributes:
      detector: the experiment.
      stages: its commands, in order.
      result: folder of the detector that comes out.
    """

    def __init__(
        self,
        experiment: str,
        model_dir: str,
        config_files: Sequence[str] = (),
        params_override: str = "",
    ):
        """Look at both loading, so that nothing is refused after days of training.

        Args:
          experiment: the detector's, as for `loading.load`.
          model_dir: folder of everything.
          config_files: laid over both loading, the detector's and the RPN's.
          params_override: laid over both.

        Raises:
          ValueError: an experiment cannot be loaded, has no stages, or the two do not fit together.
        """
        self.detector = loading.load(experiment, config_files, params_override)
        plan = self.detector.stages
        if plan.schedule == "joint":
            raise ValueError(
                f"{experiment}: stages.schedule is joint, one run of RPN and detector together:\n"
                f"  python -m mrcnn_tf.train --experiment={experiment}"
            )
        self._names = {"rpn": plan.rpn_experiment, "detector": experiment}
        self._model_dir = model_dir
        self._files = [f"--config_file={file}" for file in config_files]
        self._given = config_files, params_override
        self._override = _flat(overrides.parse_override(params_override or "{}"))
        self._check_pair(self._load("rpn", {}))
        self.stages: list[Stage] = []
        if plan.schedule == "separate":
            self._separate()
        else:
            self._alternating()

    def _separate(self) -> None:
        proposals = self._folder("proposals")
        rpn = self._train("rpn", "train the RPN", "rpn")
        self._write_proposals("write its proposals", rpn, proposals)
        self.result = self._train(
            "detector", "train the detector", DETECTOR, _on_proposals(proposals, rpn)
        )
        self._evaluate()

    def _alternating(self) -> None:
        frozen = self._frozen_features()
        first, third = self._folder("step1_proposals"), self._folder("step3_proposals")
        rpn = self._train("rpn", "1: train an RPN", "step1_rpn")
        self._write_proposals("1: write its proposals", rpn, first)
        detector = self._train(
            "detector", "2: train a detector", "step2_detector", _on_proposals(first, rpn)
        )
        rpn = self._train(
            "rpn",
            "3: train an RPN on the detector's features",
            "step3_rpn",
            frozen | _from(detector, "backbone, pyramid"),
        )
        self._write_proposals("3: write its proposals", rpn, third)
        heads = self._train(
            "detector",
            "4: train the detector's heads on the same features",
            "step4_detector",
            frozen | _from(detector, "all") | _on_proposals(third, rpn),
        )
        self.result = self._model_dir
        flags = self._flags("detector", self._override)
        flags += (f"--rpn_checkpoint={rpn}", f"--detector_checkpoint={heads}")
        self._add("join RPN and detector", "mrcnn_tf.staged.join_networks", *flags)
        self._evaluate()

    def _frozen_features(self) -> dict[str, Any]:
        """What keeps the features that RPN and heads share as they are."""
        if self.detector.task.model.features == "c4":
            return {"task.model.backbone.freeze_at": 4}  # stage 5 is a part of the heads
        frozen = {"task.model.backbone.freeze_at": 5}
        has_pyramid = self.detector.task.model.features == "fpn"
        return frozen | ({"task.model.fpn.frozen": True} if has_pyramid else {})

    def _train(
        self, kind: str, name: str, folder: str, differs: dict[str, Any] | None = None
    ) -> str:
        """Add a run of the RPN's or the detector's experiment; return its folder."""
        # One run of its own, whatever schedule it is a part of.
        differs = {"stages.schedule": "joint"} | (differs or {})
        self._load(kind, differs)
        flags = self._flags(kind, self._override | differs, self._folder(folder))
        self._add(name, "mrcnn_tf.train", "--mode=train_and_eval", *flags)
        return self._folder(folder)

    def _write_proposals(self, name: str, rpn: str, folder: str) -> None:
        flags = (f"--experiment={rpn}/params.yaml", f"--checkpoint_path={rpn}")
        self._add(name, "mrcnn_tf.write_proposals", *flags, f"--output_dir={folder}")

    def _evaluate(self) -> None:
        flags = (f"--experiment={self.result}/params.yaml", f"--model_dir={self.result}")
        self._add("evaluate", "mrcnn_tf.train", "--mode=eval", *flags)

    def _add(self, name: str, *arguments: str) -> None:
        self.stages.append(Stage(name, ("-m", *arguments)))

    def _flags(
        self, kind: str, override: dict[str, Any], folder: str | None = None
    ) -> tuple[str, ...]:
        flags = [f"--experiment={self._names[kind]}", f"--model_dir={folder or self._model_dir}"]
        flags += self._files
        return (*flags, f"--params_override={json.dumps(override)}") if override else (*flags,)

    def _folder(self, name: str) -> str:
        return os.path.join(self._model_dir, name)

    def _load(self, kind: str, differs: dict[str, Any]) -> Experiment:
        """Load the experiment of a stage, which refuses what cannot work."""
        override = self._override | {"stages.schedule": "joint"} | differs
        return loading.load(self._names[kind], self._given[0], json.dumps(override))

    def _check_pair(self, rpn: Experiment) -> None:
        """Refuse an RPN that cannot propose for the detector."""
        name = self._names["rpn"]
        if rpn.task.model.system != "rpn":
            raise ValueError(
                f"stages.rpn_experiment: {name} is no RPN: its task.model.system is "
                f"{rpn.task.model.system}"
            )
        for field in _COMMON:
            ours, its = _value(self.detector, field), _value(rpn, field)
            if ours != its:
                raise ValueError(
                    f"{field}: {its} in {name} (stages.rpn_experiment), {ours} in "
                    f"{self._names['detector']}: both must have the same. What is given as "
                    "--config_file or --params_override goes to both"
                )


def of_run(
    experiment: Experiment,
    folder: str,
    config_files: Sequence[str] = (),
    params_override: str = "",
) -> tuple[Experiment, str]:
    """What to score, export and run of a run's folder, if RPN and detector were trained apart.

    Args:
      experiment: as loaded by its name.
      folder: of the run; or the checkpoint that is wanted, which then is the answer.
      config_files: laid over the experiment.
      params_override: laid over the experiment.

    Returns:
      The experiment of the detector as it was trained, which knows its RPN, and the folder of its
      checkpoints; both unchanged if the schedule leaves one network.

    Raises:
      ValueError: the folder is none of such a schedule.
    """
    if experiment.stages.schedule != "separate":
        return experiment, folder
    beside = folder if tf.io.gfile.isdir(folder) else os.path.dirname(folder)
    for path, checkpoint in ((os.path.join(beside, DETECTOR), None), (beside, folder)):
        params = os.path.join(path, "params.yaml")
        if tf.io.gfile.exists(params):
            detector = loading.load(params, config_files, params_override)
            return detector, checkpoint or path
    raise ValueError(
        f"{folder}: there is no {os.path.join(beside, DETECTOR, 'params.yaml')}. Train it first:\n"
        f"  python -m mrcnn_tf.train_stages --experiment={experiment.task.name}"
    )


def _on_proposals(folder: str, rpn: str) -> dict[str, Any]:
    return {
        "task.model.proposals": "file",
        "task.train_data.proposals": os.path.join(folder, "train"),
        "task.validation_data.proposals": os.path.join(folder, "validation"),
        "stages.rpn_experiment": os.path.join(rpn, "params.yaml"),
        "stages.rpn_checkpoint": rpn,
    }


def _from(run: str, modules: str) -> dict[str, Any]:
    return {"task.init_checkpoint": run, "task.init_checkpoint_modules": modules}


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _value(experiment: Experiment, field: str) -> Any:
    value: Any = experiment
    for name in field.split("."):
        value = getattr(value, name)
    if hasattr(value, "as_dict"):
        return value.as_dict()
    return list(value) if isinstance(value, tuple | list) else value
