"""Finds experiments by name and puts one together: defaults, preset, file, command line.

Later wins: the defaults of `configs.py`, the preset, the file `experiments/NAME.yaml`, further
`--config_file`s, `--params_override`. Every name and type is checked on the way; Model Garden's
own override accepts `train_steps: "abc"`.
"""

import dataclasses
import difflib
import pathlib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from official.core import exp_factory
from official.modeling import hyperparams

from mrcnn_tf.experiment import checks, fields, presets

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"


def names(folder: pathlib.Path = FOLDER) -> list[str]:
    """Return the names of all experiments, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(
    name: str,
    config_files: Sequence[str] = (),
    params_override: str = "",
    folder: pathlib.Path = FOLDER,
) -> fields.Experiment:
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
    path = pathlib.Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        known = "\n  ".join(names(folder))
        raise ValueError(f"unknown experiment {name!r}. Known experiments:\n  {known}")
    layers = _with_bases(path, folder)
    layers += [(file, _read(pathlib.Path(file))) for file in config_files]
    if params_override:
        layers.append(("--params_override", parse_override(params_override)))

    experiment = fields.maskrcnn()
    experiment.task.name = path.stem
    preset = experiment.task.model.preset
    for source, layer in layers:
        # The preset lies below all layers, so it has to be known before the first is laid.
        preset = layer.get("task", {}).get("model", {}).get("preset", preset)
        _check_names_and_types(experiment, layer, source)
    if preset not in presets.PRESETS:
        raise ValueError(f"task.model.preset: got {preset!r}, allowed are {list(presets.PRESETS)}")
    experiment.task.model.override(presets.PRESETS[preset])
    for _, layer in layers:
        experiment.override(layer)
    checks.check(experiment)
    return experiment


def _with_bases(path: pathlib.Path, folder: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """Read the experiment and those it is based on, the deepest base first: (source, fields).

    A file whose first key is `base: NAME` states how it differs from the experiment of that name.

    Raises:
      ValueError: there is no such experiment, or the bases go round in a circle.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    while True:
        if str(path) in [source for source, _ in layers]:
            raise ValueError(f"{path}: base: the experiment is based on itself")
        fields = _read(path)
        base = fields.pop("base", "")
        layers.insert(0, (str(path), fields))
        if not base:
            return layers
        above, path = path, folder / f"{base}.yaml"
        if not path.is_file():
            known = ", ".join(names(folder))
            raise ValueError(f"{above}: base: unknown experiment {base!r}. Known are {known}")


def save(experiment: fields.Experiment, path: str) -> None:
    """Write every field, so that `load(path)` gives the same experiment back."""
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(_plain(experiment.as_dict()), file, sort_keys=False)


def register(folder: pathlib.Path = FOLDER) -> None:
    """Make every experiment known to `exp_factory.get_exp_config` under its name."""
    for name in names(folder):
        exp_factory.register_config_factory(name)(lambda name=name: load(name, folder=folder))


def parse_override(text: str) -> dict[str, Any]:
    """Parse YAML or JSON text, a YAML file's path, or `a.b=1,c.d=[2,3]` into a nested dict.

    Raises:
      ValueError: the text is none of these.
    """
    if text.endswith(".yaml") and pathlib.Path(text).is_file():
        return _read(pathlib.Path(text))
    try:
        if re.match(r"\s*[\w.]+\s*=", text):
            pairs = [part.partition("=") for part in _split_at_commas(text)]
            if not all(equals for _, equals, _ in pairs):
                raise ValueError("a part has no '='")
            parsed = {key.strip(): yaml.safe_load(value) for key, _, value in pairs}
        else:
            parsed = yaml.safe_load(text)
        if not isinstance(parsed, dict):
            raise ValueError("no field is named")
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"--params_override: {text!r} is neither YAML nor of the form a.b=value,c.d=value: "
            f"{error}"
        ) from error
    return _nest(parsed)


def scale_to_batch(experiment: fields.Experiment, global_batch_size: int) -> str:
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


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ValueError(f"{path}: expected fields, got {type(parsed).__name__}")
    return _nest(parsed)


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested dicts."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = str(key).split(".")
        here = nested
        for parent in parents:
            here = here.setdefault(parent, {})
        if isinstance(value, Mapping):
            value = _nest(value)
            if isinstance(here.get(leaf), dict):
                here[leaf].update(value)
                continue
        here[leaf] = value
    return nested


def _split_at_commas(text: str) -> list[str]:
    """Split at commas that are neither in brackets nor in quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, letter in enumerate(text):
        if letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        if quote:
            continue
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _check_names_and_types(
    config: hyperparams.Config, layer: dict[str, Any], source: str, prefix: str = ""
) -> None:
    """Refuse unknown fields and wrong types; floats written as `1e-4` become floats in place."""
    hints = typing.get_type_hints(type(config))
    fields = [field.name for field in dataclasses.fields(config)]
    for key, value in layer.items():
        where = prefix + key
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.4)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(
                f"{source}: unknown field {where!r}{hint} Fields here: {', '.join(sorted(fields))}"
            )
        current = getattr(config, key)
        if isinstance(current, hyperparams.Config):
            if not isinstance(value, dict):
                raise ValueError(f"{source}: {where} needs fields of its own, got {value!r}")
            _check_names_and_types(current, value, source, where + ".")
        elif key in hints:
            layer[key] = _checked(value, hints[key], where, source)


def _checked(value: Any, hint: Any, where: str, source: str) -> Any:
    """Return `value` as the type `hint` wants it, or raise."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _checked(value, option, where, source)
            except ValueError:
                continue
    elif hint is type(None):
        if value is None:
            return None
    elif origin in (list, tuple, Sequence):
        if isinstance(value, list | tuple):
            return [_checked(v, arguments[0], where, source) for v in value]
    elif hint is Any:
        return value
    elif hint is float:
        # YAML reads 1e-4 (no dot) as a string.
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                pass
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    expected = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise ValueError(
        f"{source}: {where} must be {expected}, got {value!r} ({type(value).__name__})"
    )
