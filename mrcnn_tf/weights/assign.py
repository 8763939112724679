"""From a foreign state dict to our variables: the part that all foreign formats share.

A format file (`torchvision.py`, `detectron2.py`) lists one `Entry` per variable: the variable, what
the tensor is called there, and how its layout becomes ours. `assign` then sees to it that every
variable gets a value and every tensor is accounted for.

Layouts on the torch side: convolutions OIHW, dense [out, in], transposed convolutions IOHW,
features NCHW, boxes (x, y, w, h).
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.modeling.resnet import ResNet

_MOST_LISTED = 8  # names of one kind in an error message


class Entry(NamedTuple):
    """Where one variable comes from.

    Attributes:
      variable: ours.
      names: what the tensor may be called in the file; the first one found is taken.
      convert: the tensor in torch's layout -> in ours.
    """

    variable: tf.Variable
    names: tuple[str, ...]
    convert: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a file's tensors.

    Attributes:
      loaded: names of the tensors that were assigned.
      dropped: {name: why it is not needed}.
    """

    loaded: tuple[str, ...]
    dropped: dict[str, str]


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
    values, loaded, problems = _convert(entries, state_dict)
    dropped, unknown = {}, []
    for name in sorted(state_dict.keys() - set(loaded)):
        reasons = [why for pattern, why in not_needed.items() if re.fullmatch(pattern, name)]
        if reasons:
            dropped[name] = reasons[0]
        else:
            unknown.append(name)
    known = {id(entry.variable) for entry in entries}
    problems["unknown"] = unknown
    problems["of ours without a source"] = [w.name for w in weights if id(w) not in known]
    if any(problems.values()):
        raise ValueError("the weights do not fit this model:" + _listed(problems))
    for variable, value in values:
        variable.assign(value)
    return Report(tuple(loaded), dropped)


def _convert(
    entries: Sequence[Entry], state_dict: Mapping[str, Any]
) -> tuple[list[tuple[tf.Variable, np.ndarray]], list[str], dict[str, list[str]]]:
    """Return (variable, value) pairs, the names they come from, and {kind of problem: names}."""
    values, loaded, missing, misshapen = [], [], [], []
    for entry in entries:
        name = next((n for n in entry.names if n in state_dict), None)
        if name is None:
            missing.append(" or ".join(entry.names))
            continue
        loaded.append(name)
        tensor = np.asarray(state_dict[name], np.float32)
        shape = tuple(entry.variable.shape)
        try:
            value = entry.convert(tensor)
        except (ValueError, IndexError):  # not even the number of axes is right
            value = None
        if value is not None and value.shape == shape:
            values.append((entry.variable, value))
        else:
            misshapen.append(f"{name} {tensor.shape}, for {entry.variable.name} {shape}")
    return values, loaded, {"missing": missing, "of the wrong shape": misshapen}


def _listed(problems: Mapping[str, Sequence[str]]) -> str:
    text = ""
    for kind, names in problems.items():
        if names:
            text += f"\n{len(names)} tensors {kind}:\n  " + "\n  ".join(names[:_MOST_LISTED])
            text += "\n  ..." if len(names) > _MOST_LISTED else ""
    return text


# --- Layouts ------------------------------------------------------------------------------------


def same(tensor: np.ndarray) -> np.ndarray:
    """[C] -> [C]."""
    return tensor


def conv(kernel: np.ndarray) -> np.ndarray:
    """[out, in, h, w] -> [h, w, in, out]; for a transposed one [in, out, h, w] -> [h, w, out, in].

    Neither framework flips the kernel of a transposed convolution, so the axes are all there is.
    """
    return kernel.transpose(2, 3, 1, 0)


def dense(kernel: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out]."""
    return kernel.transpose(1, 0)


def dense_after_flatten(channels: int) -> Callable[[np.ndarray], np.ndarray]:
    """[out, C * side * side] -> [side * side * C, out]: the RoI feature was flattened as NCHW."""

    def convert(kernel: np.ndarray) -> np.ndarray:
        outputs = kernel.shape[0]
        by_channel = kernel.reshape(outputs, channels, -1)
        return by_channel.transpose(2, 1, 0).reshape(-1, outputs)

    return convert


def predictor(kernel: np.ndarray) -> np.ndarray:
    """1x1 convolution [out, in, 1, 1] -> matrix [in, out]."""
    return conv(kernel)[0, 0]


def box_rows(tensor: np.ndarray) -> np.ndarray:
    """[K * (dx, dy, dw, dh), ...] -> [K * (dy, dx, dh, dw), ...], for anchors or for classes."""
    grouped = tensor.reshape(-1, 4, *tensor.shape[1:])
    return grouped[:, [1, 0, 3, 2]].reshape(tensor.shape)


def then(*steps: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the conversion that takes the steps one after the other."""

    def convert(tensor: np.ndarray) -> np.ndarray:
        for step in steps:
            tensor = step(tensor)
        return tensor

    return convert


# --- Entries ------------------------------------------------------------------------------------


def with_bias(
    layer: Any, *names: str, rows: Callable = same, kernel: Callable = conv
) -> list[Entry]:
    """Return the entries of a layer's `kernel` and `bias`.

    Args:
      layer: has the variables `kernel` and `bias`.
      *names: what the layer may be called in the file, without `.weight` and `.bias`.
      rows: what happens to the outputs, the first axis of both tensors.
      kernel: layout of the weight after that.
    """
    return [
        Entry(layer.kernel, tuple(f"{n}.weight" for n in names), then(rows, kernel)),
        Entry(layer.bias, tuple(f"{n}.bias" for n in names), rows),
    ]


def conv_and_norm(conv_layer: Any, norm: Any, conv_name: str, norm_name: str) -> list[Entry]:
    """Return the entries of a convolution without bias and of the batch norm behind it.

    Raises:
      ValueError: the norm is of another kind.
    """
    if not hasattr(norm, "moving_mean"):
        raise ValueError(
            f"{conv_name} has a batch norm behind it, our model a {type(norm).__name__}"
        )
    tensors = {
        "weight": norm.gamma,
        "bias": norm.beta,
        "running_mean": norm.moving_mean,
        "running_var": norm.moving_variance,
    }
    return [
        Entry(conv_layer.kernel, (f"{conv_name}.weight",), conv),
        *(Entry(variable, (f"{norm_name}.{n}",), same) for n, variable in tensors.items()),
    ]


def residual_convs(resnet: ResNet) -> Iterator[tuple[int, int, str, Any, Any]]:
    """Walk over a backbone's residual blocks.

    Yields:
      level 2..5, block 0.., "conv1".."conv3" or "shortcut", the convolution, its norm.
    """
    for level in range(2, 6):
        for index, block in enumerate(getattr(resnet, f"stage{level}").blocks):
            for k in (1, 2, 3):
                name = f"conv{k}"
                if hasattr(block, name):  # basic blocks have two
                    yield level, index, name, getattr(block, name), getattr(block, f"norm{k}")
            if block.shortcut is not None:
                yield level, index, "shortcut", block.shortcut, block.shortcut_norm
