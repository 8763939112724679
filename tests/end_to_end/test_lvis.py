"""1,203 categories annotated as LVIS is: trained, scored, exported, found by the same commands."""

import json

import numpy as np
import pytest

from mrcnn_tf import train
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.serving import image_run
from tests.end_to_end.conftest import SEVERAL_CANVASES, TINY, draw_and_convert

KINDS = ("", "50", "75", "_small", "_medium", "_large", "_rare", "_common", "_frequent")


@pytest.fixture(scope="module")
def lvis(tmp_path_factory):
    """Folder with `coco/` and `records/`, converted as docs/lvis.md has it."""
    flags = ("--num_train=12", "--num_val=4", "--num_categories=1203")
    return draw_and_convert(tmp_path_factory.mktemp("lvis"), *flags, num_shards=1)


def _load(folder, **differs):
    fields = (
        TINY
        | SEVERAL_CANVASES
        | {
            "task.train_data.input_path": f"{folder}/records/train-*.tfrecord",
            "task.validation_data.input_path": f"{folder}/records/val-*.tfrecord",
            "task.model.max_instances": 100,
            "trainer.train_steps": 2,
            "trainer.best_checkpoint_eval_metric": "mask_ap_rare",
        }
    )
    return loading.load("maskrcnn_shapes_lvis", params_override=json.dumps(fields | differs))


@pytest.mark.slow
def test_train_evaluate_export_predict(lvis, tmp_path):
    experiment = _load(lvis)
    run = str(tmp_path / "run")
    numbers = train.run(experiment, "train_and_eval", run)
    for kind in ("box", "mask"):
        assert all(f"{kind}_ap{name}" in numbers for name in KINDS)
        assert 0 <= numbers[f"{kind}_ap_rare"] <= 1  # of twelve images all categories are rare
        assert numbers[f"{kind}_ap_frequent"] == -1
        assert f"{kind}_ar100" in numbers
        assert f"{kind}_ar1" not in numbers
    assert np.isfinite(numbers["validation_loss"])
    label_map = LabelMap.from_json((lvis / "records" / schema.LABEL_MAP_FILE).read_bytes())
    assert len(label_map.ids) == 1203
    assert sum(label_map.image_counts) > 12

    # Against the annotation file, which numbers nothing otherwise: the same.
    by_file = _load(lvis, **{"task.annotation_file": f"{lvis}/coco/annotations/instances_val.json"})
    again = train.run(by_file, "eval", str(tmp_path / "eval"), checkpoint_path=run)
    for name, value in numbers.items():
        if name.startswith(("box_", "mask_")) and "/" not in name:
            assert again[name] == pytest.approx(value, abs=1e-6), name

    detector = Detector.load(f"{run}/params.yaml", run)
    assert detector.label_map == label_map
    found = detector(sorted((lvis / "coco" / "val").iterdir()))
    assert sum(map(len, found)) > 0
    assert detector.export(str(tmp_path / "exported"), "image_bytes").matched_fraction >= 0.95
    code = image_run.run(
        str(tmp_path / "exported"), str(lvis / "coco" / "val"), str(tmp_path / "out"), 0.0, 2
    )
    assert code == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(rows) == sum(map(len, found))


@pytest.mark.slow
def test_without_counts_training_says_so_before_it_starts(lvis, tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    for path in (lvis / "records").glob("*.tfrecord"):
        (records / path.name).write_bytes(path.read_bytes())
    names = LabelMap.from_json((lvis / "records" / schema.LABEL_MAP_FILE).read_bytes())
    plain = LabelMap(names.ids, names.names)
    (records / schema.LABEL_MAP_FILE).write_text(plain.to_json())
    with pytest.raises(ValueError, match="which the label map does not say. Convert the records"):
        train.run(_load(tmp_path), "train", str(tmp_path / "run"))
    assert not list((tmp_path / "run").glob("ckpt*"))
