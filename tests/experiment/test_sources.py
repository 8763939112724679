"""Where images come from: record files or a TFDS data set, and what is refused of both."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from data_prep.tfds.coco_folder import coco_folder_dataset_builder as coco_folder
from mrcnn_tf.experiment import label_maps, loading, sources
from mrcnn_tf.experiment.fields import Data

DUMMY = pathlib.Path(coco_folder.__file__).parent / "dummy_data"


class BoxesOnly(tfds.core.GeneratorBasedBuilder):
    """Somebody else's data set, with some of the features of TFDS's own COCO."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = epath.Path(__file__)  # see the builder of COCO folders

    def _info(self):
        objects = tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()})
        features = {"image": tfds.features.Image(), "image/id": np.int64, "objects": objects}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for k in range(3):
            image = np.zeros([4, 4, 3], np.uint8)
            yield k, {"image": image, "image/id": k, "objects": []}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder of TFDS with two data sets that can be read, and one without masks."""
    folder = tmp_path_factory.mktemp("tfds")
    options = tfds.download.DownloadConfig(manual_dir=DUMMY, num_shards=2)
    coco_folder.Builder(data_dir=folder).download_and_prepare(download_config=options)
    splits = {"all_of_it": ["val2017", "annotations/instances_val2017.json"]}
    config = coco_folder.CocoFolderConfig(name="mine", splits=splits)
    builder = coco_folder.Builder(data_dir=folder, config=config)
    builder.download_and_prepare(download_config=options)
    BoxesOnly(data_dir=folder).download_and_prepare()
    return folder


def train_data(data_dir, name="coco_folder/coco", split="train"):
    return Data(is_training=True, tfds_name=name, tfds_split=split, tfds_data_dir=str(data_dir))


@pytest.mark.parametrize("name", ["coco_folder/coco", "coco_folder", "coco_folder/coco:1.1.0"])
def test_a_split_is_a_pattern_of_all_its_files(data_dir, name):
    folder = data_dir / "coco_folder" / "coco" / "1.1.0"
    pattern = f"{folder}/coco_folder-train.tfrecord-*-of-00002"
    assert sources.patterns(train_data(data_dir, name)) == (pattern,)


def test_splits_are_joined_and_whole_files_of_one_are_taken(data_dir):
    folder = data_dir / "coco_folder" / "coco" / "1.1.0"
    assert sources.patterns(train_data(data_dir, split="validation+train")) == (
        f"{folder}/coco_folder-train.tfrecord-*-of-00002",
        f"{folder}/coco_folder-validation.tfrecord-*-of-00002",
    )
    assert sources.patterns(train_data(data_dir, split="train[1shard:]")) == (
        f"{folder}/coco_folder-train.tfrecord-00001-of-00002",
    )


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("", r"task\.train_data\.tfds_split: which part.*train \(3 images\), validation \(2"),
        ("test", r"tfds_split: 'coco_folder/coco' has no 'test'; it has train \(3 images\)"),
        ("train[", r"has no 'train\['; it has train"),
        ("train[:1]", r"a part of the file coco_folder-train\.tfrecord-00000-of-00002"),
        ("train[:0]", r"holds no image"),
    ],
)
def test_splits_that_cannot_be_read(data_dir, split, message):
    with pytest.raises(ValueError, match=message):
        sources.patterns(train_data(data_dir, split=split))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "photos",
            r"tfds_name: no data set 'photos' in .*There are boxes_only, coco_folder/coco",
        ),
        ("coco_folder/coc", r"no data set 'coco_folder/coc'.*coco_folder/mine"),
        ("coco_folder/coco:2.0.0", r"no data set 'coco_folder/coco:2\.0\.0'"),
        ("coco/2017", r"TFDS knows it, but it is not built here, and .* have no masks"),
        ("no/such/thing:x", r"no data set"),
    ],
)
def test_names_that_are_not_there(data_dir, name, message):
    with pytest.raises(ValueError, match=message) as error:
        sources.patterns(train_data(data_dir, name))
    assert "tfds_build" in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder '.*/nothing'"):
        sources.patterns(train_data(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="There is none"):
        sources.patterns(train_data(tmp_path))


def test_a_data_set_without_masks_is_refused_with_what_is_missing(data_dir):
    with pytest.raises(ValueError, match="'boxes_only' has no") as error:
        sources.patterns(train_data(data_dir, "boxes_only"))
    text = str(error.value)
    assert "objects/mask/runs (the run lengths of masks)" in text
    assert "no mask can be learnt" in text
    assert "It has image, image/id, objects/bbox." in text
    assert "objects/bbox (boxes)" not in text


def test_files_of_another_converter_are_refused(data_dir, tmp_path):
    """The features are there, but nothing says which classes the category ids are."""
    folder = tmp_path / "tfds"
    shutil.copytree(data_dir / "coco_folder", folder / "coco_folder")
    (folder / "coco_folder/coco/1.1.0/label_map.json").unlink()
    with pytest.raises(ValueError, match=r"no label_map\.json in"):
        sources.patterns(train_data(folder))


def test_both_sources_and_none_are_refused(data_dir):
    both = {"input_path": "x-*", "tfds_name": "coco_folder", "tfds_split": "train"}
    with pytest.raises(ValueError, match=r"task\.train_data: input_path \('x-\*'\) and tfds_name"):
        load({f"task.train_data.{name}": value for name, value in both.items()})
    with pytest.raises(ValueError, match=r"tfds_split: 'train' without a task\.validation_data"):
        load({"task.validation_data.tfds_split": "train"})
    with pytest.raises(ValueError, match=r"task\.validation_data: where are the images\?"):
        sources.patterns(Data())


def load(fields, name="maskrcnn_shapes"):
    return loading.load(name, params_override=json.dumps(fields))


def test_the_later_source_replaces_the_earlier(data_dir, tmp_path):
    """The experiment's file names records; the command line, TFDS; a second one, records again."""
    experiment = load(
        {
            "task.train_data.tfds_name": "coco_folder",
            "task.train_data.tfds_split": "train",
            "task.train_data.tfds_data_dir": str(data_dir),
        }
    )
    data = experiment.task.train_data
    assert (data.input_path, data.tfds_name) == ("", "coco_folder")
    assert experiment.task.validation_data.input_path == "datasets/shapes/val-*.tfrecord"
    assert sources.name(data) == "task.train_data.tfds_name ('coco_folder', split 'train')"
    assert label_maps.of_experiment(experiment.task).num_classes == 4

    params = str(tmp_path / "params.yaml")
    loading.save(experiment, params)
    assert load({}, params).task.train_data == data
    again = load({"task.train_data.input_path": "mine-*"}, params).task.train_data
    assert again.input_path == "mine-*"
    assert (again.tfds_name, again.tfds_split, again.tfds_data_dir) == ("", "", "")
