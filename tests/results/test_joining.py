"""Pieces of two tiles, drawn by hand: which are one object and which are not."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.results import joining
from mrcnn_tf.results.column_runs import Rectangle
from mrcnn_tf.results.detection import Detection

HEIGHT, WIDTH = 60, 160
LEFT, RIGHT = Rectangle(0, 0, 60, 100), Rectangle(0, 60, 60, 160)  # 60..100 is seen twice
WINDOWS = [LEFT, RIGHT]


def drawn(*rectangles):
    """A mask of rectangles (y1, x1, y2, x2) in the whole image."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for y1, x1, y2, x2 in rectangles:
        mask[y1:y2, x1:x2] = True
    return mask


def pieces(*seen, with_masks=True):
    """Pieces of (tile, mask in the whole image, category, score); cut at the tile."""
    made = []
    for tile, mask, category_id, score in seen:
        y1, x1, y2, x2 = window = WINDOWS[tile]
        cut = mask[y1:y2, x1:x2]
        y, x = np.nonzero(cut)
        box = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1], np.float64)
        runs = coco_mask.encode(np.asfortranarray(cut.astype(np.uint8)))
        thing = Detection(box, score, category_id, f"c{category_id}", runs if with_masks else None)
        made.append(joining.piece(tile, window, thing))
    return made


def joined(*seen):
    objects = joining.join(pieces(*seen), WINDOWS, HEIGHT, WIDTH)
    return [(one.score, coco_mask.decode(one.mask).astype(bool)) for one in objects]


def assert_objects(found, *expected):
    assert [score for score, _ in found] == [score for score, _ in expected]
    for (_, mask), (_, truth) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, truth)


def test_an_object_across_the_seam_is_one():
    """A hundredth of it is in the overlap alone: the IoU of whole pieces would say nothing."""
    bar = drawn((20, 5, 30, 155))
    assert_objects(joined((0, bar, 1, 0.7), (1, bar, 1, 0.9)), (0.9, bar))
    (found,) = joining.join(pieces((0, bar, 1, 0.7), (1, bar, 1, 0.9)), WINDOWS, HEIGHT, WIDTH)
    assert found.box.tolist() == [20, 5, 30, 155]
    assert found.category == "c1"


def test_objects_of_one_tile_stay():
    a, b = drawn((0, 0, 9, 9)), drawn((0, 120, 9, 130))
    assert_objects(joined((0, a, 1, 0.4), (1, b, 1, 0.6)), (0.6, b), (0.4, a))


def test_two_that_touch_stay_two():
    upper, lower = drawn((10, 40, 20, 120)), drawn((20, 40, 30, 120))
    found = joined((0, upper, 1, 0.9), (0, lower, 1, 0.7), (1, lower, 1, 0.6), (1, upper, 1, 0.8))
    assert_objects(found, (0.9, upper), (0.7, lower))


def test_one_on_another_of_its_class_stays_apart():
    """Both are seen by both tiles; the smaller lies within the larger."""
    large, small = drawn((5, 20, 55, 140)), drawn((20, 85, 30, 120))
    found = joined((0, large, 1, 0.9), (0, small, 1, 0.8), (1, small, 1, 0.7), (1, large, 1, 0.6))
    assert_objects(found, (0.9, large), (0.8, small))


def test_one_that_only_one_tile_has_found_is_no_part_of_what_is_below_it():
    """It ends in the overlap without being cut there."""
    large, small = drawn((5, 20, 55, 140)), drawn((20, 70, 30, 90))
    found = joined((0, large, 1, 0.9), (0, small, 1, 0.8), (1, large, 1, 0.6))
    assert_objects(found, (0.9, large), (0.8, small))


def test_legs_that_only_the_other_tile_sees_joined():
    """A U on its side: the left tile sees two bars, the right one the bend."""
    legs = [drawn((5, 10, 15, 140)), drawn((40, 10, 50, 140))]
    bend = drawn((5, 10, 15, 140), (40, 10, 50, 140), (5, 130, 50, 140))
    found = joined((0, legs[0], 1, 0.9), (0, legs[1], 1, 0.8), (1, bend, 1, 0.7))
    assert_objects(found, (0.9, bend))


def test_a_sliver_that_is_seen_badly():
    """The right tile sees a whole bar, the left one a fifth of what it could see of it."""
    bar, sliver = drawn((10, 70, 30, 150)), drawn((15, 92, 27, 100))
    found = joined((1, bar, 1, 0.9), (0, sliver, 1, 0.3))
    assert_objects(found, (0.9, bar))


def test_other_categories_are_other_objects():
    bar = drawn((20, 5, 30, 155))
    assert_objects(joined((0, bar, 1, 0.9), (1, bar, 2, 0.7)), *[
        (0.9, bar & drawn(LEFT)), (0.7, bar & drawn(RIGHT)),
    ])  # fmt: skip


def test_without_masks_boxes_are_joined():
    bar, dot = drawn((20, 5, 30, 155)), drawn((40, 70, 44, 75))
    seen = [(0, bar, 1, 0.9), (1, bar, 1, 0.8), (0, dot, 1, 0.7), (1, dot, 1, 0.6)]
    objects = joining.join(pieces(*seen, with_masks=False), WINDOWS, HEIGHT, WIDTH)
    assert [(one.score, one.box.tolist(), one.mask) for one in objects] == [
        (0.9, [20, 5, 30, 155], None), (0.7, [40, 70, 44, 75], None),
    ]  # fmt: skip


def test_a_mask_without_a_pixel_stays_alone():
    (one,) = pieces((0, drawn((20, 70, 30, 90)), 1, 0.9))
    empty = {
        "size": [60, 100],
        "counts": coco_mask.encode(np.zeros((60, 100), np.uint8, "F"))["counts"],
    }
    thing = one.detection._replace(mask=empty)
    both = [joining.piece(0, LEFT, thing), joining.piece(1, RIGHT, thing)]
    objects = joining.join(both, WINDOWS, HEIGHT, WIDTH)
    assert [coco_mask.area(found.mask) for found in objects] == [0, 0]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_four_tiles_around_a_corner(order):
    """One object that all four see, in whichever order they come."""
    windows = [Rectangle(y, x, y + 40, x + 100) for y in (0, 20) for x in (0, 60)]
    disc = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([30, 80]).reshape(2, 1, 1))) < 25
    made = []
    for k in order:
        y1, x1, y2, x2 = windows[k]
        runs = coco_mask.encode(np.asfortranarray(disc[y1:y2, x1:x2].astype(np.uint8)))
        thing = Detection(np.array([0.0, 0, 40, 100]), 0.5 + k / 10, 1, "c", runs)
        made.append(joining.piece(k, windows[k], thing))
    (found,) = joining.join(made, windows, HEIGHT, WIDTH)
    assert found.score == 0.8
    np.testing.assert_array_equal(coco_mask.decode(found.mask), disc)


def test_nothing():
    assert joining.join([], WINDOWS, HEIGHT, WIDTH) == []
