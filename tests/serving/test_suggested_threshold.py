"""The threshold of a report, from its file through the export to what is drawn."""

import json

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.serving import image_run, predictor, signatures, suggested_threshold

RED = (255, 0, 0)


def write_report(run, checkpoint, threshold=0.42):
    (run / "report").mkdir(parents=True, exist_ok=True)
    content = {"checkpoint": checkpoint, "suggested_score_threshold": threshold}
    (run / "report" / "report.json").write_text(json.dumps(content))


def test_threshold_of_the_checkpoint_that_the_report_is_of(tmp_path):
    run = tmp_path / "run"
    assert suggested_threshold.of_checkpoint(f"{run}/ckpt-4") is None
    write_report(run, "runs/before/it/was/moved/ckpt-4")
    assert suggested_threshold.of_checkpoint(f"{run}/ckpt-4") == 0.42
    assert suggested_threshold.of_checkpoint(f"{run}/ckpt-8") is None
    assert suggested_threshold.of_checkpoint(f"{run}/best/ckpt-4") is None
    write_report(run, f"{run}/best/ckpt-4", 0.37)
    assert suggested_threshold.of_checkpoint(f"{run}/best/ckpt-4") == 0.37
    assert suggested_threshold.of_checkpoint(f"{run}/ckpt-4") is None
    write_report(run, f"{run}/ckpt-4", None)  # nothing was right
    assert suggested_threshold.of_checkpoint(f"{run}/ckpt-4") is None
    (run / "report" / "report.json").write_text('{"checkpoint": "ckp')
    with pytest.raises(ValueError, match=r"report/report.json: no JSON .*make the report anew"):
        suggested_threshold.of_checkpoint(f"{run}/ckpt-4")


def test_where_an_export_looks():
    is_found = suggested_threshold.is_found
    assert is_found("runs/a/ckpt-4", "runs/a/report")
    assert is_found("runs/a/best/best_ckpt-4", "runs/b/../a/report/")
    assert not is_found("runs/a/ckpt-4", "runs/a/report2")
    assert not is_found("runs/a/ckpt-4", "runs/b/report")
    assert not is_found("", "report")


@pytest.fixture(scope="module")
def with_threshold(tmp_path_factory, detect, labels, preprocess):
    folder = tmp_path_factory.mktemp("models") / "suggesting"
    signatures.export_saved_model(
        detect,
        str(folder),
        input_type="image_bytes",
        label_map=labels,
        preprocess=preprocess,
        mask_convention="pixel_centres",
        score_threshold=0.8,
    )
    return str(folder)


@pytest.mark.slow
def test_exports_suggest_it_or_nothing(with_threshold, export, export_of_0_1_0):
    assert predictor.Predictor(with_threshold).suggested_score_threshold == 0.8
    for old in (export("image_bytes"), export_of_0_1_0("image_bytes")):
        assert predictor.Predictor(str(old)).suggested_score_threshold is None


def test_drawing_starts_where_the_export_suggests(
    with_threshold, export, draw_rectangles, tmp_path, capsys
):
    """The red rectangle scores 0.75: above 0.5, below 0.8."""
    pixels = draw_rectangles(500, 500, {RED: (100, 100, 300, 300)})
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def drawn(model, threshold):
        out = tmp_path / "out"
        assert image_run.run(str(model), str(tmp_path / "a.png"), str(out), threshold, 1) == 0
        return (np.asarray(Image.open(out / "drawn/a.png")) != pixels).any()

    assert not drawn(with_threshold, None)
    sentence = "score of 0.8 or more are drawn, as the report of this network suggests"
    assert sentence in capsys.readouterr().out
    assert drawn(with_threshold, 0.6)
    assert "suggests" not in capsys.readouterr().out
    assert drawn(export("image_bytes"), None)
    assert "score of 0.5 or more are drawn:" in capsys.readouterr().out
