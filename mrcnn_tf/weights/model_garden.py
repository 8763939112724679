"""Model Garden's ResNet (`official.vision`) from a TensorFlow checkpoint: names and layouts.

The backbone is a functional model, whose layers a checkpoint only counts: `layer_with_weights-0`
is the stem's convolution, 1 its norm, and one residual block follows after the other. Kernels
are laid out as ours.

Model Garden pads strided convolutions and the stem's pooling at the bottom and right (TensorFlow's
SAME), we on all sides as torch and the original do: the same weights see an image shifted by half
a stride. So this is where training starts from, not a detector that gives the same numbers.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mrcnn_tf.modeling.resnet import ResNet
from mrcnn_tf.weights import assign, layouts
from mrcnn_tf.weights.assign import Entry

# Where a backbone hangs: saved by itself, in a run of official.vision, inside a classifier.
_PREFIXES = (
    "backbone/",
    "model/backbone/",
    "model/layer_with_weights-0/",
    "model/",
    "",
)


def backbone_names(names: Iterable[str]) -> dict[str, str]:
    """Find the backbone in a checkpoint: {name: the same, counted from the backbone}.

    Empty if there is none.
    """
    every = set(names)
    for prefix in _PREFIXES:
        if f"{prefix}layer_with_weights-2/_conv1/kernel" in every:
            return {
                name: name.removeprefix(prefix)
                for name in every
                if re.fullmatch(re.escape(prefix) + r"layer_with_weights-\d+/[^-]*", name)
            }
    return {}


def load_backbone(resnet: ResNet, state_dict: Mapping[str, Any]) -> assign.Report:
    """Assign a checkpoint's ResNet to our backbone.

    Args:
      resnet: built, with batch norms and the stride in the 3x3.
      state_dict: {name without `/.ATTRIBUTES/VARIABLE_VALUE`: array} of the whole checkpoint.

    Returns:
      What became of each tensor.

    Raises:
      ValueError: see `assign.assign`.
    """
    names = backbone_names(state_dict)
    backbone = {short: state_dict[name] for name, short in names.items()}
    report = assign.assign(backbone_entries(resnet), backbone, resnet.weights, {})
    others = sorted(state_dict.keys() - names.keys())
    return dataclasses.replace(report, dropped=dict.fromkeys(others, "not the backbone's"))


def backbone_entries(resnet: ResNet) -> list[Entry]:
    """Say where each variable of the backbone comes from."""
    listed = [
        Entry(resnet.stem.conv1.kernel, ("layer_with_weights-0/kernel",), layouts.SAME),
        *_norm(resnet.stem.norm1, "layer_with_weights-1"),
    ]
    for block, name, conv, norm in _numbered_convs(resnet):
        layer = f"layer_with_weights-{2 + block}"
        theirs = ("_shortcut", "_norm0") if name == "shortcut" else (f"_{name}", f"_norm{name[-1]}")
        listed.append(Entry(conv.kernel, (f"{layer}/{theirs[0]}/kernel",), layouts.SAME))
        listed += _norm(norm, f"{layer}/{theirs[1]}")
    return listed


def _numbered_convs(resnet: ResNet) -> Iterator[tuple[int, str, Any, Any]]:
    """Walk over the residual convolutions: number of the block in the network, name, conv, norm."""
    blocks: dict[tuple[int, int], int] = {}
    for level, index, name, conv, norm in assign.residual_convs(resnet):
        yield blocks.setdefault((level, index), len(blocks)), name, conv, norm


def _norm(norm: Any, name: str) -> list[Entry]:
    if not hasattr(norm, "moving_mean"):
        raise ValueError(f"the file has a batch norm {name}, our model a {type(norm).__name__}")
    return [
        Entry(getattr(norm, n), (f"{name}/{n}",), layouts.SAME)
        for n in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
