"""The weights behind the recordings, made again from their names and shapes.

No released checkpoint is small enough to be kept here. So the recordings were made with random
weights: each tensor is drawn from a generator seeded with the recording's seed and its own name,
and scaled so that features keep their size, scores spread out and boxes really move.
"""

import math
import zlib

import numpy as np

# Variance of an output for inputs of variance 1/2, by a part of the weight's name; else 2 (He).
_GAINS = {
    "fpn.inner_blocks": 0.03,
    "fpn_lateral": 0.03,
    "fpn.layer_blocks": 0.6,
    "fpn_output": 0.6,
    "rpn.head.cls_logits": 12.0,
    "rpn_head.objectness_logits": 12.0,
    "rpn.head.bbox_pred": 1.0,
    "rpn_head.anchor_deltas": 1.0,
    "box_predictor.cls_score": 12.0,
    "box_predictor.bbox_pred": 8.0,
    "mask_predictor.mask_fcn_logits": 8.0,
    "mask_head.predictor": 8.0,
    "score_lowres": 4.0,
    "stem.conv1": 2.0 / 57.0**2,  # Detectron2's input is not divided by a deviation
}
# C4's heads look at features that are wide and not normalised.
_C4_GAINS = {
    "rpn_head.conv": 0.02,
    "box_predictor.cls_score": 1.0,
    "box_predictor.bbox_pred": 0.4,
    "mask_head.predictor": 2.0,
}
# [in, out, ...], the others are [out, in, ...]; an output has `in` inputs, of a keypoint's 4 x in.
_TRANSPOSED = ("conv5_mask", "deconv", "score_lowres")


def state_dict(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """Return {name: float32 tensor in torch's layout}."""
    is_c4 = any(name.startswith("roi_heads.res5.") for name in shapes)
    gains = _GAINS | _C4_GAINS if is_c4 else _GAINS
    return {name: _tensor(name, tuple(shape), seed, gains) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], seed: int, gains: dict[str, float]) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = rng.standard_normal(shape)
    kind = name.rsplit(".", 1)[-1]
    if kind == "weight" and len(shape) > 1:
        fan_in = shape[0] if any(t in name for t in _TRANSPOSED) else math.prod(shape[1:])
        gain = next((g for part, g in gains.items() if part in name), 2.0)
        drawn = np.sqrt(gain / fan_in) * noise
    elif kind == "weight":  # scale of a batch norm, small at the end of a residual branch
        is_last = ".bn3." in name or ".conv3.norm." in name
        drawn = rng.uniform(*((0.2, 0.4) if is_last else (0.7, 1.2)), shape)
    elif kind == "running_var":
        drawn = rng.uniform(0.5, 1.5, shape)
    else:
        drawn = {"bias": 0.05, "running_mean": 0.1}[kind] * noise
    return drawn.astype(np.float32)
