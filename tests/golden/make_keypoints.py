"""Records torchvision's keypoint branch: `PYTHON_WITH_TORCHVISION tests/golden/make_keypoints.py`.

Writes `data/keypoints_torchvision.npz`: eight convolutions of 16 and the maps of five keypoints,
with weights by `recipe.py`, on made-up features of eight RoIs of two images. Boxes are
(y1, x1, y2, x2), keypoints (y, x, v), tensors NCHW; of large ones, values are picked.

| keys | what |
|---|---|
| `shapes`, `seed` | JSON {name of a weight: shape}; of `recipe.state_dict` |
| `features` | float16 [8, 8, 14, 14], what the head looks at |
| `logits` | [8, 5, 56, 56], `/index` in the flattened tensor, `/value` there |
| `rois0`, `rois1`, `gt_index0`, `gt_index1`, `gt_keypoints0`, `gt_keypoints1` | of both images |
| `loss`, `loss0`, `loss1`, `num_learned` | of both, of each; how many keypoints have a cell |
| `logit_gradient`, `feature_gradient` | of `loss`, `/index` and `/value` |
| `gradient_norms` | of `loss`, one for each of `shapes` |
| `boxes`, `places`, `scores` | [8, 4], [8, 5, (y, x)], [8, 5]: the same logits in other boxes |
| `odd_rois`, `odd_keypoints`, `odd_cells`, `odd_valid` | targets alone, where rounding shows |
"""

import json
import pathlib

import numpy as np
import recipe
import torch
import torchvision
from torchvision.models.detection import keypoint_rcnn, roi_heads

SEED = 0
KEYPOINTS = 5
CHANNELS, HIDDEN = 8, 16
PICKED = 1500
HEAD, PREDICTOR = "roi_heads.keypoint_head", "roi_heads.keypoint_predictor"

# The second lies beside its object, the fourth is small, the fifth is much larger than its object.
ROIS = (
    [
        [20, 30, 120, 200],
        [15.5, 62.25, 131.75, 190.1],
        [200, 40, 260.3, 90.9],
        [60, 60, 61.5, 63],
        [0, 0, 320, 480],
    ],
    [[10, 300, 250, 420], [33.3, 280.7, 199.9, 401.2], [100, 5, 180, 45]],
)
GT_INDEX = ([0, 0, 1, 2, 1], [1, 1, 0])
# Of the first image's objects; the first has its third and fourth on edges of the first RoI.
GT_KEYPOINTS = [
    [[25, 40, 2], [100.5, 61.5, 2], [120, 77.7, 1], [60, 200, 2], [70, 100, 0]],
    [[210, 50, 2], [259.9, 90.5, 1], [300, 60, 2], [0, 0, 0], [220.2, 39.9, 2]],
    [[60, 60, 2], [61.4, 62.9, 2], [61, 63.1, 2], [59.9, 61, 1], [60.7, 61.2, 0]],
]
# Any shape: a cell a pixel, halves, long and flat, less than a pixel, without extent, large.
BOXES = [
    [100, 200, 156, 256],
    [3, 4, 19.5, 12.25],
    [0.5, 0.25, 9.3, 170.9],
    [10, 20, 10.4, 23],
    [50, 60, 50, 60],
    [7.7, 3.1, 300.2, 411.4],
    [-12.5, -3, 77, 61],
    [33.3, 280.7, 199.9, 401.2],
]


def torchs(array: np.ndarray) -> torch.Tensor:
    """Return boxes (y1, x1, y2, x2) or keypoints (y, x, v) in torchvision's order."""
    array = np.asarray(array, np.float32)
    order = [1, 0, 3, 2] if array.shape[-1] == 4 else [1, 0, 2]
    return torch.tensor(array[..., order])


def odd_targets(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Keypoints on and beside the borders of cells, on edges, outside, and of RoIs without area."""
    count, size = 40, 56
    corners = np.sort(rng.uniform(0, 400, [count, 2, 2]), axis=1).astype(np.float32)
    rois = corners.reshape(count, 4)
    step = (corners[:, 1] - corners[:, 0])[:, None] / np.float32(size)  # [count, 1, 2]
    border = rng.integers(-1, size + 2, [count, 17, 2]).astype(np.float32)
    points = corners[:, :1] + border * step
    points[:, 12:] = np.nextafter(points[:, 12:], np.float32(0))
    points[:, 15] = corners[:, 1]
    points[:, 16] = corners[:, 0]
    rois[-2, 2:] = rois[-2, :2]
    rois[-1, 3] = rois[-1, 1]
    points[-2:, :8] = rois[-2:, None, 2:]
    visibility = rng.integers(0, 3, [count, 17, 1])
    keypoints = np.concatenate([points, visibility], axis=-1).astype(np.float32)
    cells, valid = roi_heads.keypoints_to_heatmap(torchs(keypoints), torchs(rois), size)
    return {
        "odd_rois": rois,
        "odd_keypoints": keypoints,
        "odd_cells": cells.numpy().astype(np.int16),
        "odd_valid": valid.numpy().astype(bool),
    }


def main() -> None:
    rng = np.random.default_rng(SEED)
    head = keypoint_rcnn.KeypointRCNNHeads(CHANNELS, (HIDDEN,) * 8)
    predictor = keypoint_rcnn.KeypointRCNNPredictor(HIDDEN, KEYPOINTS)
    weights = {f"{HEAD}.{name}": w for name, w in head.named_parameters()}
    weights |= {f"{PREDICTOR}.{name}": w for name, w in predictor.named_parameters()}
    shapes = {name: list(weight.shape) for name, weight in weights.items()}
    with torch.no_grad():
        for name, value in recipe.state_dict(shapes, SEED).items():
            weights[name].copy_(torch.tensor(value))

    # Five times as large as a layer's, so that maps have peaks though the head is narrow.
    features = 5 * rng.standard_normal([8, CHANNELS, 14, 14]).clip(0)
    features = features.astype(np.float16)
    given = torch.tensor(features.astype(np.float32), requires_grad=True)
    logits = predictor(head(given))
    logits.retain_grad()

    near = rng.uniform([10, 290], [250, 430], [2, KEYPOINTS, 2])
    others = np.concatenate([near, rng.integers(0, 3, [2, KEYPOINTS, 1])], axis=-1)
    others[0, :, :2] = rng.uniform([95, 0], [185, 50], [KEYPOINTS, 2])
    gt_keypoints = [np.asarray(k, np.float32) for k in (GT_KEYPOINTS, others)]
    rois = [np.asarray(boxes, np.float32) for boxes in ROIS]
    parts = list(zip(map(torchs, rois), map(torchs, gt_keypoints), GT_INDEX, strict=True))

    def loss(of: torch.Tensor, images: list) -> torch.Tensor:
        boxes, keypoints, index = zip(*images, strict=True)
        return roi_heads.keypointrcnn_loss(of, boxes, keypoints, [torch.tensor(i) for i in index])

    both = loss(logits, parts)
    both.backward()
    learned = [
        int(roi_heads.keypoints_to_heatmap(keypoints[index], boxes, 56)[1].sum())
        for boxes, keypoints, index in parts
    ]
    arrays = {
        "shapes": json.dumps(shapes),
        "seed": SEED,
        "features": features,
        "loss": both.item(),
        "loss0": loss(logits[:5], parts[:1]).item(),
        "loss1": loss(logits[5:], parts[1:]).item(),
        "num_learned": learned,
        "gradient_norms": [float(weight.grad.norm()) for weight in weights.values()],
        "boxes": np.asarray(BOXES, np.float32),
    }
    for image in range(2):
        arrays[f"rois{image}"] = rois[image]
        arrays[f"gt_index{image}"] = GT_INDEX[image]
        arrays[f"gt_keypoints{image}"] = gt_keypoints[image]
    tensors = {"logits": logits, "logit_gradient": logits.grad, "feature_gradient": given.grad}
    for key, tensor in tensors.items():
        flat = tensor.detach().numpy().ravel()
        index = rng.choice(flat.size, PICKED, replace=False)
        if key == "logit_gradient":  # below 0 in the cells of keypoints alone, so those too
            index = np.union1d(index, np.flatnonzero(flat < 0))
        arrays[f"{key}/index"] = index.astype(np.int32)
        arrays[f"{key}/value"] = flat[index]
    with torch.no_grad():
        (found,), (scores,) = roi_heads.keypointrcnn_inference(logits, [torchs(BOXES)])
    arrays |= {"places": found[..., [1, 0]].numpy(), "scores": scores.numpy()}
    arrays |= odd_targets(rng)
    path = pathlib.Path(__file__).parent / "data" / "keypoints_torchvision.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path}: torchvision {torchvision.__version__}")


if __name__ == "__main__":
    main()
