"""Loading a detector whose RPN is another network; the rest is in tests/end_to_end."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.detector import Detector, preprocessor
from mrcnn_tf.experiment import loading
from mrcnn_tf.experiment.experiment import maskrcnn
from mrcnn_tf.staged.two_networks import TwoNetworks
from tests import tiny_network


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders `rpn` and `detector` as training leaves them, the RPN with more proposals."""
    folder = tmp_path_factory.mktemp("runs")
    more = {"system": "rpn", "rpn": {"post_nms_top_k_test": 40}}
    for name, fields in (("rpn", more), ("detector", {"proposals": "file"})):
        experiment = maskrcnn()
        experiment.task.model = tiny_network.config("group_norm")
        experiment.task.model.override(fields)
        if name == "rpn":
            experiment.trainer.best_checkpoint_eval_metric = "ar_1000"
        for data in (experiment.task.train_data, experiment.task.validation_data):
            data.short_edges, data.long_edge = (64,), 64
            data.proposals = "" if name == "rpn" else "p"
        network = tiny_network.build_network(experiment.task.model)
        (folder / name).mkdir()
        tf.train.Checkpoint(model=network).save(str(folder / name / "ckpt"))
        loading.save(experiment, str(folder / name / "params.yaml"))
        labels = LabelMap((1, 2, 3), ("a", "b", "c")).to_json()
        (folder / name / schema.LABEL_MAP_FILE).write_text(labels)
    return folder


def load(runs, **fields) -> Detector:
    return Detector.load(
        str(runs / "detector" / "params.yaml"), str(runs / "detector"), json.dumps(fields)
    )


def with_rpn(runs) -> dict:
    return {
        "stages.rpn_experiment": str(runs / "rpn" / "params.yaml"),
        "stages.rpn_checkpoint": str(runs / "rpn"),
    }


def test_the_rpn_makes_as_many_proposals_as_the_detector_has_seen(runs):
    detector = load(runs, **with_rpn(runs))
    assert isinstance(detector.model, TwoNetworks)
    images, sizes = tf.zeros([1, 64, 64, 3]), tf.constant([[64.0, 64.0]])
    assert detector.model.rpn(images, sizes).boxes.shape == (1, 30, 4)
    assert detector.label_map.names == ("a", "b", "c")


def test_a_detector_without_its_rpn_is_refused(runs):
    with pytest.raises(ValueError, match="stages.rpn_experiment .* and stages.rpn_checkpoint"):
        load(runs)


def test_an_rpn_that_wants_other_images_is_refused(runs):
    other = {"task.validation_data.short_edges": [32]}
    with pytest.raises(ValueError, match=r"prepares images otherwise(.|\n)*64(.|\n)*32"):
        load(runs, **with_rpn(runs) | other)


def test_a_missing_rpn_is_named(runs, tmp_path):
    fields = with_rpn(runs) | {"stages.rpn_checkpoint": str(tmp_path)}
    with pytest.raises(ValueError, match=f"no checkpoint: '{tmp_path}'"):
        load(runs, **fields)
    fields = with_rpn(runs) | {"stages.rpn_experiment": str(tmp_path / "params.yaml")}
    with pytest.raises(ValueError, match="unknown experiment"):
        load(runs, **fields)


def test_an_rpn_alone_knows_one_category(runs):
    detector = Detector.load(str(runs / "rpn" / "params.yaml"), str(runs / "rpn"))
    assert detector.label_map.names == ("object",)


def test_pads_as_evaluation_does():
    """One canvas list for both, or a network is scored on other padding than it is served with."""
    experiment = loading.load("maskrcnn_r50_fpn")
    found = preprocessor(experiment).canvas_sizes
    assert found == ((800, 1088), (1088, 800), (800, 1344), (1344, 800))
    experiment.task.validation_data.canvas = "exact"
    assert preprocessor(experiment).canvas_sizes is None


def test_no_images_and_things_that_are_none(runs, tmp_path):
    detector = Detector.load(str(runs / "rpn" / "params.yaml"), str(runs / "rpn"))
    assert detector([]) == []
    (tmp_path / "notes.txt").write_text("no image")
    for image, message in (
        (tmp_path / "notes.txt", "notes.txt: not an image"),
        (tmp_path / "absent.png", "absent.png: the file cannot be read: No such file"),
        (np.zeros([4, 4, 3], np.float32), r"must be uint8 \[height, width, 3\], RGB, not float32"),
        (np.zeros([4, 4], np.uint8), r"not uint8 \[4, 4\]"),
        (np.zeros([0, 4, 3], np.uint8), r"not uint8 \[0, 4, 3\]"),
        (b"bytes of a file", "a path or an array, .* not bytes"),
        (None, "a path or an array, .* not NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            detector([image])
    for alone in ("image.png", tmp_path / "image.png"):
        with pytest.raises(ValueError, match="expected a list of images, not .*image.png"):
            detector(alone)
    found = detector([np.zeros([30, 50, 3], np.uint8)])[0]
    for detection in found:
        y1, x1, y2, x2 = detection.box
        assert 0 <= y1 < y2 <= 30
        assert 0 <= x1 < x2 <= 50


def test_what_is_found_in_an_image_does_not_depend_on_the_others(runs):
    """Group norms see the padding: images share a call only if they share a canvas."""
    usual = load(runs, **with_rpn(runs), **{"task.model.detection.score_threshold": 0.0})
    exact = dataclasses.replace(usual.preprocess, canvas_sizes=None)
    detector = Detector(usual.model, usual.label_map, exact, usual.mask_paste)
    rng = np.random.default_rng(0)
    sizes = ((64, 40), (40, 64), (64, 40), (50, 50))
    images = [rng.integers(0, 256, [*size, 3], np.uint8) for size in sizes]
    together = detector(image for image in images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector([image])
        assert len(found) == len(alone) > 0
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(one.score, other.score, atol=1e-5)
            np.testing.assert_allclose(one.box, other.box, atol=1e-3)


@pytest.mark.parametrize("images", [None, 3, "a.jpg"])
def test_what_is_no_list_of_images_is_refused(runs, images):
    with pytest.raises(ValueError, match="expected a list of images, not"):
        load(runs, **with_rpn(runs))(images)
