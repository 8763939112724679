"""A federated data set (LVIS): from its annotations through the converter to batch and scorer."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep import conversion, shards
from mrcnn_tf.data import coco_json, decoder, schema
from mrcnn_tf.data.findings import RefusedError
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import ground_truth
from mrcnn_tf.experiment import fields, inputs
from mrcnn_tf.experiment.experiment import Task
from tests.data_prep.in_process import InProcess

_IDS, _NAMES = (3, 5, 40), ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(shards, "WorkerPool", InProcess)


def _labels(counts, letters, ids=_IDS):
    return LabelMap(ids, _NAMES, image_counts=counts, frequencies=tuple(letters))


def _content(**changes):
    """Three images, named by address as in LVIS: an ant and two bees, a bee, nothing."""

    def annotation(number, image_id, category_id):
        return {
            "id": number,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [2, 3, 10, 8],
            "area": 80,
            "segmentation": [[2, 3, 12, 3, 12, 11, 2, 11]],
        }

    lists = [([40], [5]), ([3, 40], []), ([], [])]
    images = [
        {
            "id": k + 1,
            "coco_url": f"http://images.cocodataset.org/train2017/{k + 1:012d}.jpg",
            "height": 20,
            "width": 30,
            "neg_category_ids": neg,
            "not_exhaustive_category_ids": not_exhaustive,
        }
        for k, (neg, not_exhaustive) in enumerate(lists)
    ]
    return {
        "images": images,
        "annotations": [
            *(annotation(1, 1, 3), annotation(2, 1, 5), annotation(3, 1, 5)),
            annotation(4, 2, 5),
        ],
        "categories": [{"id": i, "name": n} for i, n in zip(_IDS, _NAMES, strict=True)],
    } | changes


def _write(folder, content):
    (folder / "coco/train2017").mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        path = folder / "coco/train2017" / f"{image['id']:012d}.jpg"
        Image.fromarray(np.full([20, 30, 3], 7, np.uint8)).save(path)
    (folder / "lvis.json").write_text(json.dumps(content), "utf-8")


def _convert(folder, content, prefix="records/train"):
    _write(folder, content)
    job = conversion.Job(
        image_dir=str(folder / "coco"),
        annotations_file=str(folder / "lvis.json"),
        prefix=str(folder / prefix),
        num_shards=1,
        mask_format="rle",
        num_processes=1,
        skip_problems=False,
    )
    return conversion.convert(job)


def _label_map(folder):
    path = folder / "records" / schema.LABEL_MAP_FILE
    return LabelMap.from_json(path.read_bytes(), str(path))


def _decoded(folder, name="train"):
    label_map = _label_map(folder)
    records = tf.data.TFRecordDataset(tf.io.gfile.glob(f"{folder}/records/{name}-*.tfrecord"))
    return [
        decoder.decode(r, label_ids=label_map.ids, include_masks=True, include_lists=True)
        for r in records
    ]


def test_lists_and_counts_reach_batch_and_scorer(tmp_path):
    summary = _convert(tmp_path, _content())
    assert not summary.findings
    assert summary.counts["images"] == 3
    # The ant is in one image, the bees are in two, the cat is in none: all rare.
    label_map = _label_map(tmp_path)
    assert label_map == _labels((1, 2, 0), "rrr")
    neg = [example[schema.NEG_CLASSES].numpy().tolist() for example in _decoded(tmp_path)]
    assert neg == [[False, False, False, True], [False, True, False, True], [False] * 4]
    more = [e[schema.NOT_EXHAUSTIVE_CLASSES].numpy().tolist() for e in _decoded(tmp_path)]
    assert more == [[False, False, True, False], [False] * 4, [False] * 4]
    of_file = ground_truth.from_annotation_file(str(tmp_path / "lvis.json"))
    of_records = ground_truth.from_records(f"{tmp_path}/records/train-*.tfrecord", label_map)
    assert of_file["images"] == of_records["images"]
    assert of_file["categories"] == of_records["categories"]
    assert of_file["images"][1] == {
        "id": 2,
        "height": 20,
        "width": 30,
        "neg_category_ids": [3, 40],
        "not_exhaustive_category_ids": [],
    }
    assert of_file["categories"][0] == {"id": 3, "name": "ant", "frequency": "r"}


@pytest.mark.slow
@pytest.mark.parametrize("is_training", [False, True])
def test_batches_say_what_is_known_where_it_is_learnt(tmp_path, is_training):
    _convert(tmp_path, _content())
    task = Task()
    data = fields.Data(
        is_training=is_training,
        input_path=f"{tmp_path}/records/train-*.tfrecord",
        global_batch_size=2,
        short_edges=(32,),
        long_edge=64,
        mask_arena_pixels=4096,
    )
    assert schema.NEG_CLASSES not in inputs.build(task, data, _label_map(tmp_path)).element_spec
    task.model.federated.classes_per_image = 3
    dataset = inputs.build(task, data, _label_map(tmp_path))
    assert dataset.element_spec[schema.NEG_CLASSES].shape == (2, 4)
    known = {"1": ([3], [2]), "2": ([1, 3], []), "3": ([], []), "": ([], [])}
    seen = set()
    for batch in dataset.take(2).as_numpy_iterator():  # all images, and a blank one of evaluation
        for b, row in enumerate(batch[schema.SOURCE_ID]):
            source_id = row.tobytes().rstrip(b"\0").decode()
            found = (batch[schema.NEG_CLASSES][b], batch[schema.NOT_EXHAUSTIVE_CLASSES][b])
            assert tuple(np.flatnonzero(one).tolist() for one in found) == known[source_id]
            seen.add(source_id)
    assert seen == {"1", "2", "3"} | (set() if is_training else {""})
    task.model.federated.image_lists = False
    assert schema.NEG_CLASSES not in inputs.build(task, data, _label_map(tmp_path)).element_spec


def test_the_files_own_counts_and_letters_win(tmp_path):
    given = {"image_count": (11, 7, 200), "frequency": ("c", "r", "f")}
    content = _content()
    for key, values in given.items():
        for row, value in zip(content["categories"], values, strict=True):
            row[key] = value
    _write(tmp_path, content)
    label_map = coco_json.read_label_map(str(tmp_path / "lvis.json"))
    assert label_map == _labels((11, 7, 200), "crf")
    assert LabelMap.from_json(label_map.to_json()) == label_map
    renumbered = label_map.renumbered(LabelMap((9, 8, 7), ("cat", "ant", "bee")), "theirs")
    assert renumbered == _labels((11, 7, 200), "crf", ids=(8, 7, 9))
    # A number that is none: the images are counted; the letters that are there still count.
    content["categories"][1]["image_count"] = "many"
    _write(tmp_path, content)
    label_map = coco_json.read_label_map(str(tmp_path / "lvis.json"))
    assert label_map == _labels((1, 2, 0), "crf")
    content["categories"][2]["frequency"] = ["f"]  # so with letters
    _write(tmp_path, content)
    label_map = coco_json.read_label_map(str(tmp_path / "lvis.json"))
    assert label_map == _labels((1, 2, 0), "rrr")


def test_a_second_file_gets_the_folders_ids(tmp_path):
    _convert(tmp_path, _content())
    renumber = {3: 40, 5: 1, 40: 3}
    content = _content()
    for row in content["categories"]:
        row["id"] = renumber[row["id"]]
    for row in content["annotations"]:
        row["category_id"] = renumber[row["category_id"]]
    for row in content["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            row[key] = [renumber[i] for i in row[key]]
    _convert(tmp_path, content, "records/val")
    for ours, theirs in zip(_decoded(tmp_path), _decoded(tmp_path, "val"), strict=True):
        for key in (schema.NEG_CLASSES, schema.NOT_EXHAUSTIVE_CLASSES, schema.GT_CLASSES):
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_plain_coco_and_older_records_stay_as_they_were(tmp_path):
    content = _content()
    for row in content["images"]:
        del row["neg_category_ids"], row["not_exhaustive_category_ids"]
    _convert(tmp_path, content)
    assert _label_map(tmp_path) == LabelMap(_IDS, _NAMES)
    assert "image_count" not in (tmp_path / "records" / schema.LABEL_MAP_FILE).read_text()
    truth = ground_truth.from_records(f"{tmp_path}/records/train-*", _label_map(tmp_path))
    assert truth["images"][0] == {"id": 1, "height": 20, "width": 30}
    assert truth["categories"][0] == {"id": 3, "name": "ant"}
    assert not _decoded(tmp_path)[0][schema.NEG_CLASSES].numpy().any()
    (path,) = tf.io.gfile.glob(f"{tmp_path}/records/train-*.tfrecord")
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        columns = tf.train.Example.FromString(record).features.feature
        assert schema.NEG_CATEGORY_IDS not in columns


@pytest.mark.parametrize("wrong", ["3", {"3": 1}, None, [3, "x"], [2.5], [True], 3])
@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_a_list_that_is_none_is_refused(tmp_path, key, wrong):
    content = _content()
    content["images"][1][key] = wrong
    with pytest.raises(RefusedError) as refused:
        _convert(tmp_path, content)
    (finding,) = refused.value.findings
    assert (finding.kind, finding.image_id) == (f"malformed {key}", 2)
    assert "train2017/000000000002.jpg" in finding.where
    assert finding.value
    assert not (tmp_path / "records").exists()


def test_ids_that_cannot_be_are_taken_off_the_lists(tmp_path):
    content = _content()
    content["images"][0]["neg_category_ids"] = [40, 40.0, 77, 5]  # no category; is there
    del content["images"][1]["not_exhaustive_category_ids"]
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        del content["images"][2][key]
    summary = _convert(tmp_path, content)
    kinds = [(finding.kind, finding.value.split(" ")[0]) for finding in summary.findings]
    assert kinds == [
        ("unknown category in neg_category_ids", "[77]"),
        ("category in neg_category_ids is there", "[5]"),
    ]
    assert all(finding.image_id == 1 for finding in summary.findings)
    note = "images without lists of categories in a federated file, taken as empty"
    assert summary.notes[note] == 1
    first, second, third = _decoded(tmp_path)
    assert first[schema.NEG_CLASSES].numpy().tolist() == [False, False, False, True]
    assert second[schema.NEG_CLASSES].numpy().tolist() == [False, True, False, True]
    assert not third[schema.NEG_CLASSES].numpy().any()


def test_a_record_with_a_list_of_unknown_categories_is_named(tmp_path):
    _convert(tmp_path, _content())
    smaller = LabelMap(_IDS[:2], _NAMES[:2])
    with pytest.raises(ValueError, match=r"of image '1': neg_category_ids has 40, which is not"):
        ground_truth.from_records(f"{tmp_path}/records/train-*.tfrecord", smaller)
    (path,) = tf.io.gfile.glob(f"{tmp_path}/records/train-*.tfrecord")
    record = next(iter(tf.data.TFRecordDataset(path)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not know"):
        decoder.decode(record, label_ids=smaller.ids, include_masks=False, include_lists=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_count": 5}, "frequency 'None', expected one of r, c, f"),
        ({"frequency": "r"}, "image_count 'None', expected a number of images"),
        ({"image_count": -1, "frequency": "r"}, "image_count '-1'"),
        ({"image_count": True, "frequency": "r"}, "image_count 'True'"),
        ({"image_count": 5, "frequency": "x"}, "frequency 'x'"),
        ({"image_count": 5, "frequency": ["r"]}, r"frequency .\["),
    ],
)
def test_label_maps_with_half_of_the_numbers_are_refused(row, message):
    rows = [{"class": 1, "id": 1, "name": "ant"} | row]
    with pytest.raises(ValueError, match=message):
        LabelMap.from_json(json.dumps({"categories": rows}))
    rows.append({"class": 2, "id": 2, "name": "bee"})
    rows[0] |= {"image_count": 1, "frequency": "r"}
    with pytest.raises(ValueError, match=r"categories\[1\]: image_count 'None'"):
        LabelMap.from_json(json.dumps({"categories": rows}))
    rows[1] |= {key: rows[0].pop(key) for key in ("image_count", "frequency")}
    with pytest.raises(ValueError, match=r"categories\[1\]: image_count, which categories\[0\] do"):
        LabelMap.from_json(json.dumps({"categories": rows}))


def test_an_object_that_is_left_out_leaves_its_category_not_exhaustive(tmp_path):
    content = _content()
    content["annotations"][3]["bbox"] = [2, 3, 0, 8]  # the second image's bee
    content["annotations"][3]["segmentation"] = []
    odd = content["annotations"][3] | {"id": 5, "category_id": 3}  # and an ant, listed as absent
    content["annotations"].append(odd)
    _write(tmp_path, content)
    data = coco_json.read(str(tmp_path / "lvis.json"))
    assert [finding.image_id for finding in data.findings] == [2, 2]
    image = data.images[1]
    assert (image.neg_category_ids, image.not_exhaustive_category_ids) == ((40,), (3, 5))
    assert data.images[0].not_exhaustive_category_ids == (5,)
