"""What counts as the same answer."""

import numpy as np
import pytest

from mrcnn_tf.edge import device, verification
from mrcnn_tf.serving.verification import VerificationError

PICTURE = (np.zeros([1, 32, 64, 3], np.uint8), np.array([32, 48], np.int32))


def answer(*rows, masks=True):
    """An answer of three rows at most; a row is (box, class, score)."""
    outputs = {
        "boxes": np.zeros([3, 4], np.float32),
        "classes": np.zeros([3], np.int32),
        "scores": np.zeros([3], np.float32),
        "count": np.int32(len(rows)),
    }
    if masks:
        outputs["masks"] = np.zeros([3, 28, 28], np.float32)
    for k, (box, class_id, score) in enumerate(rows):
        outputs["boxes"][k], outputs["classes"][k], outputs["scores"][k] = box, class_id, score
    return lambda image, size_hw: outputs


def verify(actual, expected, quantize="none", pictures=(PICTURE,)):
    file = device.Network(actual, (32, 64), {"quantize": quantize})
    return verification.verify("m.tflite", file, expected, pictures)


A, B = ((0, 0, 20, 20), 1, 0.9), ((5, 30, 25, 44), 2, 0.3)
# Half of A, so an IoU of one half with it.
HALF = ((0, 0, 10, 20), 1, 0.8)


def test_equal_answers_agree_in_any_order():
    found = verify(answer(B, A), answer(A, B))
    assert found == (1, 2, 1.0, 0.0, {})


def test_without_quantisation_each_detection_counts():
    with pytest.raises(VerificationError, match=r"m\.tflite: only 50\.0% .* 1 pictures"):
        verify(answer(A), answer(A, B))
    moved = ((0.0, 0.0, 20.5, 20.0), 1, 0.9)  # 0.5 of a height of 32 is more than 0.01
    with pytest.raises(VerificationError, match="only 50.0%"):
        verify(answer(moved, B), answer(A, B))


def test_with_quantisation_a_detection_counts_by_its_score():
    # Pairs hold 0.9 + 0.8 of 0.9 + 0.3 + 0.8.
    found = verify(answer(HALF), answer(A, B), "dynamic")
    assert found.agreement == pytest.approx(1.7 / 2.0)
    assert found.max_score_difference == pytest.approx(0.1)
    with pytest.raises(VerificationError, match=r"only 0\.0% .* 90% are needed"):
        verify(answer(HALF), answer(A, B), "float16")  # an overlap of 0.9 is asked for


def test_other_classes_and_far_scores_are_no_pair():
    other_class = (A[0], 2, A[2])
    unsure = (A[0], A[1], 0.6)
    for row in (other_class, unsure):
        with pytest.raises(VerificationError, match="only 0.0%"):
            verify(answer(row), answer(A), "dynamic")


def test_one_detection_has_one_partner():
    with pytest.raises(VerificationError, match="only 66.7%"):
        verify(answer(A), answer(A, A), "dynamic")


@pytest.mark.parametrize("quantize", ["none", "dynamic"])
@pytest.mark.parametrize("wrong", [0.6, np.nan])
def test_scores_of_masks_are_compared(quantize, wrong):
    def scored(*mask_scores):
        outputs = answer(A, B)(*PICTURE)
        outputs["mask_scores"] = np.array([*mask_scores, 0.0], np.float32)
        return lambda image, size_hw: outputs

    found = verify(scored(0.81, 0.1), scored(0.8, 0.1), quantize)
    assert found.agreement == pytest.approx(1.0)
    assert found.max_score_difference == pytest.approx(0.01)
    # One of two: by scores, B's 0.3 of 1.2.
    part = {"none": "50.0%", "dynamic": "25.0%"}[quantize]
    with pytest.raises(VerificationError, match=f"only {part}"):
        verify(scored(wrong, 0.1), scored(0.8 + 0.1, 0.1), quantize)
    with pytest.raises(VerificationError, match="its outputs are"):
        verify(answer(A, B), scored(0.8, 0.1), quantize)


def test_nothing_found_is_no_proof():
    with pytest.raises(VerificationError, match="nothing could be compared.*--pictures"):
        verify(answer(), answer())
    with pytest.raises(VerificationError, match="nothing could be compared"):
        verify(answer(), answer(), "full")


def test_outputs_of_other_names_or_types_are_told():
    with pytest.raises(VerificationError, match="its outputs are"):
        verify(answer(A, masks=False), answer(A))


def test_the_file_sees_noise_around_the_picture_and_the_network_does_not():
    seen = []

    def look(image, size_hw):
        seen.append(image)
        return answer(A)(image, size_hw)

    verify(look, look)
    assert seen[0][0, :, 48:].any()
    assert not seen[0][0, :, :48].any()
    assert not seen[1].any()
