"""AP of a file beside that of its network."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.edge import device, exporting, scored, verification
from mrcnn_tf.serving.verification import VerificationError
from tests.data import conftest as record_maker

SIZE = (64, 96)
LABELS = LabelMap((7, 90), ("a", "b"))


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    """Two pictures of 128 x 160 with one object each, of category 90."""
    path = str(tmp_path_factory.mktemp("records") / "val.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for number, (top, left) in enumerate([(16, 32), (64, 80)]):
            mask = np.zeros([128, 160], bool)
            mask[top : top + 48, left : left + 64] = True
            image = np.full([128, 160, 3], number, np.uint8)  # so that it can be told
            scene = record_maker.Scene(image, mask[np.newaxis], [90], [False], f"image {number}")
            writer.write(record_maker._serialize(scene))
    return path


def answer(shift: float = 0.0, masks: bool = True, known: int = 2):
    """A network that knows where the objects are; `shift` in pixels of the picture, downwards."""

    def run(image, size_hw):
        number = int(image[0, 0, 0, 0])
        top, left = [(16, 32), (64, 80)][number]
        scale = np.tile(size_hw / np.array([128, 160]), 2)
        box = np.array([top + shift, left, top + shift + 48, left + 64]) * scale
        outputs = {
            "boxes": np.stack([box, np.zeros(4)]).astype(np.float32),
            "classes": np.array([2, 0], np.int32),
            "scores": np.array([0.9, 0.0], np.float32),
            "count": np.int32(number < known),
        }
        return outputs | ({"masks": np.ones([2, 28, 28], np.float32)} if masks else {})

    return run


def described(quantize: str = "none") -> dict:
    text = exporting.describe(SIZE, quantize, "detectron2", "pixel_centres", LABELS, None)
    return json.loads(text)


def test_what_is_right_scores_one(records):
    found = scored.average_precision(answer(), records, SIZE, described())
    assert found == {"box_ap": pytest.approx(1.0), "mask_ap": pytest.approx(1.0)}
    without = scored.average_precision(answer(masks=False), records, SIZE, described())
    assert without == {"box_ap": pytest.approx(1.0)}


def test_a_shifted_box_scores_by_its_overlap(records):
    # An IoU of 36.5 / 59.5 = 0.61, which passes 0.5, 0.55 and 0.6.
    found = scored.average_precision(answer(shift=11.5), records, SIZE, described())
    assert found["box_ap"] == pytest.approx(0.3)


def test_masks_are_ranked_by_their_scores(records):
    """In each picture a box that is nowhere near, whose class is surer and whose mask is not."""

    def run(image, size_hw):
        outputs = answer()(image, size_hw)
        outputs["boxes"][1] = (0, 0, 5, 5)
        outputs |= {"classes": np.array([2, 2], np.int32), "count": np.int32(2)}
        outputs["scores"] = np.array([0.9, 0.95], np.float32)
        return outputs

    def with_mask_scores(image, size_hw):
        return run(image, size_hw) | {"mask_scores": np.array([0.7, 0.1], np.float32)}

    # One of two is right wherever the next object is found: precision 0.5 at every recall.
    found = average_precision(run, records)
    assert found == {"box_ap": pytest.approx(0.5), "mask_ap": pytest.approx(0.5)}
    found = average_precision(with_mask_scores, records)
    assert found == {"box_ap": pytest.approx(0.5), "mask_ap": pytest.approx(1.0)}


def average_precision(run, records):
    return scored.average_precision(run, records, SIZE, described())


def verify(actual, records, quantize):
    pictures = [(np.zeros([1, *SIZE, 3], np.uint8), np.array([64, 80], np.int32))]
    file = device.Network(actual, SIZE, described(quantize))
    return verification.verify("m.tflite", file, answer(), pictures, records)


def test_ap_decides_about_int8(records):
    # An IoU of 44 / 52 = 0.846 passes seven of ten thresholds.
    with pytest.raises(VerificationError, match=r"m\.tflite: box_ap on .* is 0\.7000, and 1\.0000"):
        verify(answer(shift=4.0), records, "dynamic")
    # Far from the network's scores, which AP does not mind.
    found = verify(_unsure(answer()), records, "full")
    assert found.ap == {"box_ap": (pytest.approx(1.0),) * 2, "mask_ap": (pytest.approx(1.0),) * 2}
    assert found.agreement == 0.0
    with pytest.raises(VerificationError, match=r"only 0\.0%"):
        verify(_unsure(answer()), "", "full")
    with pytest.raises(VerificationError, match=r"only 0\.0%"):
        verify(_unsure(answer()), records, "float16")


def test_what_is_not_found_costs_ap(records):
    with pytest.raises(VerificationError, match=r"box_ap .* is 0\.50"):
        verify(answer(known=1), records, "full")


def _unsure(run):
    """The same boxes with a third of the scores."""

    def unsure(image, size_hw):
        outputs = run(image, size_hw)
        return outputs | {"scores": outputs["scores"] / 3}

    return unsure


def test_a_record_whose_picture_is_broken_is_named(records, tmp_path):
    mask = np.ones([1, 8, 8], bool)
    scene = record_maker.Scene(np.zeros([8, 8, 3], np.uint8), mask, [90], [False], "broken one")
    path = str(tmp_path / "broken.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(record_maker._serialize(scene, **{"image/encoded": [b"no picture"]}))
    with pytest.raises(ValueError, match=r"broken\.tfrecord: image broken one: "):
        scored.average_precision(answer(), path, SIZE, described())
