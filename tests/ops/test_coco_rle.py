"""Crops to COCO's run lengths, against pycocotools on the full mask."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.data.rle import column_runs_from_string
from mrcnn_tf.ops import coco_rle


@pytest.mark.parametrize(
    ("top", "left", "h", "w"),
    [
        (0, 0, 6, 9),
        (0, 2, 6, 3),
        (0, 0, 1, 1),
        (5, 8, 1, 1),
        (2, 3, 3, 4),
        (4, 0, 2, 9),
        (3, 3, 0, 2),
    ],
)
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_crop_to_rle_equals_pycocotools(top, left, h, w, density):
    rng = np.random.default_rng(int(density * 10))
    for _ in range(20):
        crop = rng.random((h, w)) < density
        full = np.zeros((6, 9), np.uint8, order="F")
        full[top : top + h, left : left + w] = crop
        assert coco_rle.crop_to_rle(crop, top, left, 6, 9) == coco_mask.encode(full)


@pytest.mark.parametrize("size", [(6, 9), (1, 1), (1, 50), (50, 1), (200, 300)])
def test_many_crops_equal_pycocotools(size):
    """Random places and sizes, full height among them, where runs go on in the next column."""
    height, width = size
    rng = np.random.default_rng(height)
    crops, corners, fulls = [], [], []
    for k in range(200):
        h = height if k % 5 == 0 else int(rng.integers(0, height + 1))
        w = int(rng.integers(0, width + 1))
        corner = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        crop = rng.random((h, w)) < rng.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        full = np.zeros(size, np.uint8, order="F")
        full[corner[0] : corner[0] + h, corner[1] : corner[1] + w] = crop
        crops.append(crop)
        corners.append(corner)
        fulls.append(full)
    tops, lefts = np.array(corners).T
    rles = coco_rle.crops_to_rles(crops, tops, lefts, height, width)
    for full, rle in zip(fulls, rles, strict=True):
        assert rle == coco_mask.encode(full)


def test_no_crops():
    assert coco_rle.crops_to_rles([], np.zeros(0, int), np.zeros(0, int), 5, 5) == []


def test_counts_of_every_length_are_written_as_pycocotools_writes_them():
    """Numbers about each power of 32, growing and falling, so that differences are negative too."""
    edges = [2 ** (5 * k - 1) + d for k in range(1, 6) for d in (-1, 0, 1)]
    rng = np.random.default_rng(0)
    masks = [np.array(edges), np.array(edges[::-1]), np.array([7]), np.array([0, 7])]
    masks += [rng.choice([0, 1, 2, *edges], size) for size in (1, 2, 3, 4, 5, 40, 400)]
    texts = coco_rle.compress(np.concatenate(masks), np.array([len(m) for m in masks]))
    for counts, text in zip(masks, texts, strict=True):
        np.testing.assert_array_equal(column_runs_from_string(text), counts)
        total = int(counts.sum())
        uncompressed = {"size": [1, total], "counts": counts.tolist()}
        if total < 2**31:
            assert text == coco_mask.frPyObjects(uncompressed, 1, total)["counts"]
