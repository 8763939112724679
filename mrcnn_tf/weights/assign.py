"""From a foreign state dict to our variables and back: what all foreign formats share.

A format file (`torchvision.py`, `detectron2.py`, ...) lists one `Entry` per variable: the variable,
what the tensor is called there, and how its layout becomes ours (`layouts.py`). `assign` then sees
to it that every variable gets a value and every tensor is accounted for; `export` goes the other
way.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.modeling import backbones, mask_classes
from mrcnn_tf.modeling.normalization import GroupNorm
from mrcnn_tf.modeling.resnet import ResNet
from mrcnn_tf.modeling.roi_heads import MaskHead
from mrcnn_tf.weights import layouts
from mrcnn_tf.weights.layouts import Layout

_MOST_LISTED = 8  # names of one kind in an error message
_MOST_NAMED = 3  # names of one kind in a summary


class Entry(NamedTuple):
    """Where one variable comes from.

    Attributes:
      variable: ours.
      names: what the tensor may be called in the file; the first one found is taken, and the
        first of all is what it is called in a file that we write.
      layout: between the file's layout and ours.
      default: the value of every element where the file may lack the tensor, or None.
    """

    variable: tf.Variable
    names: tuple[str, ...]
    layout: Layout
    default: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a file's tensors.

    Attributes:
      loaded: names of the tensors that were assigned.
      dropped: {name: why it is not needed}.
      filled: {name that the file lacks: the value it stands for}.
    """

    loaded: tuple[str, ...]
    dropped: dict[str, str]
    filled: dict[str, float]

    def summary(self) -> str:
        """A line per kind and reason, with some names of what was not simply loaded."""
        lines = [f"{len(self.loaded)} tensors loaded"]
        for title, names in self._groups().items():
            some = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
            lines.append(f"{len(names)} tensors {title} ({some})")
        return "\n".join([*lines, "0 tensors missing, of the wrong shape or unexplained"])

    def listing(self) -> str:
        """Every tensor's name, by what became of it."""
        groups = {"loaded": list(self.loaded)} | self._groups()
        return "\n".join(
            f"{len(names)} tensors {title}:\n  " + "\n  ".join(names) + "\n"
            for title, names in groups.items()
        )

    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name, why in self.dropped.items():
            groups.setdefault(f"dropped: {why}", []).append(name)
        for name, value in self.filled.items():
            groups.setdefault(f"not in the file, which stand for {value:g}", []).append(name)
        return groups


def assign(
    entries: Sequence[Entry],
    state_dict: Mapping[str, Any],
    weights: Sequence[tf.Variable],
    not_needed: Mapping[str, str],
) -> Report:
    """Assign a state dict to variables, all or nothing.

    Args:
      entries: one per variable.
      state_dict: {name: array or CPU tensor}.
      weights: all variables of the model, to see that none is left out.
      not_needed: {regular expression: reason} of tensors that we do without.

    Returns:
      The `Report`.

    Raises:
      ValueError: a tensor is missing, has the wrong shape or is unknown, or a variable is in no
        entry. All such problems are listed, and nothing has been assigned.
    """
    found = _convert(entries, state_dict)
    dropped, unknown = {}, []
    for name in sorted(state_dict.keys() - set(found.loaded)):
        reasons = [why for pattern, why in not_needed.items() if re.fullmatch(pattern, name)]
        if reasons:
            dropped[name] = reasons[0]
        else:
            unknown.append(name)
    known = {id(entry.variable) for entry in entries}
    problems = {
        "missing": found.missing,
        "of the wrong shape": found.misshapen,
        "not finite": found.not_finite,
        "unknown": unknown,
        "of ours without a source": [w.name for w in weights if id(w) not in known],
    }
    if any(problems.values()):
        raise ValueError("the weights do not fit this model:" + _listed(problems))
    for variable, value in found.values:
        variable.assign(value)
    return Report(tuple(found.loaded), dropped, found.filled)


def export(entries: Sequence[Entry], weights: Sequence[tf.Variable]) -> dict[str, np.ndarray]:
    """Return the state dict that `assign` would turn into the variables' present values.

    Args:
      entries: one per variable.
      weights: all variables of the model, to see that none is left out.

    Returns:
      {first name of each entry: array in the foreign layout}, in the order of the entries.

    Raises:
      ValueError: a variable is in no entry.
    """
    known = {id(entry.variable) for entry in entries}
    left_out = [w.name for w in weights if id(w) not in known]
    if left_out:
        raise ValueError("the format has no place for:" + _listed({"of ours": left_out}))
    return {
        entry.names[0]: np.ascontiguousarray(entry.layout.to_theirs(entry.variable.numpy()))
        for entry in entries
    }


@dataclasses.dataclass
class _Converted:
    """What `_convert` finds."""

    values: list[tuple[tf.Variable, np.ndarray]] = dataclasses.field(default_factory=list)
    loaded: list[str] = dataclasses.field(default_factory=list)
    filled: dict[str, float] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    misshapen: list[str] = dataclasses.field(default_factory=list)
    not_finite: list[str] = dataclasses.field(default_factory=list)


def _convert(entries: Sequence[Entry], state_dict: Mapping[str, Any]) -> _Converted:
    found = _Converted()
    for entry in entries:
        name = next((n for n in entry.names if n in state_dict), None)
        shape = tuple(entry.variable.shape)
        if name is None:
            if entry.default is None:
                found.missing.append(" or ".join(entry.names))
            else:
                found.filled[entry.names[0]] = entry.default
                found.values.append((entry.variable, np.full(shape, entry.default, np.float32)))
            continue
        found.loaded.append(name)
        tensor = np.asarray(state_dict[name], np.float32)
        try:
            value = entry.layout.to_ours(tensor)
        except (ValueError, IndexError):  # not even the number of axes is right
            value = None
        if value is None or value.shape != shape:
            found.misshapen.append(f"{name} {tensor.shape}, for {entry.variable.name} {shape}")
        elif not np.isfinite(value).all():
            found.not_finite.append(name)
        else:
            found.values.append((entry.variable, value))
    return found


def _listed(problems: Mapping[str, Sequence[str]]) -> str:
    text = ""
    for kind, names in problems.items():
        if names:
            text += f"\n{len(names)} tensors {kind}:\n  " + "\n  ".join(names[:_MOST_LISTED])
            text += "\n  ..." if len(names) > _MOST_LISTED else ""
    return text


# --- Entries ------------------------------------------------------------------------------------


def with_bias(
    layer: Any, *names: str, rows: Layout = layouts.SAME, kernel: Layout = layouts.CONV
) -> list[Entry]:
    """Return the entries of a layer's `kernel` and `bias`.

    Args:
      layer: has the variables `kernel` and `bias`.
      *names: what the layer may be called in the file, without `.weight` and `.bias`.
      rows: what happens to the outputs, the first axis of both tensors.
      kernel: layout of the weight after that.
    """
    return [
        Entry(layer.kernel, tuple(f"{n}.weight" for n in names), layouts.then(rows, kernel)),
        Entry(layer.bias, tuple(f"{n}.bias" for n in names), rows),
    ]


def conv_and_norm(
    conv_layer: Any, norm: Any, conv_name: str, norm_name: str, group_norm: bool = False
) -> list[Entry]:
    """Return the entries of a convolution without bias and of the norm behind it.

    Args:
      conv_layer: the convolution.
      norm: behind it.
      conv_name: what it is called.
      norm_name: what its norm is called.
      group_norm: whether that may be a group norm, which has no statistics.

    Raises:
      ValueError: the norm is of another kind.
    """
    kernel = Entry(conv_layer.kernel, (f"{conv_name}.weight",), layouts.CONV)
    if group_norm and isinstance(norm, GroupNorm):
        return [kernel, *_scale_and_offset(norm, norm_name)]
    return [kernel, *batch_norm(norm, norm_name)]


def head_conv(
    layer: Any, names: Sequence[str], norm_name: str, group_norm: bool = False
) -> list[Entry]:
    """Return the entries of a `ConvNormReLU`: with a bias, or with a norm behind it.

    Args:
      layer: has `conv` and `norm`, which may be None.
      names: what the convolution may be called.
      norm_name: what its norm is called; where there is one, the last of `names` holds.
      group_norm: see `conv_and_norm`.
    """
    if layer.norm is None:
        return with_bias(layer.conv, *names)
    return conv_and_norm(layer.conv, layer.norm, names[-1], norm_name, group_norm)


def check_mask_head(head: Any, project: str, kinds: Sequence[str]) -> None:
    """Refuse a mask head that a project has not.

    Raises:
      ValueError: it is no FCN, or its maps stand for something else than `kinds`, of
        `mask_classes.KINDS`.
    """
    if not isinstance(head, MaskHead):
        raise ValueError(f"{project} has no mask head like ours, a {type(head).__name__}")
    kind = next(name for name, cls in mask_classes.KINDS.items() if cls is type(head.kind))
    if kind not in kinds:
        raise ValueError(
            f"{project} has no masks of task.model.mask_head.classes: {kind}, only of "
            + " and ".join(kinds)
        )


def batch_norm(norm: Any, name: str) -> list[Entry]:
    """Return the entries of a batch norm.

    Raises:
      ValueError: the norm is of another kind.
    """
    if not hasattr(norm, "moving_mean"):
        raise ValueError(f"the file has a batch norm {name}, our model a {type(norm).__name__}")
    return [
        *_scale_and_offset(norm, name),
        Entry(norm.moving_mean, (f"{name}.running_mean",), layouts.SAME),
        Entry(norm.moving_variance, (f"{name}.running_var",), layouts.SAME),
    ]


def _scale_and_offset(norm: Any, name: str) -> list[Entry]:
    return [
        Entry(norm.gamma, (f"{name}.weight",), layouts.SAME),
        Entry(norm.beta, (f"{name}.bias",), layouts.SAME),
    ]


def backbone_entries(project: str, backbone: Any, *args: Any, **kwargs: Any) -> list[Entry]:
    """Entries of a detector's backbone, of whichever kind, in a project's names."""
    weights = backbones.entry_of(backbone).weights_module()
    return weights.entries(project, backbone, *args, **kwargs)


def residual_convs(resnet: ResNet) -> Iterator[tuple[int, int, str, Any, Any]]:
    """Walk over a backbone's residual blocks.

    Yields:
      level 2..5, block 0.., "conv1".."conv3" or "shortcut", the convolution, its norm.
    """
    for level in range(2, 6):
        stage = getattr(resnet, f"stage{level}")
        # An RPN on C4 has no use for stage 5: its weights do not exist.
        for index, block in enumerate(stage.blocks if stage.built else ()):
            yield from ((level, index, *found) for found in block_convs(block))


def block_convs(block: Any) -> Iterator[tuple[str, Any, Any]]:
    """Walk over one residual block: name, convolution, its norm."""
    for k in (1, 2, 3):
        if hasattr(block, f"conv{k}"):  # basic blocks have two
            yield f"conv{k}", getattr(block, f"conv{k}"), getattr(block, f"norm{k}")
    if block.shortcut is not None:
        yield "shortcut", block.shortcut, block.shortcut_norm
