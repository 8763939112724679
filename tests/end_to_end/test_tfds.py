"""A data set built by a command, and training from it, beside training from records."""

import json
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import ROOT, script


def files_of(folder):
    """What counts of a data set: records, features, names."""
    names = ("tfrecord", "features.json", "labels.txt", "label_map.json")
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if any(name in path.name for name in names)
    }


@pytest.mark.slow
def test_tfdss_own_command_builds_the_same(shapes, tmp_path):
    pytest.importorskip("apache_beam", reason="TFDS 4.9.10's command does not start without it")
    flags = (f"--manual_dir={shapes / 'coco'}", "--num_shards=2")
    script("data_prep/tfds_build.py", *flags, f"--data_dir={tmp_path / 'ours'}")
    builder = str(ROOT / "data_prep" / "tfds" / "coco_folder")
    command = "from tensorflow_datasets.scripts.cli.main import launch_cli; launch_cli()"
    for name, options in (
        ("plain", ()),
        ("beam", ("--beam_pipeline_options=runner=FnApiRunner",)),
    ):
        # From a folder that is not the checkout, of which Python does not know.
        arguments = [*flags, *options, f"--data_dir={tmp_path / name}"]
        done = subprocess.run(
            [sys.executable, "-c", command, "build", builder, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert files_of(tmp_path / name) == files_of(tmp_path / "ours")
    assert len(files_of(tmp_path / "ours")) == 4 + 2 + 3


@pytest.mark.slow
def test_a_data_set_is_built_and_trained_from_as_from_records(shapes, override, tmp_path):
    flags = (f"--manual_dir={shapes / 'coco'}", f"--data_dir={tmp_path / 'tfds'}", "--num_shards=2")
    script("data_prep/tfds_build.py", *flags)
    folder = tmp_path / "tfds" / "coco_folder" / "coco" / "1.1.0"
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
