"""The TFDS builder on Apache Beam: the same files as without it."""

import json
import pathlib
import shutil

import pytest
import tensorflow as tf

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("apache_beam", reason="an environment of its own: the extra `beam`")

from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

from data_prep.tfds import examples  # noqa: E402
from data_prep.tfds.coco_folder import coco_folder_dataset_builder as coco_folder  # noqa: E402
from mrcnn_tf.images import record_image  # noqa: E402

DUMMY = pathlib.Path(coco_folder.__file__).parent / "dummy_data"
# As TFDS's command makes them of --beam_pipeline_options=runner=FnApiRunner.
BEAM = PipelineOptions(["--runner=FnApiRunner"])


def build(data_dir, manual_dir, on_error="fail", **options):
    config = coco_folder.CocoFolderConfig(name="mine", on_error=on_error)
    builder = coco_folder.Builder(data_dir=data_dir, config=config)
    options = tfds.download.DownloadConfig(manual_dir=manual_dir, num_shards=2, **options)
    builder.download_and_prepare(download_config=options)
    return builder


@pytest.fixture
def folder(tmp_path):
    """A COCO folder with keypoints, and an image that is broken, which only reading it shows."""
    folder = tmp_path / "folder"
    shutil.copytree(DUMMY, folder)
    for path in (folder / "annotations").iterdir():
        content = json.loads(path.read_text())
        for row in content["categories"]:
            row["keypoints"] = ["left_end", "right_end"]
        for k, row in enumerate(content["annotations"]):
            row["keypoints"] = [3.3 + k, 1.7, 2, 11.1, 2 + k / 3, k % 2]
        path.write_text(json.dumps(content))
    broken = folder / "train2017" / "b.png"
    broken.write_bytes(broken.read_bytes()[:80])
    return folder


def files_of(builder):
    return {path.name: path.read_bytes() for path in builder.data_path.iterdir()}


def test_the_files_are_those_of_a_build_without_beam(tmp_path, folder):
    plain = files_of(build(tmp_path / "plain", folder, "skip"))
    beam = files_of(build(tmp_path / "beam", folder, "skip", beam_options=BEAM))
    of_beam = {name for name in beam if name.endswith(".shard_infos.json")}  # TFDS leaves them
    assert beam.keys() - of_beam == plain.keys()
    for name, content in plain.items():
        if name == "dataset_info.json":
            assert json.loads(content) == json.loads(beam[name])
        else:
            assert content == beam[name], name
    assert len([name for name in plain if ".tfrecord-" in name]) == 4
    # What a worker could not use is listed as what this process could not.
    assert b"b.png" in beam["train.report.txt"]
    assert not tf.io.gfile.exists(str(tmp_path / "beam/coco_folder/mine/1.1.0/shards"))


def test_too_much_that_workers_cannot_use_is_refused(tmp_path, folder):
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be used.*b\.png"):
        build(tmp_path / "beam", folder, beam_options=BEAM)
    assert not list((tmp_path / "beam").rglob("*.tfrecord*"))


@pytest.mark.parametrize("content", [None, "", "[[1]]", '[["no level", "x"]]', "{"])
def test_a_list_that_is_not_whole_is_named(tmp_path, content):
    stored = examples.StoredShard.store(
        examples.Shard("", [], {}, record_image.ExifRule("ignore"), []), str(tmp_path / "train-0")
    )
    assert list(stored()) == []
    assert stored.left_out() == []
    (tmp_path / "train-0.left_out").unlink()
    if content is not None:
        (tmp_path / "train-0.left_out").write_text(content)
    with pytest.raises(ValueError, match=r"train-0\.left_out: no list .* build once more"):
        stored.left_out()
