"""Python of the documentation: what it imports is there, and it runs, or it is listed why not."""

import ast
import contextlib
import io
import os
import pathlib
import textwrap

import numpy as np
import pytest

from tests.docs import listed, names, pages

ROOT = pages.ROOT
BLOCKS = pages.all_blocks("python")

# Run here: {(page, words of the block): what has to be there}, see `_prepare`.
HERE = {
    ("docs/start.md", "models.mask_rcnn"): (),
    ("docs/start.md", "Detector.load"): ("run", "photo.jpg"),
    ("docs/your-own-photos.md", "Detector.load"): ("run", "photo.jpg"),
    ("docs/images.md", "model.prepare"): ("run", "export"),
    ("docs/predict.md", "tiles.detect"): ("run", "export", "photo.jpg"),
    ("docs/exported-model.md", "mask.decode"): (),
}
QUICK = {("docs/exported-model.md", "mask.decode")}


def found_by(key: tuple[str, str]) -> list[pages.Block]:
    page, words = key
    return [block for block in BLOCKS if block.page == page and words in block.text]


# {page: the files of ours that its blocks quote}.
QUOTED = {
    "CONTRIBUTING.md": ("mrcnn_tf/ops/matching.py", "tests/ops/test_matching.py"),
    "docs/how-it-works.md": (
        "mrcnn_tf/modeling/fpn.py",
        "mrcnn_tf/modeling/losses.py",
        "mrcnn_tf/modeling/mask_rcnn.py",
        "mrcnn_tf/modeling/targets.py",
        "mrcnn_tf/ops/anchors.py",
        "mrcnn_tf/ops/boxes.py",
        "mrcnn_tf/ops/matching.py",
        "mrcnn_tf/ops/roi_align.py",
    ),
    "docs/how-to-add.md": (
        "data_prep/to_coco.py",
        "mrcnn_tf/results/forms.py",
        "mrcnn_tf/modeling/backbones.py",
        "mrcnn_tf/modeling/mask_heads.py",
    ),
}


def quoted_from(block: pages.Block) -> str | None:
    """The file of ours that a block quotes, whole lines of it, perhaps less indented."""
    indented = [textwrap.indent(block.text, " " * width) for width in range(0, 16, 4)]
    for name in QUOTED.get(block.page, ()):
        text = "\n" + (ROOT / name).read_text("utf-8")
        if any(f"\n{lines}" in text for lines in indented):
            return name
    return None


def test_blocks_are_run_or_listed_and_the_list_has_no_others():
    for key in [*HERE, *listed.PYTHON]:
        assert len(found_by(key)) == 1, f"{key} means one block of its page"
    accounted = [block for key in [*HERE, *listed.PYTHON] for block in found_by(key)]
    for block in BLOCKS:
        if block.page in QUOTED:
            assert quoted_from(block), f"{block.where}: it is not what the file has"
        else:
            assert block in accounted, f"{block.where}: list it in tests/docs/listed.py, or run it"


def test_files_of_tests_that_are_named_are_there():
    for said in [*listed.PYTHON.values(), *listed.NOT_RUN.values(), *listed.BASH.values()]:
        for word in said.replace(",", " ").replace(";", " ").split():
            if word.startswith(("tests/", "benchmarks/")):
                assert (ROOT / word.partition("::")[0]).exists(), word
            elif word.startswith("test_") and word.endswith(".py"):
                assert list((ROOT / "tests").rglob(word)), word


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_it_is_python_and_what_it_imports_of_ours_is_there(block):
    tree = ast.parse(textwrap.dedent(block.text))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert names.is_there(node.module, alias.name), f"{block.where}: {alias.name}"


def _prepare(folder: pathlib.Path, needed: tuple[str, ...]) -> None:
    """Put there what a user has who has come to that page: a run, an export, a photo."""
    import tensorflow as tf
    from PIL import Image

    from mrcnn_tf.data import schema
    from mrcnn_tf.data.label_map import LabelMap
    from mrcnn_tf.detector import Detector
    from mrcnn_tf.experiment import loading
    from mrcnn_tf.experiment.experiment import maskrcnn
    from tests import tiny_network

    if "photo.jpg" in needed:
        pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
        for name in ("photo.jpg", "field.png"):
            Image.fromarray(pixels).save(folder / name)
    if "run" not in needed:
        return
    experiment = maskrcnn()
    experiment.task.model = tiny_network.config("group_norm")
    experiment.task.model.detection.score_threshold = 0.0
    for data in (experiment.task.train_data, experiment.task.validation_data):
        data.short_edges, data.long_edge = (64,), 64
    network = tiny_network.build_network(experiment.task.model)
    labels = LabelMap((1, 2, 3), ("a", "b", "c")).to_json()
    for run in (folder / "runs/photos", folder / "runs/photos/training/best"):
        run.mkdir(parents=True)
        tf.train.Checkpoint(model=network).save(str(run / "ckpt"))
        (run / schema.LABEL_MAP_FILE).write_text(labels)
    for name in ("params.yaml", "photos.yaml"):
        loading.save(experiment, str(folder / "runs/photos" / name))
    if "export" in needed:
        detector = Detector.load("runs/photos/params.yaml", "runs/photos")
        detector.export("exported/photos", "image_bytes")


def _run(key: tuple[str, str]) -> tuple[dict, str]:
    """Run a block in the current folder; return its names and what it printed."""
    (block,) = found_by(key)
    # A run of the paper's size would take minutes to make.
    text = block.text.replace('"maskrcnn_r50_fpn"', '"runs/photos/params.yaml"')
    scope: dict = {"pixels": np.zeros([90, 120, 3], np.uint8)}
    if "answer" in key[1] or key[1] == "mask.decode":
        from pycocotools import mask

        shape = np.eye(6, 9, dtype=np.uint8)
        counts = mask.encode(np.asfortranarray(shape))["counts"]
        rows = np.array([[counts]], object)
        scope["answer"] = {"image_size": np.array([[6, 9]]), "detection_mask_counts": rows}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, block.where, "exec"), scope)
    return scope, out.getvalue()


@pytest.mark.parametrize("key", sorted(QUICK))
def test_it_runs_quickly(key):
    scope, _ = _run(key)
    np.testing.assert_array_equal(scope["pixels"], np.eye(6, 9))


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(set(HERE) - QUICK))
def test_it_runs(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _prepare(tmp_path, HERE[key])
    scope, printed = _run(key)
    if key[1] == "Detector.load":
        assert len(printed.splitlines()) >= 1
        assert printed.split()[0] in ("a", "b", "c")
    elif key[1] == "models.mask_rcnn":
        assert scope["detections"].boxes.shape == [1, 100, 4]
    elif key[1] == "model.prepare":
        assert scope["answer"]["detection_boxes"].shape[0] == 1
    else:
        assert isinstance(scope["objects"], list)
    assert os.getcwd() == str(tmp_path)
