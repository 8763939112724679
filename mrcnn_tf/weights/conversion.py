"""From a foreign file to a folder that every command here takes, and back.

The steps on the way in: read (`files.py`), say what it is (`recognize.py`), derive what the weights
need (`conventions.py`), build such a model, assign (`detectron2.py` and its like), write.
"""

import collections
import os
import tempfile
import time
from typing import Any

import tensorflow as tf
import yaml

from mrcnn_tf import checkpoints
from mrcnn_tf.console import whole_file
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields, label_maps, loading, presets
from mrcnn_tf.experiment.experiment import Experiment, Task
from mrcnn_tf.modeling import backbones, build
from mrcnn_tf.weights import (
    assign,
    classes,
    comparison,
    conventions,
    detectron2,
    files,
    recognize,
    torchvision,
)

_EXPERIMENT, _REPORT = "params.yaml", "report.txt"
DETECTORS = {"torchvision": torchvision, "detectron2": detectron2}
# Data and schedule of the experiment that is written: {system: its name without features}.
_BASES = {
    "mask_rcnn": "maskrcnn_r50_",
    "faster_rcnn": "fasterrcnn_r50_",
    "rpn": "rpn_r50_",
    "backbone": "maskrcnn_r50_",
}


def import_weights(
    source: str,
    path: str,
    output_dir: str,
    experiment_name: str | None = None,
    params_override: str = "",
    weights: str = "",
) -> str:
    """Write a foreign file as a checkpoint with its experiment; nothing unless everything fits.

    Args:
      source: one of `recognize.PROJECTS`.
      path: what `files.read` reads.
      output_dir: made if absent; gets `ckpt-0`, `params.yaml`, `report.txt` and, if the file has
        classes, `label_map.json`.
      experiment_name: experiment to check against and to write; default one made for the file.
      params_override: laid over the experiment.
      weights: which of them, where the file has several; see `sources.choose`.

    Returns:
      The report.

    Raises:
      ValueError: the file is not what `source` says, does not fit, or nothing here fits it.
      FileNotFoundError: there is no file.
    """
    start = time.monotonic()
    _refuse_foreign_folder(output_dir)
    read = files.read_weights(path, weights)
    state_dict, notes = read.tensors, [*read.notes, *_types_in_words(read.tensors)]
    try:
        recognized = recognize.recognize(state_dict)
        if recognized.project != source:
            raise ValueError(
                f"this is {recognized}, not of {source}: take --source={recognized.project}"
            )
        needed, concluded = conventions.model_fields(recognized)
        notes += concluded
        base = _BASES[recognized.system] + ("c4" if recognized.features == "c4" else "fpn")
        if recognized.num_keypoints and recognized.system == "faster_rcnn":
            base = "keypointrcnn_r50_fpn"
        name = os.path.basename(os.path.normpath(output_dir))
        layer: dict[str, Any] = {"name": name, "init_checkpoint": output_dir, "model": needed}
        # Both projects pad to the next multiple of 32, and what is padded leaks into features.
        layer["validation_data"] = {"canvas": "exact"}
        experiment = _layered(base, {"task": layer}, params_override)
        label_map = classes.label_map(recognized)
        if experiment_name:
            start_from = {"init_checkpoint": output_dir, "model": {"backbone": {"weights": ""}}}
            given = _layered(experiment_name, {"task": start_from}, params_override)
            label_map = _checked_label_map(given.task, label_map)
            notes += _check_conventions(experiment, given)
            experiment = given
        if label_map and not any(map(classes.is_named, label_map.names)):
            notes.append(
                "the file does not say what its classes are called: they are class 1, class 2, ... "
                f"in {schema.LABEL_MAP_FILE}; write their names there before you train or export"
            )
        of_model = experiment.task.model.as_dict()
        comparison.check_anchors(recognized, of_model)
        notes += comparison.contradictions(recognized, of_model)
        model = build.build_model(experiment.task.model, label_map.num_classes if label_map else 2)
        report = _load(model, recognized, state_dict)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    root = model
    if recognized.system == "backbone":  # the rest of the model is random
        root = tf.train.Checkpoint(backbone=model.backbone)
    _write(output_dir, root, label_map, experiment)
    text = "\n".join([f"{path}\n{recognized}", *(f"  {n}" for n in notes), report.summary()])
    whole_file.write(os.path.join(output_dir, _REPORT), f"{text}\n\n{report.listing()}")
    return f"{text}\nconverted in {time.monotonic() - start:.1f} s\n\n" + _next_commands(
        output_dir, recognized
    )


def export_weights(
    target: str,
    checkpoint: str,
    path: str,
    experiment_name: str | None = None,
    params_override: str = "",
) -> str:
    """Write a checkpoint as a state dict of torchvision or Detectron2.

    Args:
      target: "torchvision" or "detectron2".
      checkpoint: a checkpoint or a run's folder.
      path: a .npz, .pth, .pt, .safetensors or .pkl file.
      experiment_name: default `params.yaml` beside the checkpoint.
      params_override: laid over the experiment.

    Returns:
      What was written, and what the other project must be set to.

    Raises:
      ValueError: the checkpoint or the experiment does not exist, or does not fit, or the model
        has a part that the other project has not.
    """
    start = time.monotonic()
    folder = checkpoint if tf.io.gfile.isdir(checkpoint) else os.path.dirname(checkpoint)
    if not experiment_name:
        experiment_name = os.path.join(folder, _EXPERIMENT)
        if not tf.io.gfile.exists(experiment_name):
            raise ValueError(
                f"{checkpoint}: there is no params.yaml, which a run leaves beside its "
                "checkpoints; say with --experiment what model this is"
            )
    ours = loading.load(experiment_name, params_override=params_override)
    label_map = checkpoints.label_map_of(checkpoint) or label_maps.of_experiment(ours.task)
    model = build.build_model(ours.task.model, label_map.num_classes)
    checkpoints.load(model, checkpoint)
    state_dict = assign.export(DETECTORS[target].entries(model), model.weights)
    files.write(path, state_dict)
    theirs = fields.Model()
    theirs.override(presets.PRESETS[target])
    answers, _ = comparison.differences(ours.task.model.as_dict(), theirs.as_dict())
    lines = [f"{path}: {len(state_dict)} tensors in the names and layouts of {target}"]
    if answers:
        lines.append(f"{target} gives the same answers only if set to what differs from its own:")
        lines += [f"  {text}" for text in answers]
    return "\n".join([*lines, f"converted in {time.monotonic() - start:.1f} s"])


def _refuse_foreign_folder(output_dir: str) -> None:
    """Write only into a folder that is new, or holds nothing but another conversion."""
    latest = tf.train.latest_checkpoint(output_dir)
    if latest and os.path.basename(latest) != "ckpt-0":
        raise ValueError(f"{output_dir} holds checkpoints of a run ({latest}); choose another")
    if tf.io.gfile.exists(os.path.join(output_dir, _REPORT)):
        return
    for name in (_EXPERIMENT, schema.LABEL_MAP_FILE, "checkpoint"):
        if tf.io.gfile.exists(os.path.join(output_dir, name)):
            raise ValueError(f"{output_dir} holds the {name} of something else; choose another")


def _types_in_words(state_dict: files.State) -> list[str]:
    """Say which numbers are rounded or widened: all become float32."""
    kinds = collections.Counter(
        str(tensor.dtype) for tensor in state_dict.values() if tensor.dtype.kind not in "iub"
    )
    return [
        f"{count} tensors are {kind}, which become float32"
        for kind, count in kinds.items()
        if kind != "float32"
    ]


def _layered(name: str, layer: dict[str, Any], params_override: str) -> Experiment:
    """Load an experiment with further fields, as if they stood in a --config_file."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(layer, file)
        file.flush()
        return loading.load(name, [file.name], params_override)


def _check_conventions(needed: Experiment, given: Experiment) -> list[str]:
    """Compare an experiment with the one that the weights need.

    Returns:
      Sentences on what differs and does no harm.

    Raises:
      ValueError: something else differs; all of it is listed.
    """
    answers, free = comparison.differences(needed.task.model.as_dict(), given.task.model.as_dict())
    if answers:
        raise ValueError(
            f"{given.task.name} computes something else with these weights:\n  "
            + "\n  ".join(answers)
        )
    if not free:
        return [f"{given.task.name} has every convention of the weights"]
    return [
        f"{given.task.name} has every convention of the weights; what differs is free:",
        *(f"  {text}" for text in free),
    ]


def _checked_label_map(task: Task, of_file: LabelMap | None) -> LabelMap | None:
    """Return the label map to write, after comparing the file's with the experiment's.

    Raises:
      ValueError: they differ in number or names.
    """
    if of_file is None:
        return None
    try:
        of_task = label_maps.of_experiment(task)
    except ValueError:  # no records yet, and no number of classes
        return of_file
    if of_task.num_classes != of_file.num_classes:
        raise ValueError(
            f"has {of_file.num_classes - 1} classes and background, the experiment "
            f"{of_task.num_classes - 1} and background. To fine-tune on others, convert without "
            "--experiment and set task.init_checkpoint to the folder"
        )
    for number, (theirs, ours) in enumerate(zip(of_file.names, of_task.names, strict=True), 1):
        if classes.is_named(theirs) and classes.is_named(ours) and theirs != ours:
            raise ValueError(f"class {number} is {theirs!r} in the file, {ours!r} in the records")
    return of_task if classes.is_named(of_task.names[0]) else of_file


def _load(
    model: build.Model, recognized: recognize.Recognized, state_dict: files.State
) -> assign.Report:
    if recognized.system == "backbone":
        weights = backbones.entry_of(model.backbone).weights_module()
        return weights.load(recognized.project, model.backbone, state_dict)
    return DETECTORS[recognized.project].load(model, state_dict)


def _write(
    output_dir: str,
    model: build.Model | tf.train.Checkpoint,
    label_map: LabelMap | None,
    experiment: Experiment,
) -> None:
    """Write what a run would have left."""
    tf.io.gfile.makedirs(output_dir)
    loading.save(experiment, os.path.join(output_dir, _EXPERIMENT))
    if label_map:
        whole_file.write(os.path.join(output_dir, schema.LABEL_MAP_FILE), label_map.to_json())
    root = tf.train.Checkpoint(model=model)
    tf.train.CheckpointManager(root, output_dir, max_to_keep=1).save(checkpoint_number=0)


def _next_commands(output_dir: str, recognized: recognize.Recognized) -> str:
    """What a user may type next."""
    experiment = f"--experiment={os.path.join(output_dir, _EXPERIMENT)}"
    train = f"python -m mrcnn_tf.train {experiment}"
    tuning = f"train from it:\n  {train} --params_override=task.train_data.input_path=PATTERN"
    if recognized.system == "backbone":
        return tuning
    saved_model = os.path.join(output_dir, "saved_model")
    return (
        f"score it on the records that the experiment names:\n  {train} --mode=eval "
        f"--checkpoint_path={output_dir}\nexport and use it:\n"
        f"  python -m mrcnn_tf.export {experiment} --checkpoint_path={output_dir} "
        f"--export_dir={saved_model}\n  python -m mrcnn_tf.predict --saved_model={saved_model} "
        f"--input=IMAGES --output_dir={os.path.join(output_dir, 'predictions')}\n{tuning}"
    )
