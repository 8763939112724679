"""Every system through the same commands: train, evaluate, export, predict."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf import train
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.serving import image_run

C4 = {"task.model.box_head.pool_size": 6, "task.model.mask_head.mask_size": 6}
# Experiment, what differs on top of the tiny settings, what it is scored by.
SYSTEMS = {
    "fasterrcnn_shapes": ({}, "box_ap"),
    "cascade_maskrcnn_shapes": ({}, "mask_ap"),
    "maskrcnn_shapes_c4": (C4, "mask_ap"),
    "rpn_shapes": ({}, "ar_100"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_train_evaluate_export_predict(name, override, shapes, tmp_path):
    differs, metric = SYSTEMS[name]
    fields = json.dumps(json.loads(override) | differs | {"trainer.train_steps": 2})
    experiment = loading.load(name, params_override=fields)
    numbers = train.run(experiment, "train_and_eval", str(tmp_path / "run"))
    assert 0 <= numbers[metric] <= 1
    assert ("mask_ap" in numbers) == (metric == "mask_ap")
    assert np.isfinite(numbers["validation_loss"])

    # As training left it, and by the experiment's name.
    detector = Detector.load(str(tmp_path / "run" / "params.yaml"), str(tmp_path / "run"))
    again = Detector.load(name, str(tmp_path / "run"), fields)
    images = sorted((shapes / "coco" / "val").iterdir())
    for ours, other in zip(detector.model.variables, again.model.variables, strict=True):
        np.testing.assert_array_equal(ours, other)
    found = detector(images)
    assert sum(map(len, found)) > 0

    verified = detector.export(str(tmp_path / "exported"), "image_bytes")
    assert verified.matched_fraction >= 0.95
    signature = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    assert ("detection_masks" in signature.structured_outputs) == (metric == "mask_ap")

    code = image_run.run(
        str(tmp_path / "exported"), str(shapes / "coco" / "val"), str(tmp_path / "out"), 0.0, 2
    )
    assert code == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(rows) == sum(map(len, found))
    assert all(("segmentation" in row) == (metric == "mask_ap") for row in rows)
    assert len(list((tmp_path / "out" / "drawn").iterdir())) == len(images)
    if name == "rpn_shapes":
        assert {row["category"] for row in rows} == {"object"}
        assert {row["category_id"] for row in rows} == {1}
