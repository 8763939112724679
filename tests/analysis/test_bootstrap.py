"""Average precision by hand and against the libraries; what drawing images does to it."""

import numpy as np
import pytest

from mrcnn_tf.analysis import bootstrap, coco_numbers
from mrcnn_tf.analysis.average_precision import average_precision
from mrcnn_tf.analysis.matches import match
from mrcnn_tf.evaluation import scoring
from tests.analysis import scenes


def ap(is_right, counts, num_objects):
    return average_precision(np.array(is_right), np.atleast_2d(counts), np.array([num_objects]))[0]


def test_average_precision_by_hand():
    # Right, wrong, right of 2 objects: precision 1 up to recall 0.5, which 51 of the 101 recalls
    # do not exceed, and 2/3 up to recall 1, the other 50.
    assert ap([True, False, True], [1, 1, 1], 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    # Of 4 objects, 26 recalls at 1 and 25 at 2/3; nothing beyond recall 0.5.
    assert ap([True, False, True], [1, 1, 1], 4) == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert ap([False, False], [1, 1], 3) == 0
    assert np.isnan(ap([False], [1], 0))


def test_an_image_drawn_twice_counts_as_two():
    once = ap([True, True, False, False, True, True], [1] * 6, 6)
    assert ap([True, False, True], [2, 2, 2], 6) == pytest.approx(once)
    assert ap([True, False, True], [1, 0, 1], 2) == pytest.approx(1)


@pytest.mark.parametrize("library", ["pycocotools", "hotcoco"])
@pytest.mark.parametrize("seed", range(3))
def test_every_image_once_is_the_score_itself(seed, library):
    """With crowds, on boxes and all sizes."""
    objects, detections = scenes.random_scene(seed)
    objects = [(*o, "crowd") if k % 7 == 0 else o for k, o in enumerate(objects)]
    rows = scenes.rows(objects, detections, names="abc", num_images=20)
    precision = scoring.precisions(rows, scoring.library(library))
    ones = np.ones([1, 20], np.int64)
    for a, area in enumerate(scoring.AREAS):
        ours = bootstrap.average_precisions(match(rows, area), ones, 3)[0]  # [T, K]
        for k in range(3):
            for t in range(10):
                table = precision[t, :, k, a]
                theirs = np.nan if (table == -1).all() else table.mean()
                np.testing.assert_allclose(ours[t, k], theirs, rtol=1e-14)


def test_a_drawn_set_is_scored_as_the_library_scores_copies_of_its_images():
    objects, detections = scenes.random_scene(5, num_images=6)
    rows = scenes.rows(objects, detections, names="abc", num_images=6)
    counts = bootstrap.draw(6, resamples=4, seed=1)
    ours = bootstrap.average_precisions(match(rows), counts, 3)
    for drawn, count in enumerate(counts):
        chosen = np.repeat(np.arange(6), count)
        copies = [
            [(k + 1, *row[1:]) for k, i in enumerate(chosen) for row in table if row[0] == i + 1]
            for table in (objects, detections)
        ]
        copied = scenes.rows(*copies, names="abc", num_images=6)
        precision = scoring.precisions(copied, scoring.library("pycocotools"))[..., 0]
        theirs = np.where((precision == -1).all(axis=1), np.nan, precision.mean(axis=1))
        np.testing.assert_allclose(ours[drawn], theirs, rtol=1e-12)


def test_draws_are_seeded_and_as_large_as_the_set():
    counts = bootstrap.draw(7, resamples=50, seed=3)
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(counts, bootstrap.draw(7, resamples=50, seed=3))
    assert (counts != bootstrap.draw(7, resamples=50, seed=4)).any()


def test_interval_holds_the_middle_95_percent():
    assert bootstrap.interval(np.arange(1001.0)) == (25.0, 975.0)
    assert bootstrap.interval(np.array([np.nan, np.nan, 0.5])) is None  # mostly not measurable
    assert bootstrap.interval(np.array([])) is None


def test_intervals_contain_the_score_and_shrink_with_more_images():
    widths = {}
    for copies in (1, 8):
        objects, detections = scenes.random_scene(0, num_images=15)
        many = [
            [(row[0] + 15 * c, *row[1:]) for c in range(copies) for row in table]
            for table in (objects, detections)
        ]
        rows = scenes.rows(*many, names="abc", num_images=15 * copies)
        number = coco_numbers.compute(rows, resamples=300).get("ap50")
        assert number.low < number.value < number.high
        widths[copies] = number.high - number.low
    # Eight times the images: the interval is about 8 ** 0.5 = 2.8 times as narrow.
    assert 2 < widths[1] / widths[8] < 4


def test_what_never_varies_has_an_interval_of_one_point():
    objects = [(i, 1, [10, 10, 20, 20]) for i in range(1, 6)]
    found = [(i, 1, [10, 10, 20, 20], 0.9) for i in range(1, 6)]
    number = coco_numbers.compute(scenes.rows(objects, found, num_images=5)).get("ap")
    assert (number.low, number.high) == pytest.approx((1, 1))
    assert number.objects == 5


def test_objects_on_one_image_tell_nothing_of_other_images():
    """Half of the cats are found, on one image of three; dogs lie on two."""
    cats = [(1, 1, [10, 10, 20, 20]), (1, 1, [50, 50, 20, 20])]
    dogs = [(2, 2, [10, 10, 40, 40]), (3, 2, [10, 10, 20, 20])]
    found = [(*cats[0], 0.9), (*dogs[0], 0.8)]
    numbers = coco_numbers.compute(scenes.rows([*cats, *dogs], found, num_images=3))
    cat, dog, both = (numbers.get("ap50", k) for k in (1, 2, 0))
    assert cat.value == dog.value == pytest.approx(51 / 101)
    assert cat.low is cat.high is None
    assert (dog.low, dog.high) == pytest.approx((0, 1))
    assert both.low < both.value < both.high
    small = numbers.get("ap50", 2, "small")  # image 3 alone
    assert (small.value, small.low, small.objects) == (0, None, 1)
    alone = coco_numbers.compute(scenes.rows(cats, found[:1])).get("ap")
    assert (alone.low, alone.high) == (None, None)


def test_numbers_of_categories_and_sizes():
    objects = [(1, 1, [0, 0, 10, 10]), (1, 1, [20, 20, 50, 50]), (1, 2, [80, 80, 10, 10])]
    found = [(1, 1, [20, 20, 50, 50], 0.9), (1, 2, [80, 80, 10, 10], 0.8)]
    numbers = coco_numbers.compute(scenes.rows(objects, found))
    # The cat that was found is the surer half of two: 51 of 101 recalls.
    assert numbers.get("ap50", 1).value == pytest.approx(51 / 101)
    assert numbers.get("ap50").value == pytest.approx((51 / 101 + 1) / 2)
    assert numbers.get("ap50", 1, "small").value == 0
    assert numbers.get("ap50", 1, "medium").value == pytest.approx(1)
    assert numbers.get("ap50", 2, "medium").value is None
    assert [numbers.get("ap", k).objects for k in (0, 1, 2)] == [3, 2, 1]
    assert numbers.get("ap", size="large") == coco_numbers.Number(
        "ap", 0, "large", None, None, None, 0
    )


@pytest.mark.parametrize(
    ("objects", "found", "value"),
    [([], [], None), ([], [(1, 1, [0, 0, 9, 9], 0.9)], None), ([(1, 1, [0, 0, 9, 9])], [], 0)],
)
def test_nothing_there_and_nothing_found(objects, found, value):
    number = coco_numbers.compute(scenes.rows(objects, found)).get("ap")
    assert number.value == value
    assert number.low is None
