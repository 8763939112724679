"""Training apart, by its single commands: an RPN, its proposals in files, a detector on them."""

import json
import shutil

import numpy as np
import pytest

from mrcnn_tf import train
from mrcnn_tf.data import record_files
from mrcnn_tf.data.schema import SOURCE_ID_BYTES
from mrcnn_tf.evaluation import ground_truth
from mrcnn_tf.evaluation.proposals import ProposalEvaluator
from mrcnn_tf.experiment import label_maps, loading
from mrcnn_tf.staged import writing
from mrcnn_tf.staged.proposals import STEPS, ProposalReader
from tests.end_to_end.conftest import script

pytestmark = pytest.mark.slow

RPN = {"task.model.system": "rpn", "trainer.best_checkpoint_eval_metric": "ar_1000"}
NUM_TRAIN, NUM_VALIDATION = 50, 20  # proposals per image, see TINY


def load(override, **fields):
    return loading.load(
        "maskrcnn_shapes", params_override=json.dumps(json.loads(override) | fields)
    )


def load_detector(override, folder, **fields):
    files = {
        f"task.{split}_data.proposals": f"{folder}/{split}" for split in ("train", "validation")
    }
    return load(override, **({"task.model.proposals": "file"} | files | fields))


@pytest.fixture(scope="module")
def rpn(override, tmp_path_factory):
    """An RPN of four steps: (its run, its numbers)."""
    run = tmp_path_factory.mktemp("runs") / "rpn"
    return run, train.run(load(override, **RPN), "train_and_eval", str(run))


@pytest.fixture(scope="module")
def written(rpn, override, tmp_path_factory):
    """Its proposals."""
    folder = tmp_path_factory.mktemp("proposals")
    writing.run(load(override, **RPN), str(rpn[0]), str(folder))
    return folder


def test_an_rpn_is_scored_by_average_recall(rpn):
    run, numbers = rpn
    assert 0 < numbers["ar_100"] <= 1
    assert numbers["ar_100"] == numbers["ar_300"] == numbers["ar_1000"]  # of 20 proposals
    assert {"rpn_class_loss", "rpn_box_loss", "ar_small_300", "ar_large_1000"} <= set(numbers)
    assert not any(name.startswith(("box_", "mask_")) for name in numbers)
    best = json.loads((run / "best" / "info.json").read_text())
    assert best["ar_1000"] == pytest.approx(numbers["ar_1000"])


def test_every_image_of_both_sets_has_its_number_of_proposals(written, shapes):
    for split, pattern, count in (
        ("train", "train", NUM_TRAIN),
        ("validation", "val", NUM_VALIDATION),
    ):
        reader = ProposalReader(str(written / split))
        files = sorted(map(str, (shapes / "records").glob(f"{pattern}-*.tfrecord")))
        assert reader.meta["num_images"] == record_files.count_records(files)
        assert reader.meta["num_per_image"] == count
        reader.check_records(files)
        per_image = reader.meta["num_boxes"] / reader.meta["num_images"]
        assert count / 2 < per_image <= count
    assert {path.name for path in written.iterdir()} == {"train", "validation"}


def test_the_files_hold_what_was_scored(rpn, written, override, shapes):
    """Average recall of the files is that of the evaluation, but for rounding."""
    experiment = load(override)
    pattern = f"{shapes}/records/val-*.tfrecord"
    label_map = label_maps.of_experiment(experiment.task)
    evaluator = ProposalEvaluator(ground_truth.from_records(pattern, label_map, False))
    reader = ProposalReader(str(written / "validation"))
    for image in record_files.sample_images(sorted(map(str, (shapes / "records").glob("val-*")))):
        boxes = reader.lookup(image.source_id, np.array(image.size_hw)) / STEPS
        source_id = np.zeros([1, SOURCE_ID_BYTES], np.uint8)
        source_id[0, : len(image.source_id)] = np.frombuffer(image.source_id, np.uint8)
        evaluator.add(
            source_id=source_id,
            image_size_hw=np.ones([1, 2]),
            original_size_hw=np.array([image.size_hw]),
            boxes=boxes[None],
            scores=-np.arange(len(boxes))[None],
            valid=np.ones([1, len(boxes)], bool),
        )
    assert evaluator.evaluate()["ar_100"] == pytest.approx(rpn[1]["ar_100"], abs=0.02)


def test_a_detector_trains_and_is_scored_on_the_files(written, override, tmp_path):
    experiment = load_detector(override, written)
    numbers = train.run(experiment, "train_and_eval", str(tmp_path / "run"))
    assert 0 <= numbers["mask_ap"] <= 1
    for name in ("class_loss", "box_loss", "mask_loss"):
        assert np.isfinite(numbers[name])
    assert not any(name.startswith("rpn_") for name in numbers)
    rows = (tmp_path / "run" / "train.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["positive_rois"] >= 1  # the objects' own boxes at least


def test_faster_rcnn_is_scored_without_masks(written, override, tmp_path):
    fields = {"task.model.system": "faster_rcnn", "trainer.best_checkpoint_eval_metric": "box_ap"}
    experiment = load_detector(override, written, **fields)
    numbers = train.run(experiment, "train_and_eval", str(tmp_path / "run"))
    assert 0 <= numbers["box_ap"] <= 1
    assert not any(name.startswith("mask") for name in numbers)


def test_folders_that_were_confused_are_refused_before_training(written, override, tmp_path):
    for split, other, message in (
        ("train", "validation", "holds the proposals of 4 images, but there are 6 records"),
        # Its images have the ids of six of training.
        ("validation", "train", "image '1' of .* is not the image of this id"),
    ):
        folders = {f"task.{split}_data.proposals": f"{written}/{other}"}
        experiment = load_detector(override, written, **folders)
        with pytest.raises(ValueError, match=message):
            train.run(experiment, "train_and_eval", str(tmp_path / "run"))
    assert not (tmp_path / "run" / "train.jsonl").exists()


def test_the_command_keeps_what_is_there_if_it_is_the_same(rpn, written, override, tmp_path):
    folder = tmp_path / "proposals"
    shutil.copytree(written / "train", folder / "train")
    before = (folder / "train" / "meta.json").stat().st_mtime_ns
    fields = json.dumps(json.loads(override) | RPN)

    def command(*flags):
        return script(
            "-m mrcnn_tf.write_proposals",
            "--experiment=maskrcnn_shapes",
            f"--checkpoint_path={rpn[0]}",
            f"--output_dir={folder}",
            f"--params_override={fields}",
            *flags,
        )

    said = command()
    assert f"{folder}/train: already there" in said
    assert f"{folder}/validation: 4 images with " in said
    assert "proposals each, from " in said
    assert f"task.validation_data.proposals={folder}/validation" in said
    assert (folder / "train" / "meta.json").stat().st_mtime_ns == before
    for name in ("boxes.npy", "scores.npy"):
        again, first = (np.load(path / "validation" / name) for path in (folder, written))
        np.testing.assert_allclose(again, first, atol=70)  # a thousandth of the image


def test_folders_of_other_weights_are_refused_or_replaced(rpn, written, override, tmp_path):
    folder = tmp_path / "proposals"
    shutil.copytree(written, folder)
    experiment = load(override, **RPN)
    earlier = str(rpn[0] / "ckpt-2")
    with pytest.raises(ValueError, match="other values of weights_sha256 .*Give --overwrite"):
        writing.run(experiment, earlier, str(folder))
    writing.run(experiment, earlier, str(folder), overwrite=True)
    meta = ProposalReader(str(folder / "train")).meta
    assert meta["made_from"]["checkpoint"] == earlier
    assert meta["made_from"] != ProposalReader(str(written / "train")).meta["made_from"]


def test_a_network_without_rpn_writes_no_proposals(written, override, tmp_path):
    with pytest.raises(ValueError, match="this network has no RPN"):
        writing.run(load_detector(override, written), "nowhere", str(tmp_path))


def test_all_of_it_compiled(rpn, written, override, tmp_path):
    compiled = {"runtime.enable_xla": True, "trainer.train_steps": 2}
    writing.run(load(override, **RPN, **compiled), str(rpn[0]), str(tmp_path))
    want, got = (
        ProposalReader(str(folder / "validation")).meta["num_boxes"]
        for folder in (written, tmp_path)
    )
    assert got == pytest.approx(want, rel=0.05)
    experiment = load_detector(override, tmp_path, **compiled)
    numbers = train.run(experiment, "train_and_eval", str(tmp_path / "run"))
    assert np.isfinite(numbers["validation_loss"])
    assert 0 <= numbers["mask_ap"] <= 1
