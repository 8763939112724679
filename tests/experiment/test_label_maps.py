"""Records that were converted apart, and number the same names otherwise."""

import pytest

from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.experiment import fields, label_maps
from mrcnn_tf.experiment.experiment import Task

TRAIN = LabelMap((1, 2), ("apple", "fig"))


@pytest.fixture
def config(tmp_path):
    for name, label_map in (
        ("train", TRAIN),
        ("more", LabelMap((1, 2), ("apple", "fig"))),
        ("val", LabelMap((1, 2), ("fig", "apple"))),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / schema.LABEL_MAP_FILE).write_text(label_map.to_json())
    return Task(
        train_data=fields.Data(input_path=f"{tmp_path}/train/*", is_training=True),
        validation_data=fields.Data(input_path=f"{tmp_path}/val/*"),
    )


def test_each_set_is_read_with_its_own_ids(config):
    classes = label_maps.of_experiment(config)
    assert classes == TRAIN
    assert label_maps.of_records(config, config.train_data, classes) == TRAIN
    of_validation = label_maps.of_records(config, config.validation_data, classes)
    assert of_validation == LabelMap((2, 1), TRAIN.names)


def test_folders_of_one_set_must_agree(config, tmp_path):
    config.train_data.input_path = [f"{tmp_path}/train/*", f"{tmp_path}/more/*"]
    assert label_maps.of_experiment(config) == TRAIN
    assert label_maps.of_records(config, config.train_data, TRAIN) == TRAIN
    config.train_data.input_path = [f"{tmp_path}/train/*", f"{tmp_path}/val/*"]
    with pytest.raises(ValueError, match=r"val/label_map.json: numbers its categories otherwise"):
        label_maps.of_records(config, config.train_data, TRAIN)


def test_a_category_of_validation_that_is_not_trained_is_refused(config, tmp_path):
    kiwi = LabelMap((1, 2, 3), ("apple", "fig", "kiwi"))
    (tmp_path / "val" / schema.LABEL_MAP_FILE).write_text(kiwi.to_json())
    with pytest.raises(ValueError, match=r"val/label_map.json has categories .*: 'kiwi'"):
        label_maps.of_records(config, config.validation_data, TRAIN)
