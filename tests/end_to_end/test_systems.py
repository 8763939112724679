"""Every system through the same commands: train, evaluate, export, predict."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf import train
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import label_maps, loading
from mrcnn_tf.modeling import build
from mrcnn_tf.serving import image_run
from mrcnn_tf.training.task import MaskRCNNTask
from tests import tiny_network
from tests.end_to_end.conftest import SEVERAL_CANVASES, script

C4 = {"task.model.box_head.pool_size": 6, "task.model.mask_head.mask_size": 6}
LARGE_MASKS = {"task.model.mask_head.mask_size": 56, "task.boundary_ap": True}
HEAD_NORMS = {
    "task.model.box_head.conv_layers": 1,
    "task.model.box_head.conv_channels": 8,
    **{f"task.model.{part}.norm": "group_norm" for part in ("fpn", "box_head", "mask_head")},
}
JITTER = {"task.train_data.scale_jitter": [0.5, 2.0]}
RESNEXT = {
    "task.model.backbone.depth": 50,
    "task.model.backbone.groups": 4,
    "task.model.backbone.width_per_group": 32,  # of 64; with this base 4 channels
    "task.model.backbone.stride_in_1x1": False,
}
# Experiment, what differs on top of the tiny settings, what it is scored by.
SYSTEMS = {
    "Faster R-CNN": ("fasterrcnn_shapes", {}, "box_ap"),
    "Cascade": ("cascade_maskrcnn_shapes", {}, "mask_ap"),
    "PointRend": ("pointrend_shapes", {"task.model.mask_head.conv_layers": 4}, "mask_ap"),
    "Mask Scoring": ("maskscoring_shapes", {}, "mask_ap"),
    "masks of 56x56, boundary AP": ("maskrcnn_shapes", LARGE_MASKS, "boundary_ap"),
    "C4": ("maskrcnn_shapes_c4", C4, "mask_ap"),
    "RPN": ("rpn_shapes", {}, "ar_100"),
    "copy-paste": ("maskrcnn_shapes_copypaste", {}, "mask_ap"),
    "large-scale jitter, synchronised norms": (
        "maskrcnn_shapes",
        JITTER
        | {"task.model.backbone.norm": "sync_batch_norm", "task.model.rpn.conv_layers": 2}
        | {k: v if v != "group_norm" else "sync_batch_norm" for k, v in HEAD_NORMS.items()},
        "mask_ap",
    ),
    "ResNeXt, norms in pyramid and heads": ("maskrcnn_shapes", RESNEXT | HEAD_NORMS, "mask_ap"),
    "RoIPool, softmax, C4": (
        "maskrcnn_shapes_c4",
        C4
        | {
            "task.model.roi_align.type": "roi_pool",
            "task.model.roi_align.aggregate": "max",
            "task.model.mask_head.classes": "softmax",
        },
        "mask_ap",
    ),
    "RoIWarp, MLP, C5": (
        "maskrcnn_shapes",
        {
            "task.model.features": "c5",
            "task.model.roi_align.type": "roi_warp",
            "task.model.mask_head.type": "mlp",
            "task.model.mask_head.fc_channels": 16,
        },
        "mask_ap",
    ),
    "largest samples, one mask for all, DC5": (
        "maskrcnn_shapes",
        {
            "task.model.features": "dc5",
            "task.model.roi_align.aggregate": "max",
            "task.model.mask_head.classes": "agnostic",
        },
        "mask_ap",
    ),
}


@pytest.mark.slow
def test_looking_several_times(override, shapes, tmp_path):
    """Evaluation and `predict --tta` find the same, and other things than looking once does."""
    fields = json.loads(override) | {"task.validation_loss": False}

    def experiment(**tta):
        values = {f"task.tta.{name}": value for name, value in tta.items()}
        return loading.load("maskrcnn_shapes", params_override=json.dumps(fields | values))

    # Weights at random, so that boxes differ: what a few steps have taught is the same everywhere.
    run = str(tmp_path / "run")
    label_map = label_maps.of_experiment(experiment().task)
    model = build.build_model(experiment().task.model, label_map.num_classes)
    tiny_network.randomize(model)
    tf.train.Checkpoint(model=model).save(f"{run}/ckpt")
    scored = {
        name: train.run(experiment(**tta), "eval", str(tmp_path / name), checkpoint_path=run)
        for name, tta in {
            "plain": {},
            "one": {"short_edges": [64], "flips": False},
            "several": {"short_edges": [48, 64]},
        }.items()
    }
    assert scored["one"] == scored["plain"]
    assert scored["several"].keys() == scored["plain"].keys()

    several = experiment(short_edges=[48, 64])
    loading.save(several, f"{run}/params.yaml")
    detector = Detector.load(f"{run}/params.yaml", run)
    detector.export(str(tmp_path / "exported"), "image_bytes")
    rows = {}
    for flags in ((), ("--tta",)):
        said = script(
            "-m mrcnn_tf.predict",
            f"--saved_model={tmp_path}/exported",
            f"--input={shapes}/coco/val",
            f"--output_dir={tmp_path}/out{len(flags)}",
            "--batch_size=2",
            *flags,
        )
        assert ("with test-time augmentation" in said) == bool(flags)
        rows[flags] = json.loads((tmp_path / f"out{len(flags)}" / "detections.json").read_text())
    once = detector(sorted((shapes / "coco" / "val").iterdir()))
    assert [row["score"] for row in rows[()]] == [
        pytest.approx(one.score, abs=1e-4) for found in once for one in found
    ]

    # What the evaluation scored, detection by detection.
    annotations = json.loads((shapes / "coco/annotations/instances_val.json").read_text())
    names = {str(image["id"]): image["file_name"] for image in annotations["images"]}
    task = MaskRCNNTask(several.task, label_map=detector.label_map)
    compared = []
    for batch in task.build_inputs(several.task.validation_data):
        logs = task.validation_step(batch, detector.model)
        for b, source_id in enumerate(logs["source_id"].numpy()):
            name = names.get(bytes(source_id).rstrip(b"\0").decode())
            theirs = [row for row in rows[("--tta",)] if row["image_id"] == name]
            kept = np.flatnonzero(logs["valid"][b]) if name else ()
            assert len(kept) == len(theirs)
            for d in kept:
                y1, x1, y2, x2 = logs["boxes"][b, d].numpy()  # 64 pixels, as the images
                category = detector.label_map.ids[int(logs["classes"][b, d]) - 1]
                compared.append(
                    any(
                        row["category_id"] == category
                        and abs(row["score"] - float(logs["scores"][b, d])) < 1e-3
                        and np.abs(np.array(row["bbox"]) - [x1, y1, x2 - x1, y2 - y1]).max() < 0.5
                        for row in theirs
                    )
                )
    assert len(compared) > 40
    assert np.mean(compared) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_train_evaluate_export_predict(system, override, shapes, tmp_path):
    name, differs, metric = SYSTEMS[system]
    differs = SEVERAL_CANVASES | differs | {"trainer.train_steps": 2}
    fields = json.dumps(json.loads(override) | differs)
    experiment = loading.load(name, params_override=fields)
    numbers = train.run(experiment, "train_and_eval", str(tmp_path / "run"))
    assert 0 <= numbers[metric] <= 1
    has_masks = metric in ("mask_ap", "boundary_ap")
    assert ("mask_ap" in numbers) == has_masks
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
    outputs = signature.structured_outputs
    assert ("detection_masks" in outputs) == has_masks
    if has_masks:
        side = experiment.task.model.mask_head.mask_size if name != "pointrend_shapes" else 56
        assert outputs["detection_masks"].shape[2:] == (side, side)

    code = image_run.run(
        str(tmp_path / "exported"), str(shapes / "coco" / "val"), str(tmp_path / "out"), 0.0, 2
    )
    assert code == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(rows) == sum(map(len, found))
    assert all(("segmentation" in row) == has_masks for row in rows)
    assert len(list((tmp_path / "out" / "drawn").iterdir())) == len(images)
    assert all(("mask_score" in row) == (name == "maskscoring_shapes") for row in rows)
    assert all(0 <= row.get("mask_score", 0) <= row["score"] for row in rows)
    if name == "rpn_shapes":
        assert {row["category"] for row in rows} == {"object"}
        assert {row["category_id"] for row in rows} == {1}
