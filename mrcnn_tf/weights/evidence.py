"""What a file says itself of how its weights must be used: anchors and pixel statistics.

Detectron2 kept both as buffers of the network, so a checkpoint may have them, and they are those it
was trained with. Released files and torchvision's have neither.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn_tf.ops import anchors

_CELL_ANCHORS = re.compile(r"(?:proposal_generator\.)?anchor_generator\.cell_anchors\.(\d+)")
# ImageNet's means in RGB, 0..255, as PyTorch's models have them; those of Caffe's differ by 1.
_IMAGENET_RGB = np.array([123.675, 116.28, 103.53])
_IMAGENET_TOLERANCE = 2.0
# Both projects' statistics, to know them again in half precision.
_TYPED_IN = (
    *(123.675, 116.28, 103.53, 58.395, 57.12, 57.375),
    *(0.485, 0.456, 0.406, 0.229, 0.224, 0.225),
    *(102.9801, 115.9465, 122.7717),
)


def told(state_dict: Mapping[str, Any], features: str) -> dict[str, dict[str, Any]]:
    """Read what a state dict says of its own conventions.

    Args:
      state_dict: {name: array}.
      features: as `fields.Model`'s: pyramids share anchors among levels.

    Returns:
      fields of `fields.Model`, only those that the file has: {"pixels": {"mean": ..., "std": ...,
      "order": "rgb" or "bgr" if it can be told}, "rpn": {"anchor_sizes": ..., ...}}.

    Raises:
      ValueError: its anchors are none that an experiment can have.
    """
    found: dict[str, dict[str, Any]] = {}
    if "pixel_mean" in state_dict:
        found["pixels"] = _pixels(state_dict["pixel_mean"], state_dict.get("pixel_std"))
    levels = {
        int(match[1]): np.asarray(state_dict[name])
        for name in state_dict
        if (match := _CELL_ANCHORS.fullmatch(name))
    }
    if levels:
        found["rpn"] = _anchors([levels[level] for level in sorted(levels)], features)
    if "backbone.body.bn1.num_batches_tracked" in state_dict:  # frozen norms do not count
        found["backbone"] = {"norm": "batch_norm"}
    return found


def _pixels(mean: Any, std: Any) -> dict[str, Any]:
    """Statistics on the scale 0..255; the order of the channels, if the means are ImageNet's."""
    means = _rounded(mean)
    deviations = _rounded(std) if std is not None else [1.0] * len(means)
    if len(means) != 3 or len(deviations) != 3:
        raise ValueError(f"its images have {len(means)} channels; here they have three, RGB or BGR")
    if not all(np.isfinite(means)) or not all(0 < d < np.inf for d in deviations):
        raise ValueError(f"its pixel statistics are none: mean {means}, deviation {deviations}")
    scale = 255.0 if 0 < max(means) <= 1 and max(deviations) <= 1 else 1.0
    found: dict[str, Any] = {
        "mean": [scale * value for value in means],
        "std": [scale * value for value in deviations],
    }
    for order, imagenet in (("rgb", _IMAGENET_RGB), ("bgr", _IMAGENET_RGB[::-1])):
        if np.allclose(found["mean"], imagenet, rtol=0, atol=_IMAGENET_TOLERANCE):
            found["order"] = order
    return found


def _rounded(values: Any) -> list[float]:
    """Numbers as they were typed in before they became float32 or half of it."""
    flat = np.ravel(values)
    typed_in = {float(flat.dtype.type(known)): known for known in _TYPED_IN}
    return [typed_in.get(float(value), float(f"{float(value):.7g}")) for value in flat]


def _anchors(levels: Sequence[np.ndarray], features: str) -> dict[str, Any]:
    """Sizes and ratios that give the anchors of a file, [K, (x1, y1, x2, y2)] per level.

    Raises:
      ValueError: there are none.
    """
    if any(boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) for boxes in levels):
        shapes = [boxes.shape for boxes in levels]
        raise ValueError(f"its anchors are no boxes of four numbers (rotated ones?): {shapes}")
    needed = 5 if features == "fpn" else 1
    if len(levels) != needed:
        raise ValueError(f"it has anchors on {len(levels)} levels; {features.upper()} has {needed}")
    tolerance = max(1e-5, _epsilon(levels[0]))
    boxes = [np.asarray(level, np.float64) for level in levels]
    widths = [level[:, 2] - level[:, 0] for level in boxes]
    heights = [level[:, 3] - level[:, 1] for level in boxes]
    if any((side <= 0).any() or not np.isfinite(side).all() for side in (*widths, *heights)):
        raise ValueError("its anchors have no extent")
    areas = [w * h for w, h in zip(widths, heights, strict=True)]
    # The ratio runs fastest, so the first anchors of equal area are one size.
    num_ratios = len(areas[0])
    if features != "fpn":
        num_ratios = int(np.isclose(areas[0], areas[0][0], rtol=4 * tolerance).sum())
    ratios = [_plain(r, tolerance) for r in (heights[0] / widths[0])[:num_ratios]]
    sizes = [_plain(a**0.5, tolerance) for level in areas for a in level[::num_ratios]]
    per_level = sizes if features == "fpn" else [sizes]
    for number, (size, want) in enumerate(zip(per_level, boxes, strict=True)):
        ours = anchors.cell_anchors(size, ratios, rounded=False)[:, [1, 0, 3, 2]]
        close = ours.shape == want.shape and np.allclose(
            ours, want, rtol=0, atol=4 * tolerance * np.abs(want).max() + 1e-3
        )
        if not close:
            listed = ", ".join(f"{w:g} x {h:g}" for w, h in (want[:, 2:] - want[:, :2])[:6])
            raise ValueError(
                f"its anchors (width x height: {listed} on level {number}) are not one size per "
                f"level with the same ratios on all, centred, which is what networks here have"
            )
    return {"anchor_sizes": sizes, "anchor_ratios": ratios}


def _epsilon(values: np.ndarray) -> float:
    """Relative rounding of the type that numbers are stored in."""
    return {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(str(values.dtype), 2.0**-23)


def _plain(value: float, tolerance: float) -> float:
    """The number with a small denominator that a rounded one stands for, or itself."""
    for denominator in range(1, 11):
        simple = round(value * denominator) / denominator
        if abs(simple - value) <= tolerance * value:
            return simple
    return float(f"{value:.6g}")
