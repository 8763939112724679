"""The converter as its users run it: counts, the same bytes, restart, refusals."""

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep import conversion, create_coco_tfrecord, manifest, shards
from mrcnn_tf.data import schema
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.data.findings import Finding, Level, RefusedError
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.images import storage
from mrcnn_tf.images.record_image import ExifRule
from tests.data_prep.in_process import InProcess

_SCRIPT = pathlib.Path(create_coco_tfrecord.__file__)


def _make_folder(folder, num_images=11):
    """Writes a COCO folder of random images; the last one has no object."""
    rng = np.random.default_rng(5)
    images, annotations = [], []
    (folder / "images" / "unter ordner").mkdir(parents=True)
    for k in range(num_images):
        height, width = (int(side) for side in rng.integers(30, 60, 2))
        name = f"unter ordner/ü {k}.jpg"
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name, "JPEG")
        images.append({"id": k, "file_name": name, "height": height, "width": width})
        for _ in range(0 if k == num_images - 1 else int(rng.integers(1, 4))):
            polygon = [1.5, 2.5, 21.75, *rng.uniform(3, 9, 3).tolist(), 9.0, 21.0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": k,
                    "category_id": int(rng.choice([2, 70])),
                    "bbox": [1.5, 2.5, 20.25, 18.5],
                    "area": 99.5,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    categories = [{"id": 70, "name": "Äpfel"}, {"id": 2, "name": "pears"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content), "utf-8")
    return content


def _run(folder, prefix, *options, annotations="instances.json", check=True):
    command = [sys.executable, str(_SCRIPT), f"--image_dir={folder / 'images'}"]
    command += [f"--object_annotations_file={folder / annotations}"]
    command += [f"--output_file_prefix={prefix}", *options]
    # From another folder, without PYTHONPATH.
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if check:
        assert finished.returncode == 0, finished.stderr
    return finished


def _job(folder, prefix, **changes):
    job = conversion.Job(
        image_dir=str(folder / "images"),
        annotations_file=str(folder / "instances.json"),
        prefix=str(prefix),
        num_shards=3,
        mask_format="rle",
        num_processes=1,
        skip_problems=False,
    )
    return job._replace(**changes)


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(shards, "WorkerPool", InProcess)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    _make_folder(folder)
    return folder


def _bytes_of(prefix):
    paths = sorted(prefix.parent.glob(f"{prefix.name}-*.tfrecord"))
    return {path.name: path.read_bytes() for path in paths}


def _source_ids(path):
    examples = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    for text in examples:
        feature = tf.train.Example.FromString(text).features.feature
        yield int(feature[schema.IMAGE_SOURCE_ID].bytes_list.value[0])


def test_processes_do_not_change_the_bytes(folder, tmp_path, in_process):
    finished = _run(folder, tmp_path / "cli/train", "--num_shards=3", "--num_processes=3")
    conversion.convert(_job(folder, tmp_path / "here/train"))
    written = _bytes_of(tmp_path / "cli/train")
    assert list(written) == [f"train-{k:05d}-of-00003.tfrecord" for k in range(3)]
    assert written == _bytes_of(tmp_path / "here/train")
    assert list(_source_ids(tmp_path / "cli/train-00001-of-00003.tfrecord")) == [1, 4, 7, 10]
    text = (tmp_path / "cli" / schema.LABEL_MAP_FILE).read_text("utf-8")
    assert LabelMap.from_json(text) == LabelMap((2, 70), ("pears", "Äpfel"))
    assert not list(tmp_path.rglob("*.partial"))
    for line in ("11 images", "1 images without objects", "2 categories", "mrcnn_tf.train"):
        assert line in finished.stdout
    assert "11/11 images" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_second_run_writes_only_what_is_missing(folder, tmp_path, in_process, monkeypatch):
    prefix = tmp_path / "train"
    first = conversion.convert(_job(folder, prefix))
    before = _bytes_of(prefix)
    written = []
    write_shard = shards.write_shard
    monkeypatch.setattr(
        shards,
        "write_shard",
        lambda t, d: (written.append(os.path.basename(t.path)), write_shard(t, d))[1],
    )
    assert conversion.convert(_job(folder, prefix)) == first
    assert written == []
    (tmp_path / "train-00001-of-00003.tfrecord").unlink()
    (tmp_path / "train-00002-of-00003.tfrecord").write_bytes(b"cut")
    assert conversion.convert(_job(folder, prefix, skip_problems=True)) == first
    assert written == ["train-00001-of-00003.tfrecord", "train-00002-of-00003.tfrecord"]
    assert _bytes_of(prefix) == before


def test_a_killed_run_is_continued(tmp_path, in_process):
    _make_folder(tmp_path, num_images=400)
    command = [sys.executable, str(_SCRIPT), f"--image_dir={tmp_path / 'images'}"]
    command += [f"--object_annotations_file={tmp_path / 'instances.json'}", "--num_shards=20"]
    command += [f"--output_file_prefix={tmp_path / 'out/x'}", "--num_processes=2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not (complete := _bytes_of(tmp_path / "out/x")) and run.poll() is None:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
    assert 0 < len(complete) < 20
    time.sleep(1)  # the workers notice that their parent is gone
    left_over = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    time.sleep(0.5)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == left_over
    assert len(_bytes_of(tmp_path / "out/x")) < 20
    conversion.convert(_job(tmp_path, tmp_path / "out/x", num_shards=20))
    conversion.convert(_job(tmp_path, tmp_path / "fresh/x", num_shards=20))
    assert _bytes_of(tmp_path / "out/x") == _bytes_of(tmp_path / "fresh/x")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_changed_image_renews_its_shard_only(tmp_path, in_process):
    content = _make_folder(tmp_path)
    prefix = tmp_path / "out/train"
    conversion.convert(_job(tmp_path, prefix))
    before = _bytes_of(prefix)
    image = content["images"][4]
    blank = Image.new("RGB", (image["width"], image["height"]))
    blank.save(tmp_path / "images" / image["file_name"], "JPEG")
    conversion.convert(_job(tmp_path, prefix))
    after = _bytes_of(prefix)
    assert [name for name in before if before[name] != after[name]] == [
        "train-00001-of-00003.tfrecord"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_shards": 4}, "num_shards: 3 then, 4 now"),
        ({"mask_format": "png"}, "mask_format: 'rle' then, 'png' now"),
        ({"mask_format": None}, "mask_format: 'rle' then, None now"),
    ],
)
def test_other_flags_do_not_mix(folder, tmp_path, in_process, changes, message):
    conversion.convert(_job(folder, tmp_path / "train"))
    before = _bytes_of(tmp_path / "train")
    with pytest.raises(ValueError, match=message):
        conversion.convert(_job(folder, tmp_path / "train", **changes))
    assert _bytes_of(tmp_path / "train") == before
    for name in before:
        (tmp_path / name).unlink()
    conversion.convert(_job(folder, tmp_path / "train", **changes))


def test_other_annotations_and_unknown_records_do_not_mix(tmp_path, in_process):
    content = _make_folder(tmp_path)
    prefix = tmp_path / "out/train"
    conversion.convert(_job(tmp_path, prefix))
    content["annotations"].pop()
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotations_sha256"):
        conversion.convert(_job(tmp_path, prefix))
    (tmp_path / "out/train.manifest.json").unlink()
    with pytest.raises(ValueError, match="unknown origin"):
        conversion.convert(_job(tmp_path, prefix))


def test_other_names_in_the_folder_are_refused(tmp_path, in_process):
    content = _make_folder(tmp_path)
    conversion.convert(_job(tmp_path, tmp_path / "out/train"))
    content["categories"][0]["name"] = "Birnen"
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(RefusedError, match=r"label_map.json has no 'Birnen' \(\d+ objects\)"):
        conversion.convert(_job(tmp_path, tmp_path / "out/val", skip_problems=True))
    assert not list((tmp_path / "out").glob("val*"))


def test_other_ids_of_the_same_names_are_matched_by_name(tmp_path, in_process):
    """Records converted into one folder hold the same ids, whatever each annotation file has."""
    content = _make_folder(tmp_path)
    conversion.convert(_job(tmp_path, tmp_path / "out/train"))
    new_id = {70: 1, 2: 70}
    for row in content["annotations"]:
        row["category_id"] = new_id[row["category_id"]]
    content["categories"] = [
        {"id": 1, "name": "Äpfel"}, {"id": 70, "name": "pears"}, {"id": 5, "name": "unused"}
    ]  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(content))
    summary = conversion.convert(_job(tmp_path, tmp_path / "out/val"))
    (finding,) = summary.findings
    assert finding.level == Level.REPAIRED
    assert "'Äpfel' is 1 here, 70 there" in finding.value
    train, val = (_bytes_of(tmp_path / f"out/{name}") for name in ("train", "val"))
    assert list(train.values()) == list(val.values())


def test_there_are_no_empty_shards(folder, tmp_path, in_process):
    summary = conversion.convert(_job(folder, tmp_path / "train", num_shards=32))
    assert summary.num_shards == 11
    assert len(_bytes_of(tmp_path / "train")) == 11


def test_bad_input_stops_before_anything_is_written(tmp_path):
    content = _make_folder(tmp_path)
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    content["annotations"][1]["category_id"] = 71
    (tmp_path / "images" / content["images"][3]["file_name"]).unlink()
    (tmp_path / "instances.json").write_text(json.dumps(content))
    finished = _run(tmp_path, tmp_path / "out/x", check=False)
    assert finished.returncode == 1
    for part in (
        "box without area: annotation 1 of image 0 (unter ordner/ü 0.jpg): bbox [1, 1, 0, 5]",
        "unknown category: annotation 2",
        "missing file: image 3 (unter ordner/ü 3.jpg)",
        "1 of 11 images cannot be used, more than 1 %",
        "2 of 22 objects cannot be used, more than 1 %",
        "nothing was written",
        "--on_error=skip",
    ):
        assert part in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_counted_and_listed(tmp_path, in_process, capsys):
    content = _make_folder(tmp_path)
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    (tmp_path / "images" / content["images"][3]["file_name"]).unlink()
    (tmp_path / "instances.json").write_text(json.dumps(content))
    prefix = tmp_path / "out/x"
    create_coco_tfrecord.run(_job(tmp_path, prefix, skip_problems=True))
    printed = capsys.readouterr().out
    assert "        10 images\n" in printed
    assert f"listed in {prefix}.report.txt" in printed
    assert "left out          1 x missing file -> image left out" in printed
    assert "left out          1 x box without area -> object left out" in printed
    listed = (tmp_path / "out/x.report.txt").read_text("utf-8").splitlines()
    assert any(line.endswith("bbox [1, 1, 0, 5] -> object left out") for line in listed)


@pytest.mark.parametrize(("num_images", "is_refused"), [(99, True), (100, False)])
def test_one_of_a_hundred_may_be_left_out(tmp_path, in_process, num_images, is_refused):
    content = _make_folder(tmp_path, num_images)
    (tmp_path / "images" / content["images"][3]["file_name"]).unlink()
    if is_refused:
        with pytest.raises(RefusedError, match="1 of 99 images cannot be used"):
            conversion.convert(_job(tmp_path, tmp_path / "out/x"))
        return
    summary = conversion.convert(_job(tmp_path, tmp_path / "out/x"))
    assert summary.counts["images"] == 99
    skipped = conversion.convert(_job(tmp_path, tmp_path / "out/x", skip_problems=True))
    assert skipped == summary


def test_a_broken_image_counts_like_a_missing_one(tmp_path, in_process):
    content = _make_folder(tmp_path)
    path = tmp_path / "images" / content["images"][5]["file_name"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    prefix = tmp_path / "out/x"
    for _ in range(2):  # what was left out is not forgotten
        with pytest.raises(conversion.StoppedError, match="1 of 11 images") as caught:
            conversion.convert(_job(tmp_path, prefix))
        (finding,) = caught.value.findings
        assert str(finding).startswith("undecodable file: image 5 (unter ordner/ü 5.jpg)")
        assert len(_bytes_of(prefix)) == 3
    summary = conversion.convert(_job(tmp_path, prefix, skip_problems=True))
    assert summary.counts["images"] == 10
    assert [finding.kind for finding in summary.findings] == ["undecodable file"]
    path.write_bytes(whole)
    summary = conversion.convert(_job(tmp_path, prefix))
    assert (summary.counts["images"], summary.findings) == (11, [])


def test_a_mended_image_of_the_same_length_is_looked_at_again(tmp_path, in_process):
    content = _make_folder(tmp_path)
    path = tmp_path / "images" / content["images"][5]["file_name"]
    whole = path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    with pytest.raises(conversion.StoppedError, match="1 of 11 images"):
        conversion.convert(_job(tmp_path, tmp_path / "out/x"))
    path.write_bytes(whole)
    summary = conversion.convert(_job(tmp_path, tmp_path / "out/x"))
    assert (summary.counts["images"], summary.findings) == (11, [])


def test_without_any_usable_image_there_is_no_success(tmp_path):
    """Through the command; `--on_error=skip` does not help, and is not advised."""
    content = _make_folder(tmp_path, 2)
    for image in content["images"]:
        (tmp_path / "images" / image["file_name"]).write_bytes(b"nothing")
    finished = _run(tmp_path, tmp_path / "out/x", "--on_error=skip", check=False)
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("error: none of 2 images can be used")
    assert "--on_error" not in last


def test_letter_and_accent_as_one_or_two(tmp_path, in_process):
    """What macOS packs is named otherwise than what others write; viewers show no difference."""
    _make_folder(tmp_path)
    for path in sorted((tmp_path / "images").rglob("*.jpg")):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    summary = conversion.convert(_job(tmp_path, tmp_path / "out/x"))
    assert summary.counts["images"] == 11
    assert {finding.kind for finding in summary.findings} == {"file of another name"}


def test_a_shard_that_is_not_completed_leaves_nothing(tmp_path):
    def stop():
        raise KeyboardInterrupt

    entry = ImageEntry(0, "nothing.jpg", 30, 30)
    task = shards.ShardTask(
        f"{tmp_path}/x.tfrecord", str(tmp_path), [(entry, [])], "", {}, None, ExifRule("auto")
    )
    with pytest.raises(KeyboardInterrupt):
        shards.write_shard(task, stop)
    assert not list(tmp_path.iterdir())


def test_a_broken_image_of_a_hundred_is_left_out(tmp_path, in_process):
    content = _make_folder(tmp_path, 100)
    (tmp_path / "images" / content["images"][5]["file_name"]).write_bytes(b"nothing")
    summary = conversion.convert(_job(tmp_path, tmp_path / "out/x"))
    assert summary.counts["images"] == 99
    assert [finding.remedy for finding in summary.findings] == ["image left out"]


@pytest.mark.parametrize(
    ("image_dir", "annotations", "message"),
    [
        ("nowhere", "instances.json", "--image_dir="),
        ("images", "nothing.json", "--object_annotations_file="),
    ],
)
def test_wrong_paths_are_named_at_once(folder, tmp_path, image_dir, annotations, message):
    command = [sys.executable, str(_SCRIPT), f"--image_dir={folder / image_dir}"]
    command += [f"--object_annotations_file={folder / annotations}"]
    command += [f"--output_file_prefix={tmp_path / 'x'}"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_manifest_survives_the_round_trip(tmp_path):
    made_from = {"num_shards": 1}
    prefix = str(tmp_path / "x[1]")
    path = tmp_path / "x[1]-00000-of-00001.tfrecord"
    task = shards.ShardTask(str(path), str(tmp_path), [], "f00d", {}, "rle", ExifRule())
    found = Finding(Level.LEFT_OUT, "a", "b", "c", "d", images=1)
    summary = shards.ShardSummary(4, "f00d", {"images": 2}, [found])
    path.write_bytes(b"1234")
    manifest.Manifest(prefix, made_from).add(task, summary)
    again = manifest.open_manifest(prefix, made_from)
    assert again.shards == {path.name: summary}
    assert again.has(task)
    with pytest.raises(ValueError, match="num_shards: 1 then, 2 now"):
        manifest.open_manifest(prefix, {"num_shards": 2})
    assert not again.has(task._replace(files_sha256="beef"))


@pytest.mark.parametrize(
    ("images", "annotations", "counts"),
    [
        ("coco_small/train2017", "coco_small/annotations/instances_train2017.json", (163, 1447)),
        ("coco_small/val2017", "coco_small/annotations/instances_val2017.json", (79, 624)),
        ("fruits_nuts/images", "fruits_nuts/train.json", (14, 134)),
        ("fruits_nuts/images", "fruits_nuts/val.json", (4, 31)),
        ("balloon_coco/train", "balloon_coco/annotations/instances_train.json", (61, 255)),
        ("balloon_coco/val", "balloon_coco/annotations/instances_val.json", (13, 50)),
    ],
)
def test_real_data_sets_convert_completely(
    shared, tmp_path, in_process, images, annotations, counts
):
    data = shared / "data"
    job = _job(tmp_path, tmp_path / "x")._replace(
        image_dir=str(data / images), annotations_file=str(data / annotations)
    )
    summary = conversion.convert(job)
    assert summary.findings == []
    assert (summary.counts["images"], summary.counts["annotations"]) == counts
    assert summary.counts["masks"] == counts[1]


def test_odd_real_images(shared, tmp_path, in_process):
    odd = shared / "data/conformance/odd_cases"
    job = _job(tmp_path, tmp_path / "x")._replace(
        image_dir=str(odd / "images"), annotations_file=str(odd / "odd_cases.json")
    )
    with pytest.raises(RefusedError) as caught:
        conversion.convert(job)
    assert caught.value.reasons == [
        "1 of 13 images cannot be used, more than 1 %",
        "1 of 62 objects cannot be used, more than 1 %",
    ]
    summary = conversion.convert(job._replace(skip_problems=True))
    assert sorted(finding.kind for finding in summary.findings) == [
        "box without area",
        "empty segmentation",
        "missing file",
        "polygon of less than three points",
        "size differs from the file's (width x height)",
    ]
    # 13 images less a missing one and one of another size; 62 objects less 1 less its 4.
    assert (summary.counts["images"], summary.counts["annotations"]) == (11, 57)
    assert summary.counts["images without objects"] == 1
    assert summary.counts["objects without a mask"] == 2
    assert summary.counts["boxes clipped"] == 1
    assert sum(n for k, n in summary.counts.items() if k.startswith("images encoded")) == 2


def test_a_full_disk_is_one_line_and_the_conversion_goes_on_with_room(
    tmp_path, small_disk, in_process
):
    _make_folder(tmp_path, num_images=120)
    prefix = small_disk / "train"
    finished = _run(tmp_path, prefix, "--num_shards=12", "--num_processes=2", check=False)
    assert finished.returncode == 1
    (line,) = [line for line in finished.stderr.splitlines() if "error" in line]
    assert re.fullmatch(r"error: (?=.*/train[-.]).*No space left on device.*", line)
    assert "Traceback" not in finished.stderr
    assert not list(small_disk.glob("*.partial"))
    complete = _bytes_of(prefix)
    assert 0 < len(complete) < 12
    whole = tmp_path / "whole/train"
    conversion.convert(_job(tmp_path, whole, num_shards=12))
    assert complete.items() <= _bytes_of(whole).items()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    conversion.convert(_job(tmp_path, prefix, num_shards=12))
    assert _bytes_of(prefix) == _bytes_of(whole)


def test_a_folder_that_cannot_be_written_is_one_line(folder, tmp_path, in_process):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit, match="error: .*file") as error:
        create_coco_tfrecord.run(_job(folder, tmp_path / "file/train"))
    assert "\n" not in str(error.value)


def test_storage_that_fails_for_a_moment_leaves_no_image_out(
    folder, tmp_path, in_process, monkeypatch
):
    """The command stops, and the same one makes the set of an undisturbed conversion."""
    conversion.convert(_job(folder, tmp_path / "whole/train"))
    read = storage.read

    def fail(path, *count):
        if path.endswith("ü 4.jpg"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return read(path, *count)

    job = _job(folder, tmp_path / "out/train", skip_problems=True)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", fail)
        with pytest.raises(SystemExit, match=r"error: .*ü 4\.jpg: the file cannot be read: Input"):
            create_coco_tfrecord.run(job)
    kept = _bytes_of(tmp_path / "out/train")
    assert len(kept) == 1  # image 4 is in the second of three
    create_coco_tfrecord.run(job)
    assert _bytes_of(tmp_path / "out/train") == _bytes_of(tmp_path / "whole/train")
