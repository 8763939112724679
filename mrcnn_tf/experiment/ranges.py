"""What the numbers of an experiment may be: a count below nothing, a part above all is refused.

One rule for every field: a whole number is a count or a size, at least 1; any other number is at
least 0. What differs is listed here by name, so a field that is added is looked at without a word.
Nothing is imported that says what the fields are: `models.py` needs no tf-models-official for it.
"""

import dataclasses
import math
import typing
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple


class _Range(NamedTuple):
    low: float
    high: float = math.inf
    has_low: bool = True  # whether the lowest is one of them

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, int | float)
        return self.low <= value <= self.high and (self.has_low or value != self.low)

    def __str__(self) -> str:
        if self.high < math.inf:
            without = "" if self.has_low else f", not {self.low:g}"
            return f"{self.low:g} to {self.high:g}{without}"
        return f"{self.low:g} or more" if self.has_low else f"more than {self.low:g}"


_COUNT, _NUMBER = _Range(1), _Range(0)
_OR_NONE = _Range(0)  # 0 is none of them, or what else the field's text says of 0
_PART = _Range(0, 1)
_ABOVE_0 = _Range(0, has_low=False)
_ANY = _Range(-math.inf)
_FROM_MINUS_1 = _Range(-1)

# By a field's name or the end of it; the longest that fits is taken.
_RANGES = {
    # Whole numbers.
    "seed": _ANY,
    "num_classes": _OR_NONE,
    "layers": _OR_NONE,
    "freeze_at": _OR_NONE,
    "sampling_ratio": _OR_NONE,
    "classes_per_image": _OR_NONE,
    "num_points": _OR_NONE,
    "subdivisions": _OR_NONE,
    "num_keypoints": _OR_NONE,
    "min_pixels": _OR_NONE,
    "global_batch_size": _OR_NONE,
    "images_per_update": _OR_NONE,
    "arena_pixels": _OR_NONE,
    "skip_corrupt_records": _OR_NONE,
    "eval_timeout": _OR_NONE,
    "begin_steps": _OR_NONE,
    "max_trials": _OR_NONE,
    "patience": _OR_NONE,
    "num_gpus": _OR_NONE,
    "warmup_steps": _OR_NONE,
    "offset": _OR_NONE,
    "validation_steps": _FROM_MINUS_1,
    "task_index": _FROM_MINUS_1,
    # Others.
    "mean": _ANY,
    "power": _ANY,
    "beta_2_decay": _ANY,
    "frequency_power": _Range(0, 10),
    "std": _ABOVE_0,
    "anchor_sizes": _ABOVE_0,
    "anchor_ratios": _ABOVE_0,
    "regression_weights": _ABOVE_0,
    "factors": _ABOVE_0,
    "scale_jitter": _ABOVE_0,
    "upper_bound": _ABOVE_0,
    "iou": _PART,
    "ious": _PART,
    "positive_ious": _Range(0, 1, has_low=False),  # every RoI would be positive
    "fraction": _PART,
    "probability": _PART,
    "threshold": _PART,
    "clipping_threshold": _NUMBER,
    "clip_threshold": _NUMBER,
    "momentum": _PART,
    "ema_decay": _PART,
    "brightness": _PART,
    "contrast": _PART,
    "saturation": _PART,
    "hue": _Range(0, 0.5),
}
# {field: how many numbers it has}, of lists that have a place for each of something.
_LENGTHS = {"mean": 3, "std": 3, "regression_weights": 4}


def check(config: Any, path: str = "", skipped: Collection[str] = ()) -> None:
    """Refuse numbers that mean nothing, in all fields of a group and of those in it.

    Args:
      config: a dataclass of fields, as in `fields.py`.
      path: its name, "task.model" for one; "" for the whole experiment.
      skipped: full names of fields, and of groups of them, that are not looked at.

    Raises:
      ValueError: with the field, the value received and what is allowed.
    """
    for name, value, is_whole in _numbers(config, path):
        if any(f"{name}.".startswith(f"{group}.") for group in skipped):
            continue
        allowed = _range(name, is_whole)
        given = value if isinstance(value, Sequence) else [value]
        shown = tuple(value) if isinstance(value, Sequence) else value
        if not all(number in allowed for number in given):
            each = "each " if isinstance(value, Sequence) else ""
            raise ValueError(f"{name}: got {shown}, {each}needs {allowed}")
        wanted = _LENGTHS.get(name.rpartition(".")[2], len(given))
        if len(given) != wanted:
            raise ValueError(f"{name}: got {shown}, needs {wanted} numbers")


def _range(path: str, is_whole: bool) -> _Range:
    name = path.rpartition(".")[2]
    ends = [end for end in _RANGES if name == end or name.endswith(f"_{end}")]
    if ends:
        return _RANGES[max(ends, key=len)]
    return _COUNT if is_whole else _NUMBER


def _numbers(config: Any, path: str) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, value and whether it is whole, of every field of numbers that is set.

    Of Model Garden's choices by `type` only what is chosen.
    """
    hints = typing.get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config)]
    if "type" in names and hasattr(config, "get"):
        names = [config.type] if config.type else []
    for name in names:
        value, full = getattr(config, name), f"{path}.{name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, full)
            continue
        first = value[0] if isinstance(value, list | tuple) and value else value
        if isinstance(first, int | float) and not isinstance(first, bool):
            yield full, value, float not in _types(hints[name])


def _types(hint: Any) -> set[Any]:
    """Return the types that a hint is made of: of `tuple[int, ...] | None` int, None and so on."""
    arguments = typing.get_args(hint)
    return {hint}.union(*map(_types, arguments)) if arguments else {hint}
