"""Training and evaluation read a TFDS data set as they read records: the same bits."""

import json
import pathlib
import shutil

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data_prep import conversion, shards
from data_prep.tfds.coco_folder import coco_folder_dataset_builder as coco_folder
from mrcnn_tf.data import record_files
from mrcnn_tf.experiment import inputs, label_maps, loading, sources
from mrcnn_tf.training import evaluators
from tests.data_prep.in_process import InProcess

DUMMY = pathlib.Path(coco_folder.__file__).parent / "dummy_data"

FIELDS = {
    "task.train_data.global_batch_size": 2,
    "task.validation_data.global_batch_size": 2,
    "task.train_data.short_edges": [24, 32, 48],
    "task.train_data.long_edge": 64,
    "task.train_data.flip_probability": 0.5,
    "task.train_data.color_jitter.brightness": 0.3,
    "task.train_data.shuffle_buffer_size": 2,
    "task.validation_data.short_edges": [32],
    "task.validation_data.long_edge": 64,
}
SPLITS = {"train": "train2017", "validation": "val2017"}


@pytest.fixture
def both(tmp_path, convert_dummy):
    """The experiment on records, and on the TFDS data set of the same folder."""
    builder = coco_folder.Builder(data_dir=tmp_path / "tfds")
    options = tfds.download.DownloadConfig(manual_dir=DUMMY, num_shards=2)
    builder.download_and_prepare(download_config=options)
    records, of_tfds = dict(FIELDS), dict(FIELDS)
    for split, name in SPLITS.items():
        records[f"task.{split}_data.input_path"] = convert_dummy(name, 2)
        of_tfds[f"task.{split}_data.tfds_name"] = "coco_folder/coco"
        of_tfds[f"task.{split}_data.tfds_split"] = split
        of_tfds[f"task.{split}_data.tfds_data_dir"] = str(tmp_path / "tfds")
    return [
        loading.load("maskrcnn_shapes", params_override=json.dumps(fields))
        for fields in (records, of_tfds)
    ]


def batches(experiment, data, count, **options):
    task = experiment.task
    data = getattr(task, data)
    label_map = label_maps.of_records(task, data, label_maps.of_experiment(task))
    return list(inputs.build(task, data, label_map, **options).take(count))


SECOND_OF_TWO = tf.distribute.InputContext(2, 1, num_replicas_in_sync=2)


@pytest.mark.parametrize(
    ("data", "count", "options"),
    [
        ("train_data", 6, {}),
        ("validation_data", -1, {}),
        pytest.param("train_data", 3, {"first_step": 2}, marks=pytest.mark.slow),
        pytest.param("train_data", 4, {"input_context": SECOND_OF_TWO}, marks=pytest.mark.slow),
    ],
)
def test_batches_are_the_same_to_the_last_bit(both, data, count, options):
    ours, theirs = (batches(experiment, data, count, **options) for experiment in both)
    assert len(ours) == len(theirs) > 0
    num_masks = 0
    for batch, same in zip(ours, theirs, strict=True):
        assert batch.keys() == same.keys()
        for key, value in batch.items():
            assert value.dtype == same[key].dtype
            assert value.numpy().tobytes() == same[key].numpy().tobytes(), key
            assert value.shape == same[key].shape
        num_masks += int(tf.reduce_sum(tf.cast(batch["gt_masks_valid"], tf.int32)))
    assert num_masks > 0


def test_classes_and_ground_truth_are_the_same(both):
    maps = [label_maps.of_experiment(experiment.task) for experiment in both]
    assert maps[0] == maps[1]
    assert maps[0].names == ("square hole", "disc", "Dreieck")
    truths = [evaluators.build(experiment.task, maps[0])[1] for experiment in both]
    assert truths[0] == truths[1]
    assert [row["area"] for row in truths[1]["annotations"]] == [70.3, 33.1, 12.0]


def test_what_looks_at_files_reads_them_too(both):
    files = [record_files.find(sources.patterns(experiment.task.train_data)) for experiment in both]
    assert len(files[0]) == len(files[1]) == 2
    assert [record_files.count_records(f) for f in files] == [3, 3]
    first, second = (list(record_files.sample_images(f)) for f in files)
    assert first == second
    assert {image.source_id: image.size_hw for image in first} == {
        b"1": (20, 24),
        b"5": (16, 16),
        b"12": (24, 18),
    }


@pytest.mark.slow
def test_keypoints_are_the_same_to_the_last_bit(tmp_path, monkeypatch):
    """Of discs and triangles; square holes have none."""
    monkeypatch.setattr(shards, "WorkerPool", InProcess)
    folder = tmp_path / "folder"
    shutil.copytree(DUMMY, folder)
    for name in SPLITS.values():
        path = folder / "annotations" / f"instances_{name}.json"
        content = json.loads(path.read_text())
        for category in content["categories"]:
            if category["id"] != 3:
                category["keypoints"] = ["left_end", "right_end"]
        for k, row in enumerate(content["annotations"]):
            if row["category_id"] != 3:
                row["keypoints"] = [3.3 + k, 1.7, 2, 11.1, 2 + k / 3, k % 2]
        path.write_text(json.dumps(content))
        prefix = str(tmp_path / "records" / name)
        conversion.convert(
            conversion.Job(str(folder / name), str(path), prefix, 2, "rle", 1, False)
        )
    options = tfds.download.DownloadConfig(manual_dir=folder, num_shards=2)
    coco_folder.Builder(data_dir=tmp_path / "tfds").download_and_prepare(download_config=options)
    fields = FIELDS | {"task.model.keypoint_head.num_keypoints": 2}
    records, of_tfds = dict(fields), dict(fields)
    for split, name in SPLITS.items():
        records[f"task.{split}_data.input_path"] = f"{tmp_path}/records/{name}-*.tfrecord"
        of_tfds[f"task.{split}_data.tfds_name"] = "coco_folder/coco"
        of_tfds[f"task.{split}_data.tfds_split"] = split
        of_tfds[f"task.{split}_data.tfds_data_dir"] = str(tmp_path / "tfds")
    both = [
        loading.load("maskrcnn_shapes", params_override=json.dumps(given))
        for given in (records, of_tfds)
    ]
    for data, count, num_valid in (("train_data", 6, 5), ("validation_data", -1, 2)):
        seen = 0
        for batch, same in zip(*(batches(e, data, count) for e in both), strict=True):
            assert batch.keys() == same.keys()
            for key, value in batch.items():
                assert value.numpy().tobytes() == same[key].numpy().tobytes(), key
            seen += int(tf.reduce_sum(tf.cast(batch["gt_keypoints_valid"], tf.int32)))
        assert seen >= num_valid
    maps = [label_maps.of_experiment(experiment.task) for experiment in both]
    assert maps[0] == maps[1]
    truths = [evaluators.build(experiment.task, maps[0])[1] for experiment in both]
    assert truths[0] == truths[1]
    found = {row["id"]: row["keypoints"] for row in truths[1]["annotations"]}
    assert found[202] == [0] * 6
    assert found[203] == pytest.approx([5.3, 1.7, 2, 0, 0, 0])
