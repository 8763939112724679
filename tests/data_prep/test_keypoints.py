"""Keypoints through the commands: drawn, annotated, converted, read back for scoring."""

import json

import numpy as np
import pytest
import tensorflow as tf

from data_prep import conversion, create_coco_tfrecord, create_shapes_coco, shape_scene, shards
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import ground_truth
from mrcnn_tf.experiment import loading
from mrcnn_tf.training import preflight, task
from tests.data_prep.in_process import InProcess

_NAMES = list(shape_scene.CORNERS_UV)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrows")
    assert create_shapes_coco.create_split(folder, "train", 12, (64, 96), 1, keypoints=True)
    return folder


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(shards, "WorkerPool", InProcess)


def _convert(folder, output, name="train", annotations=None, **changes):
    """What the command does once its flags are read."""
    job = conversion.Job(
        image_dir=str(folder / "train"),
        annotations_file=str(annotations or folder / "annotations/instances_train.json"),
        prefix=str(output / name),
        num_shards=2,
        mask_format="rle",
        num_processes=1,
        skip_problems=False,
    )
    create_coco_tfrecord.run(job._replace(**changes))


def test_corners_lie_on_the_arrow():
    """Each corner is where the shape's own frame has it: inside it a little, outside a little."""
    for u, v in shape_scene.CORNERS_UV.values():
        inner, outer = np.array([u, v]) * 0.97, np.array([u, v]) * 1.03
        assert shape_scene._inside_shape("arrow", *inner, hole=0.5)
        assert not shape_scene._inside_shape("arrow", *outer, hole=0.5)
    rng = np.random.default_rng(3)
    for _ in range(20):
        coverage, corners = shape_scene._shape(rng, "arrow", 40.0)
        ys, xs = np.nonzero(coverage > 0.05)
        for y, x in corners:
            assert np.hypot(ys + 0.5 - y, xs + 0.5 - x).min() < 1.5
        # Twice the signed area of tip, right wing, left wing: right is right as it flies.
        tip, left, right = corners[:3]
        assert np.cross([*(right - tip), 0], [*(left - tip), 0])[2] < 0
        extent = [corners[:, 0].min(), corners[:, 0].max()]
        np.testing.assert_allclose([ys.min(), ys.max() + 1], extent, atol=1.5)


def test_without_the_flag_the_data_set_is_as_it_was(tmp_path):
    with_arrows = shape_scene.draw_scene(np.random.default_rng(5), 64, 64)
    again = shape_scene.draw_scene(np.random.default_rng(5), 64, 64, shape_scene.CLASS_NAMES)
    np.testing.assert_array_equal(with_arrows[0], again[0])
    create_shapes_coco.create_split(tmp_path, "val", 2, (40, 40), 1)
    content = json.loads((tmp_path / "annotations/instances_val.json").read_text())
    assert all("keypoints" not in row for row in content["categories"] + content["annotations"])


def test_annotations(folder):
    content = json.loads((folder / "annotations/instances_train.json").read_text())
    arrow = content["categories"][-1]
    assert (arrow["id"], arrow["name"], arrow["keypoints"]) == (11, "arrow", _NAMES)
    assert arrow["skeleton"] == [[1, 2], [2, 4], [4, 5], [5, 3], [3, 1]]
    arrows = [a for a in content["annotations"] if a["category_id"] == 11]
    assert len(arrows) > 3
    assert all("keypoints" in a for a in arrows)
    assert not any("keypoints" in a for a in content["annotations"] if a["category_id"] != 11)
    for a in arrows:
        points = np.reshape(a["keypoints"], [5, 3])
        assert a["num_keypoints"] == (points[:, 2] > 0).sum()
        x, y, width, height = a["bbox"]
        for px, py, v in points:
            if v == 2:
                assert x - 3 <= px < x + width + 3
                assert y - 3 <= py < y + height + 3


def test_records_hold_them_as_the_object_detection_api_names_them(folder, tmp_path):
    _convert(folder, tmp_path)
    annotations = folder / "annotations/instances_train.json"
    label_map = LabelMap.from_json((tmp_path / "label_map.json").read_text())
    assert label_map.keypoints.names == tuple(_NAMES)
    assert label_map.keypoints.classes == (6,)
    of_file = ground_truth.from_annotation_file(str(annotations))
    of_records = ground_truth.from_records(str(tmp_path / "train-*.tfrecord"), label_map)
    assert of_records["categories"] == of_file["categories"]
    assert of_records["categories"][-1]["keypoints"] == _NAMES

    def by_id(truth):
        return {a["id"]: (a["keypoints"], a["num_keypoints"]) for a in truth["annotations"]}

    assert by_id(of_records) == by_id(of_file)  # whole pixels come back whole
    content = json.loads(annotations.read_text())
    objects = {a["id"]: a for a in content["annotations"]}
    sizes = {i["id"]: i for i in content["images"]}
    seen = 0
    for path in sorted(tmp_path.glob("train-*.tfrecord")):
        for text in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(text).features.feature
            ids = feature[schema.OBJECT_ID].int64_list.value
            names = feature["image/object/keypoint/text"].bytes_list.value
            assert list(names) == [n.encode() for n in _NAMES] * len(ids)
            for k, i in enumerate(ids):
                points = np.reshape(objects[i].get("keypoints", [0] * 15), [5, 3])
                image = sizes[objects[i]["image_id"]]
                for key, values in (
                    ("x", points[:, 0] / image["width"]),
                    ("y", points[:, 1] / image["height"]),
                ):
                    column = feature[f"image/object/keypoint/{key}"].float_list.value
                    np.testing.assert_allclose(column[5 * k : 5 * k + 5], values, rtol=1e-6)
                visibility = feature["image/object/keypoint/visibility"].int64_list.value
                assert list(visibility[5 * k : 5 * k + 5]) == points[:, 2].tolist()
                num = feature["image/object/keypoint/num"].int64_list.value
                assert num[k] == objects[i].get("num_keypoints", 0)
                seen += num[k]
    assert seen > 15


def test_images_without_keypoints_can_be_left_out(folder, tmp_path):
    content = json.loads((folder / "annotations/instances_train.json").read_text())
    with_some = {a["image_id"] for a in content["annotations"] if a.get("num_keypoints")}
    assert 0 < len(with_some) < 12
    _convert(folder, tmp_path, min_keypoints=1)
    label_map = LabelMap.from_json((tmp_path / "label_map.json").read_text())
    truth = ground_truth.from_records(str(tmp_path / "train-*.tfrecord"), label_map)
    assert {image["id"] for image in truth["images"]} == with_some
    assert "left out (--min_keypoints)" in (tmp_path / "train.report.txt").read_text()


def test_keypoints_that_the_folder_lacks_are_refused(folder, tmp_path):
    path = folder / "annotations/instances_train.json"
    plain = json.loads(path.read_text())
    for row in plain["categories"]:
        row.pop("keypoints", None)
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    _convert(folder, tmp_path, annotations=tmp_path / "plain.json")
    with pytest.raises(SystemExit, match="has the keypoints: none; the annotations: tip, left_w"):
        _convert(folder, tmp_path, "val")
    with pytest.raises(SystemExit, match=r"--min_keypoints=1: no category of .*plain\.json has"):
        _convert(folder, tmp_path, "new", tmp_path / "plain.json", min_keypoints=1)


def test_more_keypoints_than_any_image_has_are_refused(folder, tmp_path):
    with pytest.raises(SystemExit, match=r"--min_keypoints=99: no image of .*train\.json has so"):
        _convert(folder, tmp_path, min_keypoints=99)
    assert not list(tmp_path.iterdir())


def test_parts_make_the_records_of_one_conversion(folder, tmp_path):
    _convert(folder, tmp_path / "whole", min_keypoints=1)
    for part in ((1, 2), (0, 1)):
        _convert(folder, tmp_path / "parts", min_keypoints=1, part=part)
    whole, parts = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("whole", "parts")
    )
    assert whole == parts


def test_records_without_an_annotated_keypoint_are_refused_before_the_first_step(folder, tmp_path):
    """The categories name some, so the label map has them, and no object."""
    path = folder / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    for row in content["annotations"]:
        row.pop("keypoints", None)
    (tmp_path / "none.json").write_text(json.dumps(content))
    _convert(folder, tmp_path / "none", annotations=tmp_path / "none.json")
    _convert(folder, tmp_path / "some")

    def load(name):
        pattern = f"{tmp_path / name}/train-*.tfrecord"
        fields = {f"task.{data}.input_path": pattern for data in ("train_data", "validation_data")}
        experiment = loading.load("keypointrcnn_shapes", params_override=json.dumps(fields))
        return task.MaskRCNNTask(experiment.task), experiment.trainer

    of_task, trainer = load("some")
    preflight.check_training(of_task)
    preflight.check_validation(of_task, trainer)
    of_task, trainer = load("none")
    said = "has an annotated keypoint, and a Keypoint R-CNN needs"
    with pytest.raises(ValueError, match=said):
        preflight.check_training(of_task)
    with pytest.raises(ValueError, match=said):
        preflight.check_validation(of_task, trainer)
