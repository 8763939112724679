"""RPN and detector trained in several runs by one command, then used like any other network."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf import train
from mrcnn_tf.detector import Detector
from mrcnn_tf.experiment import loading
from mrcnn_tf.images import reading
from mrcnn_tf.serving import predictor
from tests.end_to_end.conftest import ROOT

pytestmark = pytest.mark.slow  # each stage is a process that starts TensorFlow


@pytest.fixture(scope="module")
def fields(override) -> str:
    return json.dumps(json.loads(override) | {"trainer.train_steps": 2})


def train_stages(experiment, folder, fields, check=True):
    command = [sys.executable, "-m", "mrcnn_tf.train_stages", f"--experiment={experiment}"]
    command += [f"--model_dir={folder}", f"--params_override={fields}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def images(shapes):
    return sorted((shapes / "coco" / "val").iterdir())


def test_separate(fields, shapes, tmp_path):
    name, run = "maskrcnn_shapes_separate_rpn", tmp_path / "run"
    # Stopped before the second stage can write, it goes on from there.
    run.mkdir()
    (run / "proposals").write_text("a file where a folder is wanted")
    stopped = train_stages(name, run, fields, check=False)
    assert stopped.returncode != 0
    assert "stage 'write its proposals' ended with exit code" in stopped.stderr
    (run / "proposals").unlink()
    first = (run / "rpn" / "train.jsonl").read_text()
    printed = train_stages(name, run, fields).stdout
    assert "[1/4] train the RPN: done" in printed
    assert (run / "rpn" / "train.jsonl").read_text() == first
    assert sorted(p.name for p in (run / "proposals").iterdir()) == ["train", "validation"]
    numbers = [json.loads(r) for r in (run / "detector" / "metrics.jsonl").read_text().splitlines()]
    assert len(numbers) == 2  # at the end of training, and the last stage
    assert numbers[0]["mask_ap"] == pytest.approx(numbers[1]["mask_ap"], abs=1e-6)
    assert "ar_100" in json.loads((run / "rpn" / "metrics.jsonl").read_text())

    # By the experiment's name, or by what training left.
    detector = Detector.load(name, str(run))
    assert f"--experiment={run}/detector/params.yaml" in printed
    again = Detector.load(str(run / "detector" / "params.yaml"), str(run / "detector"))
    for ours, other in zip(detector.model.variables, again.model.variables, strict=True):
        np.testing.assert_array_equal(ours, other)
    found = detector(images(shapes))
    assert sum(map(len, found)) > 0
    assert found[0][0].mask is not None
    detector.export(str(tmp_path / "exported"), "image_bytes")
    served = predictor.Predictor(str(tmp_path / "exported"))(
        [reading.read(image) for image in images(shapes)]
    )
    for ours, theirs in zip(found, served, strict=True):
        np.testing.assert_allclose([d.score for d in ours], [d.score for d in theirs], atol=1e-4)


def test_alternating(fields, shapes, tmp_path):
    name, run = "maskrcnn_shapes_alternating", tmp_path / "run"
    train_stages(name, run, fields)
    joint = tf.train.load_checkpoint(str(run))
    parts = {
        "backbone": ("step2_detector", "step3_rpn", "step4_detector"),
        "pyramid": ("step2_detector", "step3_rpn", "step4_detector"),
        "rpn": ("step3_rpn",),
        "roi_heads": ("step4_detector",),
    }
    for part, sources in parts.items():
        keys = [
            k
            for k in joint.get_variable_to_shape_map()
            if k.startswith(f"model/{part}/") and k.endswith("VARIABLE_VALUE")
        ]
        assert keys, part
        for source in sources:
            saved = tf.train.load_checkpoint(str(run / source))
            for key in keys:
                np.testing.assert_array_equal(
                    joint.get_tensor(key), saved.get_tensor(key), f"{source}: {key}"
                )
    # On its own proposals the joint network scores what step 4 scored on step 3's files.
    numbers = json.loads((run / "metrics.jsonl").read_text())
    assert numbers["step"] == 2
    last = json.loads((run / "step4_detector" / "metrics.jsonl").read_text().splitlines()[-1])
    assert numbers["mask_ap"] == pytest.approx(last["mask_ap"], abs=0.02)
    # One network, by its name.
    again = train.run(loading.load(name, params_override=fields), "eval", str(run))
    assert again["mask_ap"] == pytest.approx(numbers["mask_ap"], abs=1e-6)
    detector = Detector.load(name, str(run), fields)
    assert sum(map(len, detector(images(shapes)))) > 0
