"""A run's report as a user makes it, and what export and predict do with it."""

import json

import pytest

from mrcnn_tf import train
from mrcnn_tf.experiment import loading
from tests.end_to_end.conftest import script


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
