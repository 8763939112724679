"""Outlines against hand-worked cases and against pycocotools' rasteriser."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.data import pixel_polygons
from mrcnn_tf.data.pixel_polygons import mask_to_polygons


def _mask(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def test_rectangle_by_hand():
    polygons = mask_to_polygons(_mask("....", ".##.", ".##.", ".##."))
    assert polygons == [[3, 1, 3, 4, 1, 4, 1, 1]]


def test_one_pixel_and_nothing():
    assert mask_to_polygons(_mask("#")) == [[1, 0, 1, 1, 0, 1, 0, 0]]
    assert mask_to_polygons(_mask("..", "..")) == []


def test_parts_that_touch_at_a_corner_are_separate():
    assert mask_to_polygons(_mask("#.", ".#")) == [
        [1, 0, 1, 1, 0, 1, 0, 0],
        [2, 1, 2, 2, 1, 2, 1, 1],
    ]


@pytest.mark.parametrize(
    ("rows", "has_hole"),
    [
        (("###", "#.#", "###"), True),
        (("##.", "#.#", "###"), False),  # open through a corner: the outline goes in and out
        (("###", "#..", "###"), False),
    ],
)
def test_holes(rows, has_hole):
    assert (mask_to_polygons(_mask(*rows)) is None) == has_hole


def test_random_masks_survive_the_round_trip():
    rng = np.random.default_rng(0)
    num_compared = 0
    for _ in range(150):
        height, width = (int(n) for n in rng.integers(1, 24, 2))
        block = int(rng.integers(1, 6))
        coarse = rng.random((height // block + 1, width // block + 1)) < 0.4
        mask = np.kron(coarse, np.ones((block, block), bool))[:height, :width]
        polygons = mask_to_polygons(mask)
        if not polygons:
            continue
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        np.testing.assert_array_equal(coco_mask.decode(rle), mask)
        num_compared += 1
    assert num_compared > 60


def test_holes_run_the_other_way():
    outer, hole = pixel_polygons.trace(_mask("####", "#..#", "####"))
    assert outer.tolist() == [[4, 0], [4, 3], [0, 3], [0, 0]]
    assert hole.tolist() == [[1, 2], [3, 2], [3, 1], [1, 1]]
    assert [pixel_polygons.is_hole(outline) for outline in (outer, hole)] == [False, True]
