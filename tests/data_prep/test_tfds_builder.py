"""The TFDS builder of COCO folders: its examples, against hand-made ones and the converter's."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from pycocotools.coco import COCO

from data_prep import tfds_build
from data_prep.tfds.coco_folder import coco_folder_dataset_builder as coco_folder
from mrcnn_tf.data import columns, record_files, schema

ROOT = pathlib.Path(__file__).resolve().parents[2]
DUMMY = pathlib.Path(coco_folder.__file__).parent / "dummy_data"


def build(data_dir, manual_dir=DUMMY, config=None, **options):
    builder = coco_folder.Builder(data_dir=data_dir, config=config)
    options = tfds.download.DownloadConfig(manual_dir=manual_dir, **options)
    builder.download_and_prepare(download_config=options)
    return builder


def records_of(builder, split):
    paths = [str(path) for path in builder.info.splits[split].filepaths]
    return list(tf.data.TFRecordDataset(paths).as_numpy_iterator())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tfds"), num_shards=2)


@pytest.fixture(scope="module")
def examples(built):
    """{image id: example} as TFDS's user gets it."""
    found = {}
    for split in built.info.splits:
        for example in built.as_dataset(split=split):
            found[example["image/id"].numpy().decode()] = example
    return found


@pytest.fixture(scope="module")
def full_masks():
    """The function that docs/tfds.md gives to users."""
    text = (ROOT / "docs" / "tfds.md").read_text()
    (code,) = re.findall(r"```python\n(import numpy as np.*?)```", text, flags=re.DOTALL)
    scope: dict = {}
    exec(code, scope)  # noqa: S102
    return scope["full_masks"]


def test_an_example_by_hand(built, examples):
    objects = examples["1"]["objects"]
    assert examples["1"]["image"].shape == (20, 24, 3)
    assert examples["1"]["image/filename"] == b"a.jpg"
    assert built.info.features["objects"]["label"].names == ["square hole", "disc", "Dreieck"]
    assert objects["label"].numpy().tolist() == [1, 2]
    assert objects["category_id"].numpy().tolist() == [7, 90]
    assert objects["id"].numpy().tolist() == [101, 102]
    assert objects["is_crowd"].numpy().tolist() == [False, True]
    # Not rounded to float32.
    assert objects["coco_bbox"].numpy()[0].tolist() == [2.1, 3.3, 9.2, 8.9]
    assert objects["area"].numpy().tolist() == [63.7, 105.0]
    np.testing.assert_array_equal(
        objects["bbox"].numpy()[0],
        np.array([3.3 / 20, 2.1 / 24, (3.3 + 8.9) / 20, (2.1 + 9.2) / 24], np.float32),
    )
    # The box of 104 ends at x 20 and y 25.5, in an image of 18 x 24.
    assert examples["12"]["objects"]["bbox"].numpy()[1, 2:].tolist() == [1.0, 1.0]
    assert examples["12"]["objects"]["coco_bbox"].numpy()[1].tolist() == [10.5, 14.5, 9.5, 11.0]


def test_an_image_without_objects(examples):
    objects = examples["5"]["objects"]
    assert examples["5"]["image/filename"] == b"sub/c.jpg"
    assert {
        key: value.shape[0] for key, value in objects.items() if key != "mask"
    } == dict.fromkeys(
        ("id", "bbox", "coco_bbox", "area", "label", "category_id", "is_crowd", "keypoints"), 0
    )
    assert objects["mask"]["crop"].shape == (0, 4)
    assert objects["mask"]["runs"].nrows() == 0


def test_images_are_the_files_own_bytes(built):
    skipped = built.as_dataset(
        split="train", decoders={"image": tfds.decode.SkipDecoding()}
    ).as_numpy_iterator()
    for example in skipped:
        path = DUMMY / "train2017" / example["image/filename"].decode()
        assert example["image"] == path.read_bytes()


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_masks_are_those_of_pycocotools(split, examples, full_masks):
    coco = COCO(str(DUMMY / "annotations" / f"instances_{split}.json"))
    num_seen = 0
    for image_id in coco.getImgIds():
        masks = full_masks(tfds.as_numpy(examples[str(image_id)]))
        annotations = coco.imgToAnns[image_id]
        assert len(masks) == len(annotations)
        for mask, annotation in zip(masks, annotations, strict=True):
            expected = np.zeros_like(mask)
            if annotation["segmentation"]:
                expected = coco.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(mask, expected)
            num_seen += mask.any()
    assert num_seen == {"train2017": 4, "val2017": 2}[split]


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_the_records_are_the_converters(num_shards, tmp_path, convert_dummy):
    """Every column that is read, of every record, in every file, is the same to the last bit."""
    builder = build(tmp_path / "tfds", num_shards=num_shards)
    for split, name in (("train", "train2017"), ("validation", "val2017")):
        pattern = convert_dummy(name, num_shards)
        ours = list(tf.data.TFRecordDataset(pattern).as_numpy_iterator())
        theirs = records_of(builder, split)
        shards = [len(list(tf.data.TFRecordDataset(path))) for path in pattern]
        assert builder.info.splits[split].shard_lengths == shards
        assert len(ours) == len(theirs) > 1
        for record, same in zip(ours, theirs, strict=True):
            record, same = columns.of_record(record), columns.of_record(same)
            read = set(record) - {
                *(schema.IMAGE_FORMAT, schema.IMAGE_KEY_SHA256),
                *(schema.CLASS_TEXT, schema.AREA),
            }
            assert read == {key for key in same}
            for key in read:
                assert record[key].SerializeToString() == same[key].SerializeToString(), key
    label_map = (tmp_path / "tfds/coco_folder/coco/1.1.0/label_map.json").read_text()
    assert label_map == (pathlib.Path(pattern[0]).parent / "label_map.json").read_text()


def test_it_is_read_without_the_builders_code(built):
    """By name, as `tfds.load` opens what it has no code for."""
    reader = tfds.core.read_only_builder.builder_from_files(
        "coco_folder/coco", data_dir=built.data_dir_root
    )
    assert type(reader) is not type(built)
    assert reader.info.features["objects"]["label"].names == ["square hole", "disc", "Dreieck"]
    assert {k: s.num_examples for k, s in reader.info.splits.items()} == {
        "train": 3,
        "validation": 2,
    }
    assert "run lengths" in reader.info.description


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    builder = build(tmp_path)
    (path,) = builder.info.splits["train"].filepaths
    assert record_files.find(str(path)) == [str(path)]
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(ValueError, match=r"has [\d,]+ bytes instead of"):
        record_files.find(str(path))


def config(splits, **fields):
    return coco_folder.CocoFolderConfig(name="mine", splits=splits, **fields)


TRAIN = ["train2017", "annotations/instances_train2017.json"]
VAL = ["val2017", "annotations/instances_val2017.json"]


def test_a_configuration_names_splits(tmp_path):
    builder = build(tmp_path, config=config({"a": TRAIN, "b-2": VAL}), max_examples_per_split=1)
    assert builder.data_path == tmp_path / "coco_folder" / "mine" / "1.1.0"
    assert {k: s.num_examples for k, s in builder.info.splits.items()} == {"a": 1, "b-2": 1}


def edited(tmp_path, edit, name="instances_val2017.json"):
    folder = tmp_path / "folder"
    shutil.copytree(DUMMY, folder)
    path = folder / "annotations" / name
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return folder


def test_categories_are_matched_by_name(tmp_path):
    """The validation file numbers them otherwise; the training file's numbers hold."""

    def renumber(content):
        new = {7: 1, 3: 2}
        for row in content["categories"]:
            row["id"] = new[row["id"]]
        for row in content["annotations"]:
            row["category_id"] = new[row["category_id"]]

    builder = build(tmp_path / "tfds", edited(tmp_path, renumber))
    found = {
        id_: (label, own)
        for example in tfds.as_numpy(builder.as_dataset(split="validation"))
        for id_, label, own in zip(
            *(example["objects"][key] for key in ("id", "label", "category_id")), strict=True
        )
    }
    assert found == {201: (1, 7), 202: (0, 3), 203: (1, 7)}
    report = (builder.data_path / "validation.report.txt").read_text()
    assert "matched by name" in report


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["categories"].append({"id": 5, "name": " x"}), r"' x'.*one a line"),
        (lambda c: c["annotations"][0].update(category_id=4), r"1 of 4 objects cannot be used.*4"),
        (lambda c: c["images"][0].update(file_name="gone.jpg"), r"1 of 3 images cannot be used"),
        (lambda c: c["images"][0].update(height=21), r"1 of 3 images cannot be used"),
    ],
)
def test_what_is_refused_leaves_nothing(edit, message, tmp_path):
    folder = edited(tmp_path, edit, "instances_train2017.json")
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "tfds", folder)
    assert not list((tmp_path / "tfds").rglob("*.tfrecord*"))


def test_what_cannot_be_used_is_left_out_on_demand(tmp_path):
    """One image is gone, one is broken."""

    def edit(content):
        content["images"][0]["file_name"] = "gone.jpg"

    folder = edited(tmp_path, edit, "instances_train2017.json")
    broken = folder / "train2017" / "b.png"
    broken.write_bytes(broken.read_bytes()[:80])
    splits = {"train": TRAIN}
    with pytest.raises(ValueError, match="gone.jpg"):
        build(tmp_path / "tfds", folder, config(splits))
    builder = build(tmp_path / "tfds", folder, config(splits, on_error="skip"))
    assert [e["image/id"] for e in tfds.as_numpy(builder.as_dataset(split="train"))] == [b"5"]
    report = (builder.data_path / "train.report.txt").read_text()
    assert "gone.jpg" in report
    assert "b.png" in report


def test_a_broken_image_is_refused_and_named(tmp_path):
    folder = edited(tmp_path, lambda content: None)
    broken = folder / "train2017" / "b.png"
    broken.write_bytes(broken.read_bytes()[:80])
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be used.*b\.png"):
        build(tmp_path / "tfds", folder)
    assert not list((tmp_path / "tfds").rglob("*.tfrecord*"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"splits": {"train": ["nowhere", TRAIN[1]]}}, r"nowhere: there is no such folder"),
        ({"splits": {"train": [TRAIN[0], "no.json"]}}, r"no\.json: there is no such annotation"),
        ({"splits": {"train": "train2017"}}, r"'train' needs \[folder"),
        ({"splits": {"train": TRAIN}, "exif": "yes"}, r"exif: got 'yes'"),
        ({"splits": {"train": TRAIN}, "on_error": "go on"}, r"on_error: got 'go on'"),
    ],
)
def test_configurations_that_cannot_be(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, config=config(**fields))


def test_a_folder_that_is_not_laid_out_as_coco(tmp_path):
    folder = edited(tmp_path, lambda content: None)
    shutil.copy(folder / VAL[1], folder / "annotations" / "instances_val2014.json")
    with pytest.raises(ValueError, match="would both be the split 'validation'"):
        build(tmp_path / "tfds", folder)
    with pytest.raises(ValueError, match=r"(?s)no annotations/instances_\*\.json.*--config="):
        build(tmp_path / "tfds", folder / "train2017")


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path, small_disk):
    """Of 256 KiB, under records of some more."""
    (tmp_path / "images").mkdir()
    content = json.loads((DUMMY / "annotations" / "instances_val2017.json").read_text())
    content |= {"images": [], "annotations": []}
    for k in range(10):
        pixels = np.random.default_rng(k).integers(0, 256, (100, 120, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{k}.png")
        size = {"id": k, "file_name": f"{k}.png", "height": 100, "width": 120}
        content["images"].append(size)
        box = {"id": k + 1, "image_id": k, "category_id": 7, "bbox": [2, 2, 9, 9]}
        corners = [[2, 2, 11, 2, 11, 11, 2, 11]]
        content["annotations"].append(box | {"area": 81, "iscrowd": 0, "segmentation": corners})
    (tmp_path / "train.json").write_text(json.dumps(content))
    named = {"name": "mine", "splits": {"train": ["images", "train.json"]}}
    flags = [f"--manual_dir={tmp_path}", f"--config={json.dumps(named)}", "--num_shards=1"]
    with pytest.raises(SystemExit, match=r"error: .*tfrecord.*No space left on device") as stop:
        tfds_build.main(tfds_build._parse(["tfds_build", *flags, f"--data_dir={small_disk}"]))
    assert "\n" not in str(stop.value)
