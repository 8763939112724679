"""A run's report as a user makes it, and what export and predict do with it."""

import json
import subprocess
import sys

import pytest

from mrcnn_tf import train
from mrcnn_tf.data import schema
from mrcnn_tf.experiment import loading
from tests.end_to_end.conftest import ROOT, script
from tests.end_to_end.test_runs import copy_records


@pytest.mark.slow
def test_train_report_export_predict(override, shapes, tmp_path):
    run = tmp_path / "run"
    experiment = loading.load("maskrcnn_shapes", params_override=override)
    numbers = train.run(experiment, "train_and_eval", str(run))
    lines_before = (run / "metrics.jsonl").read_text()

    printed = script("-m mrcnn_tf.report", f"--model_dir={run}")
    assert printed.splitlines()[-1] == f"{run}/report/report.html"
    content = json.loads((run / "report" / "report.json").read_text())
    assert content["checkpoint"] == f"{run}/ckpt-4"
    (ap50,) = [
        row["value"]
        for row in content["numbers"]
        if (row["kind"], row["category"], row["size"], row["measure"])
        == ("mask", "all", "all", "ap50")
    ]
    assert ap50 == pytest.approx(numbers["mask_ap50"], abs=1e-6)
    assert len(content["made_from"]["validation annotations, SHA-256"]) == 64
    page = (run / "report" / "report.html").read_text()
    for words in ("task.model.fpn.channels", "Loss", "tensorflow", "4 validation images"):
        assert words in page, words
    leads_export = "on if the network was exported after this report" in page
    assert leads_export == bool(content["threshold"])
    assert (run / "metrics.jsonl").read_text() == lines_before

    # Four steps teach nothing reliable, so what the export is told is put there by hand.
    content["suggested_score_threshold"] = 0.012
    (run / "report" / "report.json").write_text(json.dumps(content))
    exported = tmp_path / "exported"
    printed = script(
        "-m mrcnn_tf.export",
        f"--experiment={run}/params.yaml",
        f"--checkpoint_path={run}",
        f"--export_dir={exported}",
    )
    assert "with the score threshold that the report suggests: 0.012" in printed
    printed = script(
        "-m mrcnn_tf.predict",
        f"--saved_model={exported}",
        f"--input={shapes}/coco/val",
        f"--output_dir={tmp_path / 'found'}",
    )
    assert "score of 0.012 or more are drawn, as the report" in printed


@pytest.mark.slow
def test_a_damaged_image_is_named_without_a_traceback(override, shapes, tmp_path):
    run = tmp_path / "run"
    experiment = loading.load("maskrcnn_shapes", params_override=override)
    train.run(experiment, "train", str(run))

    def damage(features):
        features[schema.IMAGE_ENCODED].bytes_list.value[:] = [b"no image"]

    source = sorted((shapes / "records").glob("val*.tfrecord"))
    damaged = copy_records(source, tmp_path / "damaged", damage)
    command = [sys.executable, "-m", "mrcnn_tf.report", f"--model_dir={run}"]
    command += [f"--params_override=task.validation_data.input_path={damaged}/val*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert line == done.stderr.splitlines()[-1]
    assert "configurable" not in line
    assert line.startswith(f"error: {damaged}/val-")
    assert "Invalid JPEG data" in line
    assert not (run / "report").exists()
