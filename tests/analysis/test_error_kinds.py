"""TIDE's kinds, each with one box by hand; numbers of the authors' package and of hotcoco."""

import numpy as np
import pytest

from mrcnn_tf.analysis import error_kinds
from mrcnn_tf.analysis.matches import match
from mrcnn_tf.evaluation import scoring
from tests.analysis import scenes

CAT, DOG = 1, 2
BOX = [10, 10, 20, 20]
HALF = [10, 10, 20, 8]  # IoU 0.4 with it
FAR = [70, 70, 20, 20]


def analyse(objects, detections, **options):
    rows = scenes.rows(objects, detections, **options)
    return error_kinds.analyse(rows, match(rows))


@pytest.mark.parametrize(
    ("kind", "objects", "detections"),
    [
        ("class", [(1, DOG, BOX)], [(1, CAT, BOX, 0.9)]),
        ("localisation", [(1, CAT, BOX)], [(1, CAT, HALF, 0.9)]),
        ("both", [(1, DOG, BOX)], [(1, CAT, HALF, 0.9)]),
        ("duplicate", [(1, CAT, BOX)], [(1, CAT, BOX, 0.9), (1, CAT, BOX, 0.8)]),
        ("background", [(1, CAT, BOX)], [(1, CAT, FAR, 0.9)]),
        ("background", [], [(1, CAT, FAR, 0.9)]),
        ("missed", [(1, CAT, BOX)], []),
    ],
)
def test_one_box_of_each_kind(kind, objects, detections):
    found = analyse(objects, detections)
    others = {"missed": 1} if kind in ("both", "background") and objects else {}
    expected = dict.fromkeys(error_kinds.KINDS, 0) | others | {kind: 1}
    assert found.counts == expected


@pytest.mark.parametrize(
    ("height", "kind"),
    [(10, None), (9.9, "localisation"), (2, "localisation"), (1.9, "background")],
)
def test_limits_of_overlap(height, kind):
    """IoU of 0.5 is a match, below it a bad place; of 0.1 still a place, below it background."""
    found = analyse([(1, CAT, BOX)], [(1, CAT, [10, 10, 20, height], 0.9)])
    assert [error.kind for error in found.wrong] == ([kind] if kind else [])


@pytest.mark.parametrize(
    ("height", "kind"), [(10, "class"), (9.9, "both"), (2, "both"), (1.9, "background")]
)
def test_limits_of_overlap_with_another_category(height, kind):
    found = analyse([(1, DOG, BOX)], [(1, CAT, [10, 10, 20, height], 0.9)])
    assert [error.kind for error in found.wrong] == [kind]


def test_where_two_kinds_fit_the_authors_order_counts():
    # 0.4 of its own category, 1 of another: localisation goes before class.
    found = analyse([(1, CAT, HALF), (1, DOG, BOX)], [(1, CAT, BOX, 0.9)])
    assert [error.kind for error in found.wrong] == ["localisation"]
    # On a cat that is found and on a dog: class goes before duplicate.
    pair = [(1, CAT, BOX), (1, DOG, BOX)]
    found = analyse(pair, [(1, CAT, BOX, 0.9), (1, CAT, BOX, 0.8)])
    assert [error.kind for error in found.wrong] == ["class"]
    assert found.missed == []  # mending the class finds the dog


def test_what_mending_gives_by_hand():
    """A cat is found, another is bounded badly; a dog is called a cat; a cat is on nothing.

    Cats by score: background 0.9, right 0.8, class 0.7, localisation 0.6; 2 cats, 1 dog.
    """
    other = [60, 10, 20, 20]
    objects = [(1, CAT, BOX), (1, CAT, other), (1, DOG, FAR)]
    detections = [
        (1, CAT, [10, 70, 20, 20], 0.9),
        (1, CAT, BOX, 0.8),
        (1, CAT, FAR, 0.7),
        (1, CAT, [60, 10, 20, 8], 0.6),
    ]
    found = analyse(objects, detections)
    assert [e.kind for e in found.wrong] == ["background", "class", "localisation"]
    # Precision 1/2 up to recall 1/2, 51 of 101 recalls; no dog.
    cat = 51 / 101 / 2
    assert found.ap50 == pytest.approx(cat / 2)
    gain = {
        # The dog is found: AP 1 instead of 0. What is mended leaves the cats.
        "class": 1 / 2,
        # wrong, right, wrong, right: 51 recalls at 1/2, 50 more at 2/4.
        "localisation": (101 / 101 / 2 - cat) / 2,
        "both": 0,
        "duplicate": 0,
        # right first: precision 1 up to recall 1/2.
        "background": (51 / 101 - cat) / 2,
        "missed": 0,  # mending class and localisation finds all
    }
    assert found.gain == pytest.approx(gain)
    assert found.gain_false_positives == pytest.approx((51 / 101 - cat) / 2)
    # One cat less to find: precision 1/2 up to recall 1; dogs, none of which is found, drop out.
    assert found.gain_false_negatives == pytest.approx(1 / 2 - cat / 2)


def test_of_two_mendable_detections_the_surer_is_made_right_and_the_other_goes():
    detections = [(1, DOG, BOX, 0.9), (1, DOG, BOX, 0.8)]
    found = analyse([(1, CAT, BOX)], detections)
    assert found.counts["class"] == 2
    assert found.gain["class"] == pytest.approx(1)


def test_taking_away_duplicates_and_both():
    duplicate = [(1, CAT, BOX, 0.9), (1, CAT, BOX, 0.8), (1, CAT, FAR, 0.7)]
    found = analyse([(1, CAT, BOX), (1, CAT, FAR)], duplicate)
    # right, wrong, right: 51 + 50 * 2/3 of 101 becomes 1.
    assert found.gain["duplicate"] == pytest.approx(50 / 3 / 101)
    both = [(1, CAT, HALF, 0.9), (1, CAT, FAR, 0.7)]
    found = analyse([(1, DOG, BOX), (1, CAT, FAR)], both)
    assert found.counts["both"] == 1
    assert found.gain["both"] == pytest.approx(1 / 2 / 2)  # cats from 1/2 to 1, dogs stay 0


def test_a_category_that_was_never_found_drops_out_when_what_is_missed_is_taken_away():
    for extra in ([], [(1, DOG, [40, 70, 5, 5], 0.5)]):
        found = analyse([(1, CAT, BOX), (1, DOG, FAR)], [(1, CAT, BOX, 0.9), *extra])
        assert found.ap50 == pytest.approx(1 / 2)
        assert found.gain["missed"] == pytest.approx(1 / 2)
        assert found.gain_false_negatives == pytest.approx(1 / 2)


def test_nothing_found_at_all_says_nothing_of_precision():
    found = analyse([(1, CAT, BOX)], [])
    assert found.ap50 == 0
    assert found.gain["missed"] is None


def test_no_objects_at_all():
    found = analyse([], [(1, CAT, BOX, 0.9)])
    assert found.ap50 is None
    assert set(found.gain.values()) == {None}
    assert analyse([], []).counts == dict.fromkeys(error_kinds.KINDS, 0)


def test_what_found_a_crowd_is_no_error():
    objects = [(1, CAT, [0, 0, 50, 50], "crowd"), (1, CAT, FAR)]
    found = analyse(objects, [(1, CAT, [10, 10, 10, 10], 0.9), (1, DOG, [10, 30, 9, 9], 0.8)])
    assert found.counts["background"] == 1  # the dog: a crowd of cats does not excuse it
    assert found.counts["missed"] == 1


def test_masks_are_compared_where_masks_are_scored():
    objects, detections = [(1, CAT, BOX)], [(1, CAT, HALF, 0.9)]
    made = scenes.evaluator(objects, detections, include_masks=True)
    rows = made.rows("mask")
    assert [e.kind for e in error_kinds.analyse(rows, match(rows)).wrong] == ["localisation"]


# tidecv 1.0.1, the authors' package, on scenes.random_scene(seed), boxes, times 100:
#   tide = TIDE(); tide.evaluate(ground_truth, detections, mode=TIDE.BOX); tide.get_all_errors()
TIDECV = {
    0: (25.264, (3.673, 17.61, 1.875, 1.266, 3.054, 13.393), (26.221, 23.99)),
    1: (21.969, (5.962, 12.192, 1.65, 0.761, 7.954, 8.588), (23.905, 25.172)),
    2: (21.883, (12.674, 19.999, 1.937, 1.416, 4.109, 5.693), (29.272, 21.138)),
    3: (13.959, (5.202, 22.975, 0.421, 0.505, 2.817, 6.91), (24.655, 21.798)),
}
TIDECV_COUNTS = {
    0: (5, 26, 7, 14, 23, 22),
    1: (11, 24, 10, 12, 26, 17),
    2: (9, 28, 10, 14, 18, 10),
    3: (9, 29, 3, 10, 23, 21),
}


@pytest.mark.parametrize("seed", TIDECV)
def test_numbers_are_those_of_the_authors_package(seed):
    """To 0.01 points: theirs adds the recalls up with other rounding."""
    objects, detections = scenes.random_scene(seed)
    found = analyse(objects, detections, names="abc", num_images=20)
    ap50, gains, special = TIDECV[seed]
    assert tuple(found.counts.values()) == TIDECV_COUNTS[seed]
    assert 100 * found.ap50 == pytest.approx(ap50, abs=0.011)
    assert [100 * found.gain[k] for k in error_kinds.KINDS] == pytest.approx(gains, abs=0.011)
    both = found.gain_false_positives, found.gain_false_negatives
    assert [100 * gain for gain in both] == pytest.approx(special, abs=0.011)


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_hotcoco(seed):
    rows = scenes.rows(*scenes.random_scene(seed), names="abc", num_images=20)
    run = scoring.evaluate(rows, [100], scoring.library("hotcoco"))
    theirs = run.tide_errors()
    ours = error_kinds.analyse(rows, match(rows))
    names = dict(zip(error_kinds.KINDS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True))
    assert {names[k]: n for k, n in ours.counts.items()} == theirs["counts"]
    assert ours.ap50 == pytest.approx(theirs["ap_base"], abs=1e-12)
    for kind, name in names.items():
        assert ours.gain[kind] == pytest.approx(theirs["delta_ap"][name], abs=1e-9), kind
    assert ours.gain_false_positives == pytest.approx(theirs["delta_ap"]["FP"], abs=1e-9)
    assert ours.gain_false_negatives == pytest.approx(theirs["delta_ap"]["FN"], abs=1e-9)


def test_every_wrong_detection_has_a_kind_and_every_object_a_fate():
    rows = scenes.rows(*scenes.random_scene(9), names="abc", num_images=20)
    matches = match(rows)
    found = error_kinds.analyse(rows, matches)
    assert len(found.wrong) + matches.is_right[0].sum() == len(rows.detections)
    mended = {e.object_index for e in found.wrong if e.kind in ("class", "localisation")}
    reached = np.isin(matches.object_id, matches.found_id[matches.is_right[0]])
    assert not {int(k) for k in np.flatnonzero(reached)} & set(found.missed)
    assert all(reached[k] or k in mended or k in found.missed for k in range(len(reached)))
