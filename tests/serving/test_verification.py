"""The check after an export finds what it is there to find."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.serving import verification


def answer(boxes, scores, ids, mask_value=1.0):
    """One image with these rows and one of padding."""
    count = len(boxes)
    rows = {
        "detection_boxes": np.float32([*boxes, [0.0] * 4]),
        "detection_scores": np.float32([*scores, 0.0]),
        "detection_class_ids": np.int64([*ids, 0]),
        "detection_masks": np.full([count + 1, 2, 2], mask_value, np.float32),
    }
    rows = {name: value[np.newaxis] for name, value in rows.items()}
    rows["image_size"] = np.int32([[100, 100]])
    return rows | {"num_detections": np.float32([count])}


BOXES = [[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.508], [0.6, 0.6, 0.9, 0.9]]
EXPECTED = answer(BOXES, [0.9, 0.89, 0.5], [7, 7, 8])


def compare(boxes, scores, ids, mask_value=1.0):
    return verification.compare_detections(answer(boxes, scores, ids, mask_value), EXPECTED)


def test_pairs_the_nearest_in_any_order():
    found = compare([BOXES[2], BOXES[1], BOXES[0]], [0.51, 0.89, 0.9], [8, 7, 7], 0.95)
    assert found.num_detections == 3
    assert found.matched_fraction == 1.0
    assert found.max_box_difference == 0.0
    np.testing.assert_allclose(found.max_score_difference, 0.01, atol=1e-6)
    np.testing.assert_allclose(found.max_mask_difference, 0.05, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "matched"),
    [
        ((BOXES, [0.9, 0.89, 0.5], [7, 7, 7]), 2 / 3),  # class
        ((BOXES, [0.9, 0.89, 0.45], [7, 7, 8]), 2 / 3),  # score
        (([*BOXES[:2], [0.6, 0.6, 0.9, 0.92]], [0.9, 0.89, 0.5], [7, 7, 8]), 2 / 3),  # box
        ((BOXES, [0.9, 0.89, 0.5], [7, 7, 8], 0.5), 0.0),  # masks
        ((BOXES[:2], [0.9, 0.89], [7, 7]), 2 / 3),  # one missing
        (([*BOXES, BOXES[0]], [0.9, 0.89, 0.5, 0.9], [7, 7, 8, 7]), 3 / 4),  # one too many
        (([], [], []), 0.0),
    ],
)
def test_notices(changed, matched):
    boxes, *rest = changed
    found = compare(np.reshape(boxes, [-1, 4]), *rest)
    assert found.matched_fraction == pytest.approx(matched)


@pytest.mark.parametrize(("mask_score", "matched"), [(0.41, 1.0), (0.45, 2 / 3), (np.nan, 2 / 3)])
def test_scores_of_masks_are_compared(mask_score, matched):
    scores = [np.float32([[0.9, 0.8, last, 0.0]]) for last in (mask_score, 0.4)]
    found = verification.compare_detections(
        *(EXPECTED | {"detection_mask_scores": values} for values in scores)
    )
    assert found.matched_fraction == pytest.approx(matched)
    assert found.max_score_difference == pytest.approx(0.01 if matched == 1 else 0.0, abs=1e-6)


def test_nothing_found_by_either():
    nothing = answer(np.zeros([0, 4]), [], [])
    found = verification.compare_detections(nothing, nothing)
    assert found == (0, 1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [((0.75, 0.6), "variable green.* has other values"), ((0.75,), "has 2 variables, .* model 1")],
)
def test_other_weights_are_noticed(export, variables, message):
    variables = [tf.Variable(v, name=n) for v, n in zip(variables, ("red", "green"), strict=False)]
    with pytest.raises(verification.VerificationError, match=message):
        verification.verify_export(str(export("image_bytes")), variables, None, "image_bytes")


@pytest.mark.parametrize("of_graph", [BOXES, BOXES[::-1]])
def test_roundings_of_single_operations_are_no_difference(of_graph):
    """A function that answers otherwise eagerly is asked as a graph; what differs then, does."""
    of_eager = answer([*BOXES[:2], BOXES[0]], [0.9, 0.89, 0.5], [7, 7, 8])  # two of three

    def function(number):
        other = (
            of_eager if tf.executing_eagerly() else answer(of_graph, [0.9, 0.89, 0.5], [7, 7, 8])
        )
        return {name: tf.constant(value) for name, value in other.items()}

    found = verification.compare_with_function(EXPECTED, function, tf.constant(1))
    assert found.matched_fraction == (1.0 if of_graph is BOXES else pytest.approx(1 / 3))


def test_other_names_of_outputs_are_a_difference():
    fewer = {n: tf.constant(v) for n, v in EXPECTED.items() if n != "detection_masks"}
    with pytest.raises(verification.VerificationError, match="detection_masks"):
        verification.compare_with_function(EXPECTED, lambda: fewer)


def test_sample_images_are_seeded():
    once, again = (verification.sample_images([(20, 30), (10, 10)]) for _ in range(2))
    assert [p.shape for p in once] == [(20, 30, 3), (10, 10, 3)]
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert once[0].std() > 20  # something is to be seen
