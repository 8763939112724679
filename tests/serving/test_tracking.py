"""Hand-worked cases: boxes of 10 x 10 pixels unless they say otherwise."""

import numpy as np
import pytest

from mrcnn_tf.serving import tracking


def box(y, x, size=10):
    return [y, x, y + size, x + size]


def run(frames, categories=None, seconds=0.1):
    """Numbers of the objects of each frame; a frame is a list of boxes."""
    tracker = tracking.Tracker()
    return [
        tracker.update(k * seconds, np.array(boxes), (categories or [1] * 9)[: len(boxes)])
        for k, boxes in enumerate(frames)
    ]


def test_numbers_stay_whatever_the_order():
    assert run([[box(0, 0), box(50, 50)], [box(51, 52), box(1, 1)]]) == [[1, 2], [2, 1]]


def test_overlap_decides():
    """Moved by 5 of 10, IoU is 50 / 150 = 1/3; by 6, 40 / 160 = 1/4, below 0.3."""
    assert run([[box(0, 0)], [box(0, 5)]]) == [[1], [1]]
    assert run([[box(0, 0)], [box(0, 6)]]) == [[1], [2]]


def test_a_new_object_gets_the_next_number():
    assert run([[box(0, 0)], [box(50, 50), box(0, 1)], [box(50, 50), box(90, 90)]]) == [
        [1],
        [2, 1],
        [2, 3],
    ]


def test_two_objects_cross():
    """Face to face in one line; in the third frame only one is seen, at the very same place.

    Without movement, 2 would be looked for where it was last seen, where 1 is in the fourth frame.
    """
    left_to_right = [0, 4, 8, 12, 16]
    frames = [[box(0, x), box(0, 16 - x)] for x in left_to_right]
    frames[2] = [box(0, 8)]
    numbers = run(frames)
    assert numbers[:2] == numbers[3:] == [[1, 2], [1, 2]]
    assert numbers[2] in ([1], [2])


def test_objects_of_two_lanes_cross():
    frames = [[box(0, 3 * k), box(4, 30 - 3 * k)] for k in range(11)]
    assert run(frames) == [[1, 2]] * 11


@pytest.mark.parametrize(("gap", "number"), [(9, 1), (10, 1), (11, 2), (20, 2)])
def test_an_object_that_was_away_returns(gap, number):
    """A frame each 0.1 s: seen last at 0, it is looked for until 1 s."""
    assert run([[box(0, 0)]] + [[]] * (gap - 1) + [[box(0, 0)]])[-1] == [number]


def test_it_is_looked_for_where_it_should_be_by_then():
    """3 pixels a frame until it is away for 7 frames, in which it goes on by 21 pixels."""
    seen = [[box(0, 3 * k)] for k in range(4)]
    assert run([*seen, *[[]] * 7, [box(0, 33)]])[-1] == [1]
    assert run([*seen, *[[]] * 7, [box(0, 9)]])[-1] == [2]


def test_movement_is_a_mean_over_half_a_second():
    """A standing box that trembles by a pixel: its movement is 1 / 5 pixel a frame at most."""
    trembling = [[box(0, k % 2)] for k in range(10)]
    assert run([*trembling, *[[]] * 8, [box(0, 0)]])[-1] == [1]


def test_frames_further_apart_than_the_memory():
    """With --every_nth: what the last frame had is always looked for."""
    assert run([[box(0, 0)], [box(0, 2)], [], [box(0, 4)]], seconds=5.0) == [[1], [1], [], [2]]


def test_the_surest_pair_first():
    """IoU of the first track with both boxes 9/11 and 6/14, of the second with the first 8/12.

    The greatest sum, 6/14 + 8/12, would give the first track the worse box.
    """
    assert run([[box(0, 0), box(0, 3)], [box(0, 1), box(0, -4)]]) == [[1, 2], [1, 3]]


def test_equal_overlaps_go_to_the_older_track_and_the_better_detection():
    assert run([[box(0, 0), box(0, 0)], [box(0, 0)]]) == [[1, 2], [1]]
    assert run([[box(0, 0)], [box(0, 1), box(0, -1)]]) == [[1], [1, 2]]


def test_categories_are_apart():
    assert run([[box(0, 0), box(0, 0)]] * 3, categories=[7, 9]) == [[1, 2]] * 3
    tracker = tracking.Tracker()
    assert tracker.update(0, np.array([box(0, 0)]), [7]) == [1]
    assert tracker.update(0.1, np.array([box(0, 0)]), [9]) == [2]


def test_nothing_in_a_frame_and_boxes_without_area():
    assert run([[], [[3, 3, 3, 3]], [[3, 3, 3, 3]], []]) == [[], [1], [2], []]


def test_many_objects_against_a_slow_twin():
    """Random walks: pairs by a plain loop over all overlaps, without movement (new each frame)."""
    random = np.random.default_rng(0)
    for _ in range(20):
        first = random.uniform(0, 60, (12, 2))
        first = np.hstack([first, first + random.uniform(5, 20, (12, 2))])
        second = first[random.permutation(12)[:9]] + random.normal(0, 2, (9, 4))
        tracker = tracking.Tracker()
        assert tracker.update(0.0, first, [1] * 12) == list(range(1, 13))
        got = tracker.update(0.1, second, [1] * 9)
        left, right = list(range(12)), list(range(9))
        expected = {}
        while True:
            pairs = [(_iou(first[a], second[b]), a, b) for a in left for b in right]
            best = max(pairs, default=(0, 0, 0))
            if best[0] < 0.3:
                break
            expected[best[2]] = best[1] + 1
            left.remove(best[1])
            right.remove(best[2])
        assert {k: n for k, n in enumerate(got) if n <= 12} == expected
        assert len(set(got)) == 9


def _iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return shared / (sum(areas) - shared)
