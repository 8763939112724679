"""Finds experiments by name and puts one together: defaults, preset, file, command line.

Later wins: the defaults of `fields.py`, the preset, the file `experiments/NAME.yaml`, further
`--config_file`s, `--params_override`. How text becomes fields is in `overrides.py`.
"""

import os
import pathlib
import typing
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import yaml
from official.core import exp_factory

from mrcnn_tf.console import layout, whole_file
from mrcnn_tf.experiment import checks, overrides, precision, presets, sources
from mrcnn_tf.experiment.experiment import Experiment, maskrcnn

FOLDER = layout.folder("experiments")


def names(folder: pathlib.Path = FOLDER) -> list[str]:
    """Return the names of all experiments, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(
    name: str,
    config_files: Sequence[str] = (),
    params_override: str = "",
    folder: pathlib.Path = FOLDER,
) -> Experiment:
    """Return the experiment `name`, checked.

    Args:
      name: a file name in `experiments/` without its ending, or a path to a YAML file.
      config_files: further YAML files laid over it, in order.
      params_override: YAML or JSON text, a YAML file, or `a.b.c=value,d.e=value`.
      folder: where experiments lie.

    Raises:
      ValueError: an unknown name (the known ones are listed), a misspelt field (the nearest one is
        named), a value of the wrong type, or a combination that cannot work.
    """
    path = name if name.endswith(".yaml") else str(folder / f"{name}.yaml")
    if not tf.io.gfile.exists(path):
        known = "\n  ".join(names(folder))
        raise ValueError(f"unknown experiment {name!r}. Known experiments:\n  {known}")
    layers = _with_bases(path, folder)
    layers += [(file, overrides.read(file)) for file in config_files]
    if params_override:
        layers.append(("--params_override", overrides.parse_override(params_override)))

    experiment = maskrcnn()
    experiment.task.name = os.path.splitext(os.path.basename(path))[0]
    for source, layer in layers:
        overrides.check_names_and_types(experiment, layer, source)
    # Presets lie below all layers, so they have to be known before the first is laid.
    for field, allowed in (("features", presets.FEATURES), ("preset", presets.PRESETS)):
        chosen = getattr(experiment.task.model, field)
        for _, layer in layers:
            chosen = layer.get("task", {}).get("model", {}).get(field, chosen)
        if chosen not in allowed:
            names_allowed = ", ".join(map(repr, allowed))
            raise ValueError(f"task.model.{field}: got {chosen!r}, allowed are {names_allowed}")
        experiment.task.model.override(allowed[chosen])
    for _, layer in layers:
        _replace_source(layer)
        experiment.override(layer)
    experiment.runtime.mixed_precision_dtype = (
        experiment.runtime.mixed_precision_dtype or precision.NONE
    )
    checks.check(experiment)
    return experiment


def _with_bases(path: str, folder: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """Read the experiment and those it is based on, the deepest base first: (source, fields).

    A file whose first key is `base: NAME` states how it differs from the experiment of that name,
    or of that file if it ends in .yaml.

    Raises:
      ValueError: there is no such experiment, one is empty, or the bases go round in a circle.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    while True:
        if path in [source for source, _ in layers]:
            raise ValueError(f"{path}: base: the experiment is based on itself")
        fields = overrides.read(path)
        if not fields:
            raise ValueError(f"{path}: this file is empty, so it is no experiment")
        base = fields.pop("base", "")
        layers.insert(0, (path, fields))
        if not base:
            return layers
        above, path = path, base if base.endswith(".yaml") else str(folder / f"{base}.yaml")
        if not tf.io.gfile.exists(path):
            known = ", ".join(names(folder))
            raise ValueError(f"{above}: base: unknown experiment {base!r}. Known are {known}")


def _replace_source(layer: dict[str, Any]) -> None:
    """Have what a layer says of where images are replace what is said below it.

    Record files and a TFDS data set are two ways to say the same; an experiment names its records,
    and who names a TFDS data set on the command line does not want them too.
    """
    for name in ("train_data", "validation_data"):
        data = layer.get("task", {}).get(name, {})
        if data.get("tfds_name"):
            data.setdefault("input_path", "")
        elif data.get("input_path"):
            for field in sources.TFDS_FIELDS:
                data.setdefault(field, "")


def save(experiment: Experiment, path: str) -> None:
    """Write every field, so that `load(path)` gives the same experiment back."""
    whole_file.write(path, to_yaml(experiment))


def to_yaml(experiment: Experiment) -> str:
    """Return every field as the text that `save` writes."""
    return yaml.safe_dump(_plain(experiment.as_dict()), sort_keys=False)


def register(folder: pathlib.Path = FOLDER) -> None:
    """Make every experiment known to `exp_factory.get_exp_config` under its name."""
    for name in names(folder):
        exp_factory.register_config_factory(name)(lambda name=name: load(name, folder=folder))


def scale_to_batch(experiment: Experiment, global_batch_size: int) -> str:
    """Adapt learning rate, steps and intervals to the real batch, in place.

    The linear rule (Goyal et al. 2017): with k times the images per step, k times the rate and
    1/k of the steps, so that the same number of images is seen.

    Args:
      experiment: declared for `trainer.reference_batch_size`.
      global_batch_size: images per step over all replicas.

    Returns:
      A sentence that says what changed; "" if nothing did.
    """
    trainer = experiment.trainer
    factor = global_batch_size / trainer.reference_batch_size
    if factor == 1:
        return ""
    before, reference = trainer.train_steps, trainer.reference_batch_size
    trainer.reference_batch_size = (
        global_batch_size  # saved and loaded again, nothing is left to do
    )
    for field in ("train_steps", "validation_interval", "checkpoint_interval"):
        setattr(trainer, field, max(1, round(getattr(trainer, field) / factor)))
    trainer.ema_decay **= factor
    schedules = trainer.optimizer_config
    for schedule in (schedules.learning_rate.get(), schedules.warmup.get()):
        for field, value in (schedule.as_dict() if schedule else {}).items():
            if field in ("boundaries", "decay_steps", "warmup_steps"):
                setattr(schedule, field, _apply(lambda v: max(1, round(v / factor)), value))
            elif field == "values" or field.endswith("learning_rate"):
                setattr(schedule, field, _apply(lambda v: v * factor, value))
    return (
        f"batch of {global_batch_size} instead of {reference}: learning rate "
        f"x {factor:g}, steps {before:,} -> {trainer.train_steps:,}"
    )


def _apply(function: typing.Callable, value: Any) -> Any:
    return [function(v) for v in value] if isinstance(value, list | tuple) else function(value)


def _plain(value: Any) -> Any:
    """Turn tuples into lists: YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
