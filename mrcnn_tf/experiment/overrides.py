"""From text to fields: YAML and `--params_override` read, names and types checked.

Model Garden's own override accepts `train_steps: "abc"`, and a misspelt field only says that a key
does not exist.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import yaml

# Fields that earlier releases took from Model Garden and wrote into params.yaml, but never read:
# {field of `train_data` and `validation_data`, or of `task`: the value it was written with}.
_NEVER_READ: dict[str, Any] = {
    "drop_remainder": True,
    "cache": False,
    "cycle_length": None,
    "block_length": 1,
    "ram_budget": None,
    "deterministic": None,
    "sharding": True,
    "tfds_as_supervised": False,
    "tfds_skip_decoding_feature": "",
    "enable_shared_tf_data_service_between_parallel_trainers": False,
    "apply_tf_data_service_before_batching": False,
    "trainer_id": None,
    "prefetch_buffer_size": None,
    "autotune_algorithm": None,
    "differential_privacy_config": None,
}
# Fields of `train_data` and `validation_data` of earlier releases, whose params.yaml have them.
# What either asked for is so now, whatever it says: all images are shuffled, not those of a buffer,
# and a run goes on where it was without reading past what it has seen.
_NO_LONGER_NEEDED = ("shuffle_buffer_size", "exact_resume")


def parse_override(text: str) -> dict[str, Any]:
    """Parse YAML or JSON text, a YAML file's path, or `a.b=1,c.d=[2,3]` into a nested dict.

    Raises:
      ValueError: the text is none of these.
    """
    is_path = text.endswith((".yaml", ".yml")) and not re.search(r"[={}\n]|:\s", text)
    if is_path or (text.endswith(".yaml") and tf.io.gfile.exists(text)):
        return read(text)
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
    return nest(parsed)


def read(path: str) -> dict[str, Any]:
    """Read a YAML file of fields, nested or with dotted names, into a nested dict.

    Raises:
      ValueError: the file is absent, no YAML, or no mapping.
    """
    if not tf.io.gfile.exists(path):
        raise ValueError(f"{path}: this file is not there")
    try:
        with tf.io.gfile.GFile(path) as file:
            parsed = yaml.safe_load(file.read())
    except (OSError, UnicodeError, tf.errors.OpError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ValueError(f"{path}: expected fields, got {type(parsed).__name__}")
    return nest(parsed)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested dicts.

    Raises:
      ValueError: a key is set to a value and to fields of its own.
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = str(key).split(".")
        here = nested
        for parent in parents:
            here = here.setdefault(parent, {})
            if not isinstance(here, dict):
                raise ValueError(f"{key}: {parent} is set to {here!r}, which has no fields")
        if isinstance(value, Mapping):
            value = nest(value)
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


def check_names_and_types(
    config: Any, layer: dict[str, Any], source: str, prefix: str = ""
) -> None:
    """Refuse unknown fields and wrong types; floats written as `1e-4` become floats in place."""
    hints = typing.get_type_hints(type(config))
    fields = [field.name for field in dataclasses.fields(config)]
    for key, value in list(layer.items()):
        where = prefix + key
        if key in _NO_LONGER_NEEDED and prefix in ("task.train_data.", "task.validation_data."):
            del layer[key]
            continue
        if key not in fields and prefix.startswith("task.") and key in _NEVER_READ:
            if value != _NEVER_READ[key]:
                raise ValueError(
                    f"{source}: {where}: {value!r} would change nothing: no part of this project "
                    "reads it. Leave it out"
                )
            del layer[key]
            continue
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.4)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(
                f"{source}: unknown field {where!r}{hint} Fields here: {', '.join(sorted(fields))}"
            )
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise ValueError(f"{source}: {where} needs fields of its own, got {value!r}")
            check_names_and_types(current, value, source, where + ".")
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
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):  # a group that may be absent
        check_names_and_types(typing.cast(Any, hint)(), value, source, where + ".")
        return value
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
