"""From images to drawn masks with the installed commands, in a folder that is not the checkout."""

import json

import pytest
import yaml

from tests.end_to_end.conftest import TINY
from tests.install import environments

ONE_STEP = {
    "trainer.train_steps": 1,
    "trainer.steps_per_loop": 1,
    "trainer.summary_interval": 1,
    "trainer.checkpoint_interval": 1,
    "trainer.validation_interval": 1,
    "task.train_data.input_path": "records/train-*.tfrecord",
    "task.validation_data.input_path": "records/val-*.tfrecord",
}


@pytest.mark.slow
def test_one_step_is_trained_scored_exported_and_predicted_with(installed, plain, tmp_path):
    def run(name: str, *flags: str) -> str:
        printed = environments.run([installed.with_name(name), *flags], tmp_path)
        assert str(environments.ROOT) not in printed
        return printed

    own = {"base": "maskrcnn_shapes"} | TINY | ONE_STEP  # a file of the user's, on one of ours
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    sizes = ("--num_train=4", "--num_val=2", "--image_size=64")
    run("mrcnn-create-shapes-coco", "--output_dir=coco", *sizes)
    for split in ("train", "val"):
        printed = run(
            "mrcnn-create-coco-tfrecord",
            f"--image_dir=coco/{split}",
            f"--object_annotations_file=coco/annotations/instances_{split}.json",
            f"--output_file_prefix=records/{split}",
            "--num_shards=1",
            "--num_processes=2",  # which import the command's module anew, by its name
        )
        assert "1 shards" in printed

    printed = run("mrcnn-train", "--experiment=own.yaml", "--model_dir=run")
    assert "own: train_and_eval on 1 CPU in float32, " in printed
    assert (tmp_path / "run" / "ckpt-1.index").exists()
    scores = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert scores["step"] == 1

    flags = ("--experiment=run/params.yaml", "--model_dir=run", "--mode=eval")
    by_module = environments.run([installed, "-m", "mrcnn_tf.train", *flags], tmp_path)
    assert "own: eval of run/ckpt-1 on 1 CPU in float32\n" in by_module

    flags = ("--experiment=run/params.yaml", "--checkpoint_path=run", "--export_dir=exported")
    assert "exported: takes image_bytes" in run("mrcnn-export", *flags)
    # Prediction takes none of what training takes.
    flags = ("--saved_model=exported", "--input=coco/val", "--output_dir=found")
    environments.run([plain.with_name("mrcnn-predict"), *flags], tmp_path)
    assert isinstance(json.loads((tmp_path / "found" / "detections.json").read_text()), list)
    assert len(list((tmp_path / "found" / "drawn").glob("*.jpg"))) == 2
