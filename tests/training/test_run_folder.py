"""What a run's folder says of itself, and what may go on in it; no training."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.data.record_index import RecordIndex
from mrcnn_tf.experiment import loading
from mrcnn_tf.reporting import history
from mrcnn_tf.training.run_folder import RunFolder, append_row, drop_rows_beyond, rows

LABEL_MAP = LabelMap((1, 2), ("apple", "fig"))


def experiment_of(override="", name="maskrcnn_shapes"):
    return loading.load(name, params_override=override)


def checkpoint(folder, step, images_per_step=None, name="ckpt"):
    """A checkpoint that knows where its run stood and nothing else."""
    items = {"global_step": tf.Variable(step, dtype=tf.int64)}
    if images_per_step:
        items["images_per_step"] = tf.Variable(images_per_step, dtype=tf.int64)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(**items), str(folder), max_to_keep=5, checkpoint_name=name
    )
    return manager.save(checkpoint_number=step)


@pytest.mark.parametrize(
    ("step", "before", "now", "want"),
    [
        (1000, 16, 16, 1000),
        (1000, 16, 8, 2000),
        (1000, 16, 6, 2667),  # 16,000 / 6 = 2,666.7
        (1000, 2, 16, 125),
        (1, 2, 16, 1),  # something was trained: not the beginning
    ],
)
def test_the_position_is_kept_in_images(tmp_path, step, before, now, want):
    path = checkpoint(tmp_path, step, before)
    assert RunFolder(str(tmp_path)).standing(now) == (path, want, step * before)


def test_a_checkpoint_of_before_counts_in_the_batch_of_its_experiment(tmp_path):
    checkpoint(tmp_path, 10)
    folder = RunFolder(str(tmp_path))
    folder.write(experiment_of("trainer.reference_batch_size=8"), LABEL_MAP)
    assert folder.standing(4).step == 20


def test_nothing_to_go_on_from(tmp_path):
    assert RunFolder(str(tmp_path / "none")).standing(4) is None
    RunFolder(str(tmp_path)).write(experiment_of(), LABEL_MAP)
    assert RunFolder(str(tmp_path)).standing(4) is None


def test_weights_alone_are_no_run(tmp_path):
    tf.train.Checkpoint(model=tf.train.Checkpoint(v=tf.Variable(1.0))).save(f"{tmp_path}/ckpt")
    with pytest.raises(ValueError, match="weights alone.*set task.init_checkpoint to this"):
        RunFolder(str(tmp_path)).standing(4)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.train_steps=9000", "trainer.train_steps: 2600 -> 9000"),
        ("runtime.enable_xla=true", "runtime.enable_xla: False -> True"),
        (
            "task.validation_data.short_edges=[64]",
            "task.validation_data.short_edges: [128] -> [64]",
        ),
        ("task.model.detection.nms_iou=0.3", "task.model.detection.nms_iou: 0.5 -> 0.3"),
        ("task.init_checkpoint=x", "task.init_checkpoint:  -> x"),
        ("task.tta.short_edges=[96]", "task.tta.short_edges: [] -> [96]"),
        (
            "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=0.001",
            "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate: 0.0015 -> 0.001",
        ),
    ],
)
def test_harmless_differences_are_said(tmp_path, override, line):
    folder = RunFolder(str(tmp_path))
    folder.write(experiment_of(), LABEL_MAP)
    assert folder.check(experiment_of(override), LABEL_MAP) == [line]
    assert folder.check(experiment_of(), LABEL_MAP) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("task.model.backbone.depth=34", "task.model.backbone.depth: 18 -> 34"),
        ("task.model.backbone.freeze_at=0,task.model.fpn.channels=32", "fpn.channels: 64 -> 32"),
        ("task.model.pixels.std=[57, 57, 57]", r"pixels.std: \[1.0, 1.0, 1.0\] -> \[57.0"),
        ("task.train_data.short_edges=[96]", r"train_data.short_edges: \[128\] -> \[96\]"),
        ("trainer.optimizer_config.optimizer.type=sgd", "optimizer.type: adam -> sgd"),
        ("trainer.optimizer_config.optimizer.adam.beta_1=0.8", "adam.beta_1: 0.9 -> 0.8"),
    ],
)
def test_another_training_is_refused(tmp_path, override, line):
    folder = RunFolder(str(tmp_path))
    folder.write(experiment_of(), LABEL_MAP)
    with pytest.raises(ValueError, match=line):
        folder.check(experiment_of(override), LABEL_MAP)


def test_other_classes_are_refused_other_ids_are_not(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write(experiment_of(), LABEL_MAP)
    for names in (("fig", "apple"), ("apple", "date"), ("apple",)):
        other = LabelMap(tuple(range(1, len(names) + 1)), names)
        with pytest.raises(ValueError, match=r"classes: \['apple', 'fig'\] -> \["):
            folder.check(experiment_of(), other)
    assert folder.check(experiment_of(), LabelMap((7, 3), LABEL_MAP.names)) == []


def test_other_keypoints_are_refused_where_the_network_has_them(tmp_path):
    """As many, in another order: each of the network's maps would stand for another one."""
    folder = RunFolder(str(tmp_path))
    tip, tail = (
        LabelMap((1,), ("arrow",), KeypointSet(names, classes=(1,)))
        for names in (("tip", "tail"), ("tail", "tip"))
    )
    override = "task.model.keypoint_head.num_keypoints=2"
    folder.write(experiment_of(override), tip)
    assert folder.check(experiment_of(override), tip) == []
    with pytest.raises(ValueError, match=r"keypoints: \['tip', 'tail'\] -> \['tail', 'tip'\]"):
        folder.check(experiment_of(override), tail)
    other = RunFolder(str(tmp_path / "without"))
    other.write(experiment_of(), tip)
    assert other.check(experiment_of(), tail) == []


def records_of(*lengths):
    """Records of so many bytes each, of images that are all alike."""
    count = len(lengths)
    return RecordIndex(
        ["train"],
        np.zeros(count, np.int32),
        np.zeros(count, np.int64),
        np.array(lengths, np.int64),
        np.full([count, 2], 64, np.int32),
    )


def test_other_records_are_said(tmp_path):
    """More of them, and as many in another order; what cannot be known is no obstacle."""
    folder, path = RunFolder(str(tmp_path)), tmp_path / "train_records.json"
    assert folder.check_records(records_of(10, 20)) == []  # of an earlier release
    folder.write_records(records_of(10, 20))
    assert json.loads(path.read_text())["records"] == 2
    assert folder.check_records(records_of(10, 20)) == []
    (line,) = folder.check_records(records_of(10, 20, 30))
    assert line.startswith("records of task.train_data: 2 -> 3. What comes next is what this set")
    (line,) = folder.check_records(records_of(20, 10))
    assert line.startswith("records of task.train_data: as many (2), but others, or in another")
    for content in ("", "[2]", '{"records": "few", "digest": ""}', "null"):
        path.write_text(content)
        (line,) = folder.check_records(records_of(10, 20))
        assert line.startswith("train_records.json cannot be read")


@pytest.mark.parametrize("is_begun", [False, True])
@pytest.mark.parametrize("group", ["", "trainer", "runtime"])
def test_a_params_yaml_that_was_emptied_or_cut_is_refused(tmp_path, group, is_begun):
    """Cut right behind a group's name, which leaves YAML; with and without a checkpoint."""
    folder, path = RunFolder(str(tmp_path)), tmp_path / "params.yaml"
    folder.write(experiment_of(), LABEL_MAP)
    text = path.read_text()
    end = f"\n{group}:" if group else ""
    assert end in text
    path.write_text(text[: text.index(end) + len(end)])
    if is_begun:
        checkpoint(tmp_path, 2, 2)
        with pytest.raises(ValueError, match=f"^{path}: there are no fields of .* was emptied or"):
            folder.standing(2)
    with pytest.raises(ValueError, match=f"^{path}: there are no fields of .* was emptied or cut"):
        folder.check(experiment_of(), LABEL_MAP)
    path.unlink()
    (line,) = folder.check(experiment_of("trainer.train_steps=9"), LABEL_MAP)
    assert line.startswith("params.yaml is gone: only the weights tell")


def test_a_file_that_says_the_same_is_left_alone(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write(experiment_of(), LABEL_MAP)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    folder.write(experiment_of(), LABEL_MAP)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_an_evaluation_is_found_by_the_images_seen(tmp_path):
    path = str(tmp_path / "metrics.jsonl")
    folder = RunFolder(str(tmp_path))
    assert folder.evaluation_at(8) is None
    append_row(path, {"step": 2, "images": 4, "box_ap": 0.1})
    append_row(path, {"step": 2, "images": 8, "box_ap": 0.2})
    append_row(path, {"step": 9, "images": 18, "box_ap": 0.9, "checkpoint": "elsewhere/ckpt-9"})
    with open(path, "a") as file:
        file.write('{"step": 3, "ima')  # killed while it wrote
    assert folder.evaluation_at(8)["box_ap"] == 0.2
    assert folder.evaluation_at(18) is None


def test_evaluations_up_to_where_the_run_stands(tmp_path):
    """In their order, one for each place, what other tools wrote and what came later left out."""
    path = str(tmp_path / "metrics.jsonl")
    folder = RunFolder(str(tmp_path))
    assert folder.evaluations(8) == []
    append_row(path, {"step": 2, "images": 4, "precision": "float32", "box_ap": 0.1})
    append_row(path, {"step": 4, "images": 8, "box_ap": 0.2})
    append_row(path, {"step": 6, "images": 12, "box_ap": 0.3})
    append_row(path, {"step": 4, "images": 8, "checkpoint": "elsewhere/ckpt-4", "box_ap": 0.9})
    append_row(path, {"step": 2, "images": 4, "box_ap": 0.15})  # --mode=eval, maybe of other images
    want = [{"step": 2, "images": 4, "box_ap": 0.1}, {"step": 4, "images": 8, "box_ap": 0.2}]
    assert folder.evaluations(8) == folder.evaluations(11) == want
    assert [row["images"] for row in folder.evaluations(12)] == [4, 8, 12]
    append_row(path, {"step": 3, "box_ap": 0.15})  # by what does not say where
    newest = checkpoint(tmp_path, 6, 2)
    read = history.read(str(tmp_path), newest, str(tmp_path / "best"))
    assert read == history.History([], folder.evaluations(12), step=6, best_step=None)
    best = checkpoint(tmp_path / "best", 4, 2, name="best_ckpt")
    read = history.read(str(tmp_path), best, str(tmp_path / "best"))
    assert (read.step, read.best_step) == (4, 4)


@pytest.mark.parametrize("folder", ["{}", "ram://cut off"])
def test_going_on_drops_what_was_cut_off_and_what_comes_again(folder, tmp_path):
    folder = folder.format(tmp_path)
    for name in ("metrics.jsonl", "train.jsonl"):
        path = f"{folder}/{name}"
        append_row(path, {"step": 2, "images": 4})
        append_row(path, {"step": 9, "images": 18, "checkpoint": "elsewhere/ckpt-9"})
        append_row(path, {"step": 4, "images": 8})
        append_row(path, {"step": 6, "images": 12})
        with tf.io.gfile.GFile(path, "a") as file:
            file.write('{"step": 8, "ima')  # killed while it wrote
        drop_rows_beyond(path, 8)
        before = tf.io.gfile.stat(path).mtime_nsec
        drop_rows_beyond(path, 8)
        assert tf.io.gfile.stat(path).mtime_nsec == before  # nothing to do, so nothing is written
        append_row(path, {"step": 6, "images": 12})
        assert [row["step"] for row in rows(path)] == [2, 9, 4, 6]
        with tf.io.gfile.GFile(path) as file:
            assert all(json.loads(line) for line in file.read().splitlines())
    RunFolder(folder).begin(0, is_evaluating=False)  # killed before the first checkpoint
    assert [row["step"] for row in rows(f"{folder}/train.jsonl")] == [9]
    # The other file is that of a process which scores beside this one, and may be writing.
    assert [row["step"] for row in rows(f"{folder}/metrics.jsonl")] == [2, 9, 4, 6]
    RunFolder(folder).begin(0, is_evaluating=True)
    assert [row["step"] for row in rows(f"{folder}/metrics.jsonl")] == [9]


@pytest.mark.parametrize("folder", ["{}", "ram://glued"])
def test_a_row_is_not_glued_to_half_a_line(folder, tmp_path):
    """As --mode=eval would append it, which drops no rows."""
    path = folder.format(tmp_path) + "/metrics.jsonl"
    append_row(path, {"step": 2})
    with tf.io.gfile.GFile(path, "a") as file:
        file.write('{"step": 4, "ima')
    append_row(path, {"step": 6})
    append_row(path, {"step": 8})
    assert [row["step"] for row in rows(path)] == [2, 6, 8]


def test_a_row_is_whole_although_its_line_has_no_end(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"step": 2, "images": 4}')
    drop_rows_beyond(str(tmp_path / "train.jsonl"), 4)
    assert (tmp_path / "train.jsonl").read_text() == '{"step": 2, "images": 4}\n'


def damage(path):
    """Flip one bit in the middle of a checkpoint's numbers."""
    file = path.with_name(path.name + ".data-00000-of-00001")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_where_no_checkpoint_is_whole_nothing_begins_anew(tmp_path):
    for step in (2, 4):
        checkpoint(tmp_path, step, 2)
    damage(tmp_path / "ckpt-4")
    assert RunFolder(str(tmp_path)).standing(2) == (str(tmp_path / "ckpt-2"), 2, 4)
    damage(tmp_path / "ckpt-2")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="ckpt-4 is damaged") as raised:
        RunFolder(str(tmp_path)).standing(2)
    assert re.fullmatch(
        rf"{tmp_path}/ckpt-4 is damaged \(.*[Cc]hecksum.*\): taking the one before, "
        rf"{tmp_path}/ckpt-2\n{tmp_path}/ckpt-2 is damaged \(.*[Cc]hecksum.*\): and there is none "
        r"before it\nNothing was changed. To begin anew, take another --model_dir",
        str(raised.value),
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_in_memory(tmp_path):
    folder = RunFolder("ram://folder/of a run")
    folder.write(experiment_of(), LABEL_MAP)
    append_row("ram://folder/of a run/metrics.jsonl", {"images": 4, "step": 2})
    append_row("ram://folder/of a run/metrics.jsonl", {"images": 6, "step": 3})
    assert folder.evaluation_at(6) == {"images": 6, "step": 3}
    assert folder.check(experiment_of("trainer.train_steps=9"), LABEL_MAP)
    assert json.loads(tf.io.gfile.GFile(f"{folder.path}/label_map.json").read())


def test_float32_by_name_is_what_nothing_said_is(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write(experiment_of("runtime.mixed_precision_dtype=float32"), LABEL_MAP)
    assert folder.check(experiment_of(), LABEL_MAP) == []
    changed = folder.check(experiment_of("runtime.mixed_precision_dtype=bfloat16"), LABEL_MAP)
    assert changed == ["runtime.mixed_precision_dtype: float32 -> bfloat16"]
