"""A data set of a few images and a network small enough to train in a test."""

import json
import pathlib
import subprocess
import sys

import pytest

from mrcnn_tf.experiment import loading

ROOT = pathlib.Path(__file__).resolve().parents[2]

TINY = {
    "task.model.backbone.base_width": 8,
    "task.model.fpn.channels": 16,
    "task.model.box_head.fc_channels": 32,
    "task.model.box_head.rois_per_image": 16,
    "task.model.mask_head.conv_layers": 1,
    "task.model.mask_head.conv_channels": 8,
    "task.model.rpn.pre_nms_top_k_train": 50,
    "task.model.rpn.pre_nms_top_k_test": 50,
    "task.model.rpn.post_nms_top_k_train": 50,
    "task.model.rpn.post_nms_top_k_test": 20,
    "task.model.max_instances": 20,
    "task.model.detection.score_threshold": 0.0,
    "task.train_data.global_batch_size": 2,
    "task.validation_data.global_batch_size": 3,
    "task.train_data.short_edges": [64],
    "task.train_data.long_edge": 64,
    "task.validation_data.short_edges": [64],
    "task.validation_data.long_edge": 64,
    "trainer.reference_batch_size": 2,
    "trainer.train_steps": 4,
    "trainer.steps_per_loop": 2,
    "trainer.summary_interval": 2,
    "trainer.checkpoint_interval": 2,
    "trainer.validation_interval": 4,
}

# No tensor has a static size then, as in the paper's experiments, and every canvas is traced.
SEVERAL_CANVASES = {"task.train_data.long_edge": 96, "task.validation_data.long_edge": 96}


def script(name: str, *flags: str) -> str:
    """Run a command of the repository; return what it printed."""
    command = [sys.executable, *name.split(), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def draw_and_convert(folder: pathlib.Path, *flags: str, num_shards: int = 2) -> pathlib.Path:
    """Draw shapes of 64 x 64 with these flags into `coco/`, make `records/`; return the folder."""
    script(
        "data_prep/create_shapes_coco.py",
        *(f"--output_dir={folder / 'coco'}", "--image_size=64", *flags),
    )
    for split in ("train", "val"):
        script(
            "data_prep/create_coco_tfrecord.py",
            f"--image_dir={folder / 'coco' / split}",
            f"--object_annotations_file={folder}/coco/annotations/instances_{split}.json",
            f"--output_file_prefix={folder / 'records' / split}",
            f"--num_shards={num_shards}",
        )
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> pathlib.Path:
    """Folder with `coco/` (images and annotations) and `records/`: 6 to train, 4 to validate."""
    return draw_and_convert(tmp_path_factory.mktemp("shapes"), "--num_train=6", "--num_val=4")


@pytest.fixture(scope="session")
def override(shapes) -> str:
    """`--params_override` of the tiny experiment on these records."""
    fields = TINY | {
        "task.train_data.input_path": f"{shapes}/records/train-*.tfrecord",
        "task.validation_data.input_path": f"{shapes}/records/val-*.tfrecord",
    }
    return json.dumps(fields)


@pytest.fixture
def tiny(override):
    """Return a function that loads the tiny experiment."""
    return lambda: loading.load("maskrcnn_shapes", params_override=override)
