"""`tfds build` as its users type it, then training from the data set, beside one from records."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import ROOT, script

_TFDS = pathlib.Path(sys.executable).with_name("tfds")


@pytest.mark.slow
def test_a_data_set_is_built_and_trained_from_as_from_records(shapes, override, tmp_path):
    command = [str(_TFDS), "build", str(ROOT / "data_prep" / "tfds" / "coco_folder")]
    command += [f"--manual_dir={shapes / 'coco'}", f"--data_dir={tmp_path / 'tfds'}"]
    # From a folder that is not the checkout, which Python does not know of.
    done = subprocess.run(
        [*command, "--num_shards=2"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "tfds" / "coco_folder" / "coco" / "1.0.0"
    assert len(list(folder.glob("coco_folder-train.tfrecord-*-of-00002"))) == 2

    of_tfds = json.loads(override)
    for data, split in (("train_data", "train"), ("validation_data", "validation")):
        del of_tfds[f"task.{data}.input_path"]  # the experiment itself names records
        of_tfds[f"task.{data}.tfds_name"] = "coco_folder/coco"
        of_tfds[f"task.{data}.tfds_split"] = split
        of_tfds[f"task.{data}.tfds_data_dir"] = str(tmp_path / "tfds")
    rows = {}
    for name, fields in (("records", override), ("tfds", json.dumps(of_tfds))):
        run = tmp_path / "runs" / name
        printed = script(
            "-m mrcnn_tf.train",
            "--experiment=maskrcnn_shapes",
            f"--model_dir={run}",
            f"--params_override={fields}",
        )
        assert "train_and_eval" in printed
        rows[name] = [
            json.loads(line)
            for file in ("train.jsonl", "metrics.jsonl")
            for line in (run / file).read_text().splitlines()
        ]
    assert len(rows["records"]) == len(rows["tfds"]) == 3
    for ours, theirs in zip(rows["records"], rows["tfds"], strict=True):
        assert ours.keys() == theirs.keys()
        same = {k for k in ours if "loss" in k or k.startswith(("box_", "mask_")) or k == "step"}
        assert len(same) > 5
        # Threads add up in any order: in two runs of the same, losses differ in their last bits.
        assert {k: theirs[k] for k in same} == pytest.approx({k: ours[k] for k in same}, rel=1e-3)

    # It is scored again, by the file that the run has left.
    flags = (f"--experiment={run}/params.yaml", f"--model_dir={run}")
    assert "eval of" in script("-m mrcnn_tf.train", *flags, "--mode=eval")
