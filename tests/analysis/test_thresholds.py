"""Thresholds, calibration, confusion and outcomes, by hand."""

import numpy as np
import pytest

from mrcnn_tf.analysis import calibration, confusion, outcomes, thresholds
from mrcnn_tf.analysis.matches import match
from tests.analysis import scenes

CAT, DOG = 1, 2
A, B, C = [0, 0, 20, 20], [40, 0, 20, 20], [0, 40, 20, 20]
NOWHERE = [70, 70, 20, 20]


def swept(objects, detections, category=None, **options):
    return thresholds.sweep(match(scenes.rows(objects, detections, **options)), category)


def test_best_threshold_by_hand():
    # 0.9 right, 0.8 wrong, 0.7 right, 0.4 wrong, of 3 cats. F1: 2/4, 2/5, 4/6, 4/7.
    found = [(1, CAT, A, 0.9), (1, CAT, NOWHERE, 0.8), (1, CAT, B, 0.7), (1, CAT, NOWHERE, 0.4)]
    sweep = swept([(1, CAT, A), (1, CAT, B), (1, CAT, C)], found)
    np.testing.assert_allclose(sweep.f1, [2 / 4, 2 / 5, 4 / 6, 4 / 7])
    best = thresholds.best(sweep)
    assert best.score == pytest.approx(0.55)  # half way from 0.7 to 0.4
    assert (best.right, best.wrong, best.missed) == (2, 1, 1)
    assert (best.precision, best.recall, best.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_below_the_lowest_detection_lies_zero_and_equal_scores_stay_together():
    assert thresholds.best(swept([(1, CAT, A)], [(1, CAT, A, 0.8)])).score == pytest.approx(0.4)
    tied = [(1, CAT, A, 0.6), (1, CAT, NOWHERE, 0.6)]
    sweep = swept([(1, CAT, A)], tied)
    assert sweep.score.tolist() == [0.6]
    assert (sweep.right.tolist(), sweep.wrong.tolist()) == ([1], [1])


def test_thresholds_of_a_category():
    objects = [(1, CAT, A), (1, DOG, B)]
    found = [(1, CAT, A, 0.9), (1, DOG, NOWHERE, 0.6), (1, DOG, B, 0.5)]
    assert thresholds.best(swept(objects, found, CAT)).score == pytest.approx(0.45)
    assert thresholds.best(swept(objects, found, DOG)).score == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("objects", "found"),
    [([], []), ([(1, CAT, A)], []), ([], [(1, CAT, A, 0.9)]), ([(1, CAT, A)], [(1, CAT, B, 0.9)])],
)
def test_no_threshold_where_nothing_is_right(objects, found):
    assert thresholds.best(swept(objects, found)) is None


def test_crowds_count_neither_way():
    objects = [(1, CAT, [0, 0, 60, 60], "crowd"), (1, CAT, NOWHERE)]
    sweep = swept(objects, [(1, CAT, A, 0.9), (1, CAT, NOWHERE, 0.8)])
    assert (sweep.right.tolist(), sweep.wrong.tolist(), sweep.num_objects) == ([1], [0], 1)


def test_calibration_by_hand():
    # [0.9, 1]: two, one right, mean score 0.95; [0.3, 0.4): one, wrong. ECE = (2*0.45 + 0.35) / 3.
    found = [(1, CAT, A, 1.0), (1, CAT, NOWHERE, 0.9), (1, CAT, B, 0.35)]
    measured = calibration.calibration(scenes.rows([(1, CAT, A)], found))
    assert measured.error == pytest.approx((2 * 0.45 + 0.35) / 3)
    assert [(b.count, b.part_right) for b in measured.bins] == [(1, 0.0), (2, 0.5)]
    assert [b.mean_score for b in measured.bins] == pytest.approx([0.35, 0.95])
    assert (measured.bins[0].low, measured.bins[0].high) == pytest.approx((0.3, 0.4))


def test_calibration_leaves_crowds_out_and_needs_detections():
    objects = [(1, CAT, [0, 0, 60, 60], "crowd"), (1, CAT, NOWHERE)]
    rows = scenes.rows(objects, [(1, CAT, A, 0.5), (1, CAT, NOWHERE, 0.8)])
    assert calibration.calibration(rows).error == pytest.approx(0.2)
    assert calibration.calibration(scenes.rows([(1, CAT, A)], [])).error is None


def confused(objects, detections, score=0.0, **options):
    rows = scenes.rows(objects, detections, **options)
    return confusion.confusion(rows, match(rows), score)


def test_confusion_by_hand():
    objects = [(1, CAT, A), (1, CAT, B), (1, DOG, C)]
    found = [(1, CAT, A, 0.9), (1, DOG, B, 0.8), (1, DOG, NOWHERE, 0.7), (1, DOG, C, 0.2)]
    # Rows: cats, dogs, nothing there. Columns: cat, dog, nothing found.
    assert confused(objects, found, 0.5).counts.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    matrix = confused(objects, found)
    assert matrix.counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert matrix.pairs() == [(CAT, DOG, 1)]


def test_confusion_leaves_out_what_found_a_crowd():
    objects = [(1, CAT, [0, 0, 60, 60], "crowd"), (1, CAT, NOWHERE)]
    found = [(1, CAT, A, 0.9), (1, DOG, B, 0.85), (1, CAT, NOWHERE, 0.8)]
    assert confused(objects, found).counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_confusion_of_nothing_and_of_one_class():
    assert confused([], []).counts.sum() == 0
    one = confused([(1, CAT, A)], [(1, CAT, NOWHERE, 0.9)], names=("cat",))
    assert one.counts.tolist() == [[0, 1], [1, 0]]


def test_outcomes_by_hand():
    objects = [(1, CAT, A), (1, CAT, B), (2, CAT, A)]
    found = [
        (1, CAT, A, 0.9),
        (1, CAT, NOWHERE, 0.8),
        (2, CAT, A, 0.3),
        (3, CAT, A, 0.95),
        (3, DOG, B, 0.7),
    ]
    rows = scenes.rows(objects, found, num_images=4)
    matches = match(rows)
    images = outcomes.outcomes(matches, 4, score=0.5)
    counts = [(len(o.right), len(o.wrong), len(o.missed)) for o in images]
    assert counts == [(1, 1, 1), (0, 0, 1), (0, 2, 0), (0, 0, 0)]
    assert [o.f1 for o in images] == pytest.approx([1 / 2, 0, 0, 1])
    assert [o.surest_mistake for o in images] == [0.8, 0, 0.95, 0]
    assert [o.image for o in outcomes.best(images, 2)] == [3, 0]
    assert [o.image for o in outcomes.worst(images, 9)] == [2, 1, 0]
    assert [o.image for o in outcomes.most_confusing(images, 9)] == [2, 0]
    assert matches.score[images[2].wrong].tolist() == [0.95, 0.7]
