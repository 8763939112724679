"""Keypoints through the commands: drawn, converted, trained, scored, exported, predicted."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf import train
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.serving import image_run
from tests.end_to_end.conftest import SEVERAL_CANVASES, TINY, draw_and_convert

DATA = ("train_data", "validation_data")


@pytest.fixture(scope="module")
def arrows(tmp_path_factory):
    flags = ("--num_train=8", "--num_val=6", "--keypoints")
    return draw_and_convert(tmp_path_factory.mktemp("arrows"), *flags)


def experiment(folder, **fields):
    given = (
        TINY
        | SEVERAL_CANVASES
        | {
            "task.model.keypoint_head.conv_layers": 1,
            "task.model.keypoint_head.conv_channels": 8,
            "task.train_data.input_path": f"{folder}/records/train-*.tfrecord",
            "task.validation_data.input_path": f"{folder}/records/val-*.tfrecord",
            "trainer.train_steps": 2,
        }
    )
    return loading.load("keypointrcnn_shapes", params_override=json.dumps(given | fields))


@pytest.mark.slow
def test_train_evaluate_export_predict(arrows, tmp_path):
    run = str(tmp_path / "run")
    numbers = train.run(experiment(arrows), "train_and_eval", run)
    assert 0 <= numbers["keypoint_ap"] <= 1
    assert {"box_ap", "mask_ap", "keypoint_ap75", "keypoint_ar", "keypoint_ap/arrow"} <= set(
        numbers
    )
    assert np.isfinite(numbers["keypoint_loss"])
    detector = Detector.load(f"{run}/params.yaml", run)
    images = sorted((arrows / "coco" / "val").iterdir())
    ours = [one for found in detector(images) for one in found]
    assert any(one.category == "arrow" for one in ours)
    for one in ours:
        assert (one.keypoints is not None) == (one.category == "arrow")

    assert detector.export(str(tmp_path / "exported"), "image_bytes").matched_fraction >= 0.95
    outputs = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    assert outputs.structured_outputs["detection_keypoints"].shape.as_list() == [None, 20, 5, 2]
    code = image_run.run(
        str(tmp_path / "exported"), str(arrows / "coco" / "val"), str(tmp_path / "out"), 0.0, 2,
        forms=("coco",),
    )  # fmt: skip
    assert code == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(rows) == len(ours)
    compared = 0
    for row, one in zip(rows, ours, strict=True):
        assert ("keypoints" in row) == (row["category"] == "arrow")
        if "keypoints" in row and one.category == "arrow" and abs(row["score"] - one.score) < 1e-5:
            theirs = np.reshape(row["keypoints"], [5, 3])
            compared += np.abs(theirs[:, 1::-1] + 0.5 - one.keypoints.points).max() < 0.5
    assert compared > 0
    content = json.loads((tmp_path / "out" / "results" / "coco" / "annotations.json").read_text())
    arrow = next(c for c in content["categories"] if c["name"] == "arrow")
    assert arrow["keypoints"][0] == "tip"
    assert any(a.get("num_keypoints") == 5 for a in content["annotations"])
    assert len(list((tmp_path / "out" / "drawn").iterdir())) == len(images)


@pytest.mark.slow
def test_other_keypoints_than_the_records_have_are_refused(arrows, tmp_path):
    with pytest.raises(ValueError, match=r"num_keypoints is 17, but .*label_map.json has 5: tip"):
        train.run(
            experiment(arrows, **{"task.model.keypoint_head.num_keypoints": 17}),
            "train",
            str(tmp_path / "run"),
        )


@pytest.mark.slow
def test_corners_are_learnt_by_heart(arrows, tmp_path):
    """Those of the training images themselves, by the experiment's own network, in minutes."""
    size = {"short_edges": [64], "long_edge": 64}
    steps = {name: 900 for name in ("train_steps", "validation_interval", "checkpoint_interval")}
    fields = (
        {f"task.{data}.{name}": value for name, value in size.items() for data in DATA}
        | {f"task.{data}.input_path": f"{arrows}/records/train-*.tfrecord" for data in DATA}
        | {f"trainer.{name}": value for name, value in steps.items()}
        | {
            "task.train_data.flip_probability": 0.0,
            "task.validation_data.global_batch_size": 4,
            "task.model.roi_align.sampling_ratio": 2,
            "trainer.optimizer_config.learning_rate.cosine.decay_steps": 900,
        }
    )
    by_heart = loading.load("keypointrcnn_shapes", params_override=json.dumps(fields))
    numbers = train.run(by_heart, "train_and_eval", str(tmp_path / "run"))
    print(f"keypoint AP {numbers['keypoint_ap']:.3f}, AP50 {numbers['keypoint_ap50']:.3f}")
    assert numbers["keypoint_ap50"] > 0.5
    assert numbers["keypoint_ap"] > 0.2
