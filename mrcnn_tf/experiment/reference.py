"""The page of all fields that an experiment may state: default, unit, meaning, source.

    python -m mrcnn_tf.experiment.reference > docs/configuration.md

Everything comes from the fields' own dataclasses and their docstrings, from the presets, and from
what is refused; what Model Garden's classes bring along is described here, because there it is not
said for this project.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from official.modeling.hyperparams import oneof

from mrcnn_tf.experiment import experiment, fields, presets, unread

_HEAD = """# Configuration

Every field that an experiment may state. This page is made from the code by
`python -m mrcnn_tf.experiment.reference`, and a test holds it to that; what the fields together
make is described in [architecture](architecture.md), how experiments are put together in
`mrcnn_tf/experiment/loading.py`. A value is given in an experiment's file, in a `--config_file`, or
as `--params_override=task.model.rpn.nms_iou=0.6`. Misspelt names and wrong types are refused. So
are numbers out of range: a whole number is at least 1 unless its text says what 0 is, any other at
least 0, a part at most 1 (`mrcnn_tf/experiment/ranges.py`).

*Sources* are the papers and projects that a field's text names; where it names none, see the line
above the table, and where that names none, the field is this project's. Sections, tables and
figures are those of Mask R-CNN, [arXiv 1703.06870](https://arxiv.org/abs/1703.06870), unless
another paper is named; [the paper, sentence by sentence](paper.md) says which number is from where.
Units are those of numbers, a *part* is one of 1. What is marked *preset* has other values with
`task.model.preset` or `task.model.features`: they stand [at the end](#presets).
"""

# Of numbers, by the end of their names; the longest that fits is taken.
_UNITS = {
    "depth": "layers",
    "channels": "channels",
    "base_width": "channels",
    "width_per_group": "channels",
    "groups": "groups",
    "layers": "layers",
    "freeze_at": "stages",
    "mean": "of 0..255",
    "std": "of 0..255",
    "epsilon": "",
    "log_epsilon": "of log2's argument",
    "level_epsilon": "levels",
    "momentum": "part",
    "frequency_power": "exponent",
    "iou": "IoU",
    "ious": "IoU",
    "fraction": "part",
    "probability": "part",
    "score_threshold": "probability",
    "repeat_threshold": "part of the images",
    "anchor_sizes": "pixels",
    "anchor_ratios": "height / width",
    "anchor_offset": "strides",
    "anchors_per_image": "anchors",
    "rois_per_image": "RoIs",
    "pre_nms_top_k_train": "anchors per level",
    "pre_nms_top_k_test": "anchors per level",
    "post_nms_top_k_train": "proposals",
    "post_nms_top_k_test": "proposals",
    "min_box_size": "pixels",
    "box_shift": "pixels",
    "smooth_l1_beta": "of the box code",
    "regression_weights": "factor",
    "factors": "factor",
    "factor": "factor",
    "sampling_ratio": "samples per bin and axis",
    "target_sampling_ratio": "samples per pixel and axis",
    "pool_size": "bins",
    "mask_size": "pixels of the mask",
    "coarse_size": "pixels of the mask",
    "first_size": "pixels of the mask",
    "num_points": "points per RoI",
    "points_per_subdivision": "points per RoI",
    "oversampling": "factor",
    "subdivisions": "doublings",
    "soft_nms_sigma": "IoU squared",
    "num_classes": "classes",
    "classes_per_image": "classes",
    "num_keypoints": "keypoints",
    "max_instances": "objects per image",
    "brightness": "part",
    "contrast": "part",
    "saturation": "part",
    "hue": "turns",
    "pixels": "pixels",
    "edges": "pixels",
    "edge": "pixels",
    "batch_size": "images per step",
    "images_per_replica": "images",
    "images_per_update": "images",
    "scale_jitter": "factor",
    "seed": "",
    "skip_corrupt_records": "places",
    "weight_decay": "per step and learning rate",
    "steps": "steps",
    "steps_per_loop": "steps",
    "validation_steps": "batches",
    "interval": "steps",
    "decay": "part",
    "patience": "evaluations",
    "trials": "times",
    "max_to_keep": "checkpoints",
    "timeout": "seconds",
    "upper_bound": "loss",
    "num_gpus": "GPUs",
    "task_index": "",
    "num_packs": "packs",
}

# What Model Garden's `TrainerConfig` and `RuntimeConfig` have beyond this project's own fields.
_OF_MODEL_GARDEN = {
    "trainer.optimizer_config": "optimizer, learning rate and warm-up; see [below](#optimizers)",
    "trainer.train_tf_while_loop": "the steps of a loop run in the graph, one call for all of them",
    "trainer.train_tf_function": "the training step is compiled to a graph",
    "trainer.eval_tf_function": "so is the validation step",
    "trainer.steps_per_loop": (
        "between two looks at the clock, at signals and at whether the loss is finite"
    ),
    "trainer.summary_interval": "between two points of TensorBoard's curves",
    "trainer.checkpoint_interval": "between two checkpoints",
    "trainer.max_to_keep": "checkpoints that stay, `best/` not counted",
    "trainer.continuous_eval_timeout": (
        "mode continuous_eval ends if no new checkpoint comes for so long"
    ),
    "trainer.train_steps": "steps of the whole run",
    "trainer.validation_steps": "batches of one evaluation; -1 for all there are",
    "trainer.validation_interval": "between two evaluations",
    "trainer.best_checkpoint_export_subdir": "folder, in the run's, of the best checkpoint",
    "trainer.best_checkpoint_eval_metric": "what it is the best by, and what `patience` looks at",
    "trainer.best_checkpoint_metric_comp": '"higher" or "lower" values are better',
    "trainer.loss_upper_bound": "a loss above counts as not finite",
    "trainer.recovery_begin_steps": "and only after so many steps",
    "trainer.validation_summary_subdir": "folder, in the run's, of validation's curves",
    "runtime.distribution_strategy": (
        '"mirrored" over the GPUs of this machine, "one_device", or "multi_worker_mirrored", see '
        "[many machines](many-machines.md)"
    ),
    "runtime.enable_xla": "XLA compiles the training step; see [performance](performance.md#xla)",
    "runtime.num_gpus": "0 for all that TensorFlow sees",
    "runtime.worker_hosts": 'of several machines, "host:port,host:port"; or in TF_CONFIG',
    "runtime.task_index": "which of them this one is",
    "runtime.all_reduce_alg": (
        'how gradients are summed over GPUs: "nccl", "hierarchical_copy" or, of several machines, '
        '"ring"; none leaves it to TensorFlow'
    ),
    "runtime.num_packs": "gradients are summed in so many pieces",
    "runtime.mixed_precision_dtype": (
        '"float32", "bfloat16" or "float16": in what convolutions and matrix products compute; '
        "`--mixed_precision` sets it"
    ),
    "runtime.loss_scale": '"dynamic" or a number; with float16 only, where it is dynamic',
}

_PAPERS = "Faster R-CNN|FPN|Fast R-CNN"
_SOURCES = re.compile(
    rf"arXiv \d{{4}}\.\d{{4,5}}|(?:{_PAPERS}) \(?section \d(?:\.\d)*"
    r"|section \d(?:\.\d)*|table \d\w?|figure \d\w?"
    r"|Goyal et al\. 2017|MMDetection|Detectron2|Detectron|torchvision|MSRA"
)


def page() -> str:
    """Return the page, Markdown."""
    default = experiment.maskrcnn()
    lines = [_HEAD]
    for path, group in groups(default):
        lines += _section(path, group, default)
    return "\n".join([*lines, *_optimizers(default), *_presets(default)]).rstrip() + "\n"


def groups(default: experiment.Experiment) -> Iterator[tuple[str, Any]]:
    """Yield path and fields of every group, depth first; training data stand for both."""

    def below(path: str, group: Any) -> Iterator[tuple[str, Any]]:
        yield path, group
        for name in _names(group):
            value = getattr(group, name)
            if isinstance(value, fields.Fields) and name != "validation_data":
                yield from below(f"{path}.{name}", value)

    for name in ("task", "trainer", "runtime", "stages"):
        yield from below(name, getattr(default, name))


def rows(path: str, group: Any) -> Iterator[tuple[str, Any, str, str]]:
    """Yield name, default, meaning (Markdown) and sources of the fields of a group."""
    texts = _texts(type(group))
    for name in _names(group):
        value, full = getattr(group, name), f"{path}.{name}"
        if isinstance(value, fields.Fields):
            continue
        if full in unread.UNREAD:
            yield name, value, f"*refused*: {unread.UNREAD[full][1]}", "Model Garden"
        elif name in texts:
            yield name, value, _markdown(texts[name]), _sources(texts[name])
        else:
            yield name, value, _OF_MODEL_GARDEN.get(full, ""), "Model Garden"


def unit(name: str, value: Any) -> str | None:
    """Return the unit of a field; "" where it has none, None where nobody said."""
    first = value[0] if isinstance(value, tuple) and value else value
    is_number = isinstance(first, int | float) and not isinstance(first, bool)
    if not is_number and value != ():
        return ""
    ends = [end for end in _UNITS if name == end or name.endswith(f"_{end}")]
    return _UNITS[max(ends, key=len)] if ends else None


def _names(group: Any) -> list[str]:
    skipped = ("default_params", "restrictions")
    return [f.name for f in dataclasses.fields(group) if f.name not in skipped]


def _texts(kind: type) -> dict[str, str]:
    """Return {field: what the docstring of its own class says of it}."""
    if not kind.__module__.startswith("mrcnn_tf."):
        return {}
    _, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    entries = re.split(r"\n(?=  \w)", "\n" + listed.rstrip())
    pairs = [entry.strip().partition(": ") for entry in entries if entry.strip()]
    return {name: _on_one_line(text) for name, _, text in pairs}


def _on_one_line(text: str) -> str:
    return " ".join(re.sub(r"(?<=\w-)\n\s*", "", text).split())


def _first_sentence(kind: type) -> str:
    return _on_one_line(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0])


def _sources(text: str) -> str:
    return ", ".join(dict.fromkeys(name.replace("(", "") for name in _SOURCES.findall(text)))


def _section(path: str, group: Any, default: experiment.Experiment) -> list[str]:
    both = path == "task.train_data" or path.startswith("task.train_data.")
    title = f"`{path}`" + (f", `{path.replace('train_', 'validation_', 1)}`" if both else "")
    of_presets = _changed_by_presets()
    lines = [f"## {title}", "", _markdown(_first_sentence(type(group))), ""]
    lines += ["| field | default | unit | | sources |", "|---|---|---|---|---|"]
    for name, value, meaning, source in rows(path, group):
        shown = _value(value)
        if both:
            other = getattr(_at(default, path.replace("train_", "validation_", 1)), name)
            shown += "" if other == value else f"; for validation {_value(other)}"
        shown += " *preset*" if f"{path}.{name}" in of_presets else ""
        cells = (f"`{name}`", shown, unit(name, value) or "", meaning, source)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _value(value: Any) -> str:
    """Write a value as an experiment's file has it."""
    if isinstance(value, oneof.OneOfConfig) or hasattr(value, "as_dict"):
        return ""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(_value(item).strip("`") for item in value) + "]`"
    return f"`{value:.6g}`" if isinstance(value, float) else f"`{value}`"


def _markdown(text: str) -> str:
    """Have a docstring's text mean the same in a table of Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*|<\[])", r"\\\1", part) for part in parts[::2]]
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", "".join(parts))


def _optimizers(default: experiment.Experiment) -> list[str]:
    """Write down Model Garden's `optimizer_config`: a choice by `type`, and what each has."""
    chosen = default.trainer.optimizer_config
    lines = ["## Optimizers", ""]
    lines += [
        "`trainer.optimizer_config`, which is Model Garden's: the field `type` of each chooses."
    ]
    lines += ["Rates and steps are declared for `trainer.reference_batch_size` images a step.", ""]
    lines += ["| | its fields and their defaults |", "|---|---|"]
    for name in ("optimizer", "learning_rate", "warmup"):
        one_of = getattr(chosen, name)
        for kind in _names(one_of):
            if kind == "type":
                lines.append(f"| `{name}.type` | {_value(one_of.type)} |")
                continue
            options = getattr(one_of, kind)
            shown = [f"`{key}`: {_value(getattr(options, key))}" for key in _names(options)]
            lines.append(f"| `{name}.{kind}` | {', '.join(shown)} |")
    lines += ["", f"`ema` is refused: {unread.UNREAD['trainer.optimizer_config.ema'][1]}.", ""]
    return lines


def _flat(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value


def _changed_by_presets() -> set[str]:
    changes = [*presets.PRESETS.values(), *presets.FEATURES.values()]
    return {path for values in changes for path, _ in _flat(values, "task.model")}


def _presets(default: experiment.Experiment) -> list[str]:
    lines = ["## Presets", ""]
    lines += ["What an experiment states itself wins over both.", ""]
    for field, known in (("preset", presets.PRESETS), ("features", presets.FEATURES)):
        plain = getattr(default.task.model, field)
        others = [name for name in known if name != plain]
        lines += [
            f"| `task.model.{field}` | `{plain}` | " + " | ".join(f"`{n}`" for n in others) + " |"
        ]
        lines += ["|---" * (len(others) + 2) + "|"]
        flat = {name: dict(_flat(known[name], "task.model")) for name in others}
        for path in dict.fromkeys(path for values in flat.values() for path in values):
            cells = [_value(flat[name][path]) if path in flat[name] else "" for name in others]
            lines.append(f"| `{path}` | {_value(_at(default, path))} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


if __name__ == "__main__":
    print(page(), end="")
