"""What is chosen for a set of photos, and why."""

import dataclasses
import math

import numpy as np
import pytest

from mrcnn_tf.data import coco_data
from mrcnn_tf.data.coco_annotation import ObjectEntry
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import choices
from mrcnn_tf.experiment.fields import RPN


def objects(sides_hw, image_hw=(480, 640), images=None, image_of_object=None):
    """A set of photos of one size, with objects around their middles."""
    sides = np.array(sides_hw, np.float64).reshape(-1, 2)
    middle = np.array(image_hw) / 2
    images = images or 1
    return choices.Objects(
        np.array([image_hw] * images, np.float64),
        np.zeros(len(sides), int) if image_of_object is None else np.array(image_of_object),
        np.concatenate([middle - sides / 2, middle + sides / 2], axis=1),
        np.zeros(images),
        1,
    )


def test_sides_follow_the_shorter_edge_until_the_longer_one_stops_them():
    # 480 x 640 at 320: a factor of 2/3. A panorama of 200 x 2000 may be 533 wide: 0.2665.
    assert choices.long_edge_of(800) == 1333
    assert choices.long_edge_of(320) == 533
    boxes, sizes = objects([[48, 96]]).at(320, 533)
    np.testing.assert_allclose(boxes, [[144, 181 + 1 / 3, 176, 245 + 1 / 3]])
    assert sizes.tolist() == [[320, 427]]
    boxes, sizes = objects([[100, 200]], image_hw=(200, 2000)).at(320, 533)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], [[26.65, 53.3]])
    assert sizes.tolist() == [[53, 533]]


@pytest.mark.parametrize(
    ("side", "image_hw", "chosen"),
    [
        (100, (480, 640), 320),  # 67 pixels at 320: large
        (48, (480, 640), 320),  # 32 pixels at 320: just large enough
        (40, (480, 640), 416),  # 26.7 at 320, 34.7 at 416
        (24, (480, 640), 640),  # 25.6 at 512, exactly 32 at 640
        (5, (480, 640), 640),  # always small; no photo is enlarged more than by a half
        (5, (2000, 3000), 800),
        (40, (100, 150), 320),  # tiny photos: the smallest size all the same
    ],
)
def test_the_smallest_size_at_which_objects_are_large_enough(side, image_hw, chosen):
    choice = choices.short_edge(objects([[side, side]] * 10, image_hw))
    assert choice.value == chosen
    assert f"at a short edge of {chosen} pixels" in choice.reason


def test_a_twentieth_may_be_too_small():
    sides = [[100, 100]] * 19 + [[3, 3]]
    choice = choices.short_edge(objects(sides))
    assert choice.value == 320
    assert "95% of the objects" in choice.reason
    assert choices.short_edge(objects([*sides, [3, 3]])).value == 640  # 19 of 21


def test_anchors_stay_where_they_fit():
    ours = RPN().anchor_sizes
    squares = objects([[48, 48], [96, 96], [192, 192]])  # 32, 64, 128 at 320
    choice = choices.anchor_sizes(squares, 320, RPN())
    assert choice.value == list(ours)
    assert choice.reason.startswith("100.0% of the objects")
    assert "other sizes would do no better" in choice.reason


def test_anchors_follow_small_objects():
    ours = RPN().anchor_sizes
    small = objects([[18, 18]] * 20)  # 12 at 320: IoU with a 32 anchor is 144 / 1024
    choice = choices.anchor_sizes(small, 320, RPN())
    assert choice.value[0] <= 16
    assert len(choice.value) == 5
    assert choice.value == sorted(choice.value)
    assert f"with {list(ours)} it was 0.0%, mean 0.14" in choice.reason


def test_room_for_the_fullest_photo():
    crowded = objects([[9, 9]] * 41, images=2, image_of_object=[0] * 40 + [1])
    assert choices.max_instances(crowded).value == 60
    assert choices.max_instances(objects([[9, 9]])).value == 20
    many = objects([[9, 9]] * 900)
    assert choices.max_instances(many).value == 300
    assert "the fullest training photo has 900 objects" in choices.max_instances(many).reason


def entry(bbox, is_crowd=False, mask="some"):
    return ObjectEntry(None, 1, bbox, 1.0, is_crowd, mask)


def coco(entries):
    images = [coco_data.ImageEntry(7, "a.jpg", 480, 640), coco_data.ImageEntry(8, "b.jpg", 48, 64)]
    return coco_data.CocoData(
        "set.json", images, {"7": entries}, LabelMap((1,), ("date",)), 2, len(entries), [], {}, []
    )


def test_what_is_gathered_from_annotations():
    # A box that reaches beyond its photo counts as far as the photo; a crowd is nothing to find,
    # but its mask takes room.
    found = choices.objects_of(
        coco(
            [
                entry((1, 2, 30.5, 20)),
                entry((0, 0, 900, 10), mask=None),
                entry((0, 0, 99, 9), is_crowd=True),
            ]
        )
    )
    np.testing.assert_allclose(found.boxes, [[2, 1, 22, 31.5], [0, 0, 10, 640]])
    assert found.counts().tolist() == [2, 0]
    assert found.masks_pixels.tolist() == [21 * 32 + 10 * 100, 0]
    assert [c.value for c in choices.mask_arena_pixels(found)] == [2**16, 2**17]


def test_room_for_masks():
    full = dataclasses.replace(objects([[9, 9]]), masks_pixels=np.array([100_000.0, 300_000.0]))
    train, validation = choices.mask_arena_pixels(full)
    assert train.value == 2**19  # 375,000 and up
    assert validation.value == 2**20
    assert "300,000 pixels" in train.reason


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match=r"set\.json: there is no object to learn from"):
        choices.objects_of(coco([]))


@pytest.mark.parametrize(
    ("num_images", "batch", "steps"),
    [(14, 2, 300), (61, 2, 305), (140, 2, 700), (163, 8, 300), (5000, 2, 800)],
)
def test_each_photo_is_seen_ten_times_before_images_grow(num_images, batch, steps):
    assert choices.least_steps(num_images, batch) == steps


@pytest.mark.parametrize(
    ("minutes", "taken", "measured"),
    [(30, 640, [640]), (5, 512, [640, 512]), (0.5, 320, [640, 320])],
)
def test_time_decides_where_it_is_short(minutes, taken, measured):
    # A step takes 1 s at 320 and grows with the pixels: 4 s at 640, 2.56 s at 512. Three hundred
    # seconds hold 117 steps of 2.56 s; thirty hold 7 at 640, so 512 and 416 need not be tried.
    pace, all_measured = choices.pace(
        640, choices.SHORT_EDGES, minutes, 100, lambda edge: (edge / 320) ** 2
    )
    assert pace.short_edge == taken
    assert [m.short_edge for m in all_measured] == measured


@pytest.mark.parametrize(
    ("minutes", "taken", "measured"),
    [
        (22, 320, [320]),  # 1,320 steps; 781 at 416 would be too few
        (23, 416, [320, 416]),  # 816 at 416
        (60, 640, [320, 416, 512, 640]),  # 900 at 640, which is as large as photos may be here
    ],
)
def test_images_grow_where_there_is_more_than_enough_time(minutes, taken, measured):
    pace, all_measured = choices.pace(
        320, (320, 416, 512, 640), minutes, 300, lambda edge: (edge / 320) ** 2
    )
    assert pace.short_edge == taken
    assert [m.short_edge for m in all_measured] == measured


def test_images_do_not_grow_if_the_larger_ones_are_slower_than_thought():
    pace, measured = choices.pace(320, (320, 416), 30, 300, lambda edge: edge / 320 * edge / 200)
    assert (pace.short_edge, [m.short_edge for m in measured]) == (320, [320])
    pace, measured = choices.pace(320, (320, 416), 30, 300, {320: 1.0, 416: 2.5}.__getitem__)
    assert (pace.short_edge, [m.short_edge for m in measured]) == (320, [320, 416])


def test_what_does_not_fit_into_memory_is_passed_over():
    pace, measured = choices.pace(
        640, choices.SHORT_EDGES, 5, 100, lambda edge: math.inf if edge > 416 else 1.0
    )
    assert pace == choices.Pace(416, 1.0)
    assert [m.short_edge for m in measured] == [640, 512, 416]
