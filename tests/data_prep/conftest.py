"""The dummy data of the TFDS builder, converted."""

import pathlib

import pytest

from data_prep import conversion, shards
from tests.data_prep.in_process import InProcess

DUMMY = pathlib.Path(shards.__file__).parent / "tfds" / "coco_folder" / "dummy_data"


@pytest.fixture
def convert_dummy(tmp_path, monkeypatch):
    """`convert_dummy("train2017", num_shards)` -> record files, in their order."""
    monkeypatch.setattr(shards, "WorkerPool", InProcess)

    def convert(name: str, num_shards: int) -> list[str]:
        prefix = tmp_path / "records" / name
        prefix.parent.mkdir(exist_ok=True)
        conversion.convert(
            conversion.Job(
                image_dir=str(DUMMY / name),
                annotations_file=str(DUMMY / "annotations" / f"instances_{name}.json"),
                prefix=str(prefix),
                num_shards=num_shards,
                mask_format="rle",
                num_processes=1,
                skip_problems=False,
            )
        )
        return sorted(map(str, prefix.parent.glob(f"{name}-*.tfrecord")))

    return convert
