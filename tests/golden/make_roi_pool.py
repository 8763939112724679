"""Records torchvision's RoIPool: `PYTHON_WITH_TORCHVISION tests/golden/make_roi_pool.py`.

Writes `data/roi_pool_torchvision.npz`: features [2, 6, 9, 2] of stride 16, boxes [2, 12, 4] (yxyx,
input pixels), and for each side 1, 2, 3 and 7 what was pooled and the gradient of the features for
an upstream gradient that is in the file. The kernel computes bins in float32; up to 56 pixels they
are the exact ones.
"""

import pathlib

import numpy as np
import torch
import torchvision

SIDES = (1, 2, 3, 7)


def main() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 6, 9, 2)).astype(np.float32)
    # On a canvas of 96 x 144: whole, at a border, halves to round, smaller than a pixel, outside,
    # inverted, without extent.
    boxes = np.array(
        [
            [0, 0, 96, 144],
            [40, 24, 72, 120],
            [8, 8, 24, 40],
            [7.9, 8.1, 23.9, 24.1],
            [50, 60, 52, 63],
            [80, 130, 96, 144],
            [200, 10, 300, 90],
            [-100, -90, -60, -40],
            [-30, -25, 30, 200],
            [60, 70, 20, 30],
            [0, 0, 0, 0],
            [33.3, 17.7, 91.2, 139.4],
        ],
        np.float32,
    )
    boxes = np.stack([boxes, boxes[::-1] * np.float32(0.9)])
    rois = torch.tensor([[image, *box[[1, 0, 3, 2]]] for image in range(2) for box in boxes[image]])
    arrays = {"features": features, "boxes": boxes}
    for side in SIDES:
        maps = torch.tensor(features.transpose(0, 3, 1, 2).copy(), requires_grad=True)
        pooled = torchvision.ops.roi_pool(maps, rois, side, 1 / 16)
        upstream = rng.standard_normal(tuple(pooled.shape)).astype(np.float32)
        pooled.backward(torch.tensor(upstream))
        by_image = (2, len(boxes[0]), side, side, 2)
        arrays[f"pooled{side}"] = pooled.detach().numpy().transpose(0, 2, 3, 1).reshape(by_image)
        arrays[f"upstream{side}"] = upstream.transpose(0, 2, 3, 1).reshape(by_image)
        arrays[f"gradient{side}"] = maps.grad.numpy().transpose(0, 2, 3, 1)
    path = pathlib.Path(__file__).parent / "data" / "roi_pool_torchvision.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path}: torchvision {torchvision.__version__}")


if __name__ == "__main__":
    main()
