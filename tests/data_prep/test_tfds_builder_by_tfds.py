"""TFDS's own test of a builder, on the dummy data beside it."""

import pytest
import tensorflow_datasets as tfds

pytest.importorskip("dill", reason="TFDS's tests take it: the extra `dev`")

from data_prep.tfds.coco_folder import coco_folder_dataset_builder as coco_folder  # noqa: E402


class CocoFolderTest(tfds.testing.DatasetBuilderTestCase):
    """It is registered, described, built, read in graphs and eagerly, and opened again."""

    DATASET_CLASS = coco_folder.Builder
    SPLITS = {"train": 3, "validation": 2}
