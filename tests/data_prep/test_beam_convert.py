"""Conversion by Apache Beam: the converter's bytes, however often and in how many pieces."""

import concurrent.futures
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("apache_beam", reason="an environment of its own: requirements-beam.txt")

from data_prep import (  # noqa: E402
    beam_shards,
    conversion,
    create_coco_tfrecord,
    shards,
    worker_files,
)
from tests import beam_workers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
IN_MEMORY = ["--runner=FnApiRunner"]
RETRIES = ["--runner=BundleBasedDirectRunner"]  # tries a bundle up to four times


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 images of odd names with some keypoints; one of them is turned, and one is broken."""
    folder = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(3)
    (folder / "images/unter ordner").mkdir(parents=True)
    images, annotations = [], []
    for k in range(12):
        height, width = (int(side) for side in rng.integers(30, 60, 2))
        name = f"unter ordner/ü {k}.jpg"
        exif = Image.Exif()
        if k == 4:
            exif[0x0112] = 3
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name, "JPEG", exif=exif)
        images.append({"id": 10 * k, "file_name": name, "height": height, "width": width})
        for _ in range(k % 3):
            annotation = {"id": len(annotations) + 1, "image_id": 10 * k, "category_id": 7}
            annotation |= {"bbox": [2, 3, 12, 20], "area": 99.5, "iscrowd": 0}
            polygon = [2, 3, 14, 3, 14, *rng.uniform(15, 23, 1).tolist(), 2, 23]
            annotations.append(annotation | {"segmentation": [polygon]})
            if len(annotations) % 2:
                annotations[-1]["keypoints"] = [3.3, 4, 2, 11.1, 9 + k / 3, k % 2]
    (folder / "images/unter ordner/ü 7.jpg").write_bytes(b"\xff\xd8\xff nothing behind it")
    apples = {"id": 7, "name": "Äpfel", "keypoints": ["stalk", "blossom"]}
    categories = [apples, {"id": 3, "name": "pears"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content), "utf-8")
    return folder


def _job(folder, prefix, **changes):
    job = conversion.Job(
        image_dir=str(folder / "images"),
        annotations_file=str(folder / "instances.json"),
        prefix=str(prefix),
        num_shards=5,
        mask_format="rle",
        num_processes=1,
        skip_problems=True,
    )
    return job._replace(**changes)


def _files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """What the converter writes: {file name: content}."""
    out = tmp_path_factory.mktemp("converter")
    _run_command("create_coco_tfrecord.py", folder, out / "train", "--num_processes=1")
    files = _files(out)
    shard_names = [f"train-{k:05d}-of-00005.tfrecord" for k in range(5)]
    assert sorted(files) == sorted(
        [*shard_names, "label_map.json", "train.manifest.json", "train.report.txt"]
    )
    assert "ü 7.jpg" in files["train.report.txt"].decode()
    manifest = json.loads(files["train.manifest.json"])
    counts = [row["counts"]["keypoints"] for row in manifest["shards"].values()]
    assert sum(counts) > 5
    return files


def _command(script, folder, prefix, *options):
    command = [sys.executable, str(ROOT / "data_prep" / script), f"--image_dir={folder / 'images'}"]
    command += [f"--object_annotations_file={folder / 'instances.json'}", "--num_shards=5"]
    return [*command, f"--output_file_prefix={prefix}", "--on_error=skip", *options]


def _run_command(*arguments):
    command, folder = _command(*arguments), arguments[1]
    # From another folder, without PYTHONPATH.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _convert(job, arguments=IN_MEMORY):
    create_coco_tfrecord.run(job, beam_shards.BeamWorkers(job.prefix, arguments))


def _note_calls(monkeypatch, act=lambda task: None):
    """Have every attempt at a shard noted; `act` is called when its records are written."""
    attempts = []
    write = shards.write_shard

    def note(task, image_is_done, suffix):
        attempts.append(pathlib.Path(task.path).name)
        num_left = len(task.images)

        def one_is_done():
            nonlocal num_left
            image_is_done()
            num_left -= 1
            if num_left == 0:
                act(task)

        return write(task, one_is_done, suffix)

    monkeypatch.setattr(shards, "write_shard", note)
    return attempts


def test_the_bytes_are_the_converters(folder, expected, tmp_path):
    _convert(_job(folder, tmp_path / "train"))
    assert _files(tmp_path) == expected
    assert {path.name for path in tmp_path.iterdir()} == set(expected)  # no folder is left


def test_a_bundle_that_fails_is_tried_again(folder, expected, tmp_path, monkeypatch):
    """Half of the shards fail once, when all is written but the name."""
    failed = set()

    def fail_once(task):
        if task.path not in failed and int(task.path.split("-")[-3]) % 2:
            failed.add(task.path)
            raise OSError("the worker's disk is gone")

    attempts = _note_calls(monkeypatch, fail_once)
    _convert(_job(folder, tmp_path / "train"), RETRIES)
    assert len(failed) == 2
    assert len(attempts) > 5
    assert _files(tmp_path) == expected


def test_a_pipeline_that_fails_goes_on_where_it_stopped(
    folder, expected, tmp_path, monkeypatch, capsys
):
    def fail(task):
        if "-00003-of" in task.path:
            raise OSError("no route to this file")

    with monkeypatch.context() as patch:
        _note_calls(patch, fail)
        with pytest.raises(SystemExit) as error:
            _convert(_job(folder, tmp_path / "train"))
    assert "no route to this file. The same command goes on" in str(error.value)
    there = json.loads((tmp_path / "train.manifest.json").read_text("utf-8"))["shards"]
    assert "train-00003-of-00005.tfrecord" not in there
    assert "Traceback" not in capsys.readouterr().out
    attempts = _note_calls(monkeypatch)
    _convert(_job(folder, tmp_path / "train"))
    assert sorted(attempts) == sorted(
        name for name in expected if name.endswith(".tfrecord") and name not in there
    )
    assert _files(tmp_path) == expected


def test_what_workers_finished_is_taken_though_nobody_noted_it(
    folder, expected, tmp_path, monkeypatch
):
    """The command was killed while the pipeline went on elsewhere, and wrote all shards but one."""
    from mrcnn_tf.beam import running

    run = running.run

    def run_and_die(build, given):
        run(build, given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "run", run_and_die)
        with pytest.raises(SystemExit, match="interrupted"):
            _convert(_job(folder, tmp_path / "train"))
    assert not json.loads((tmp_path / "train.manifest.json").read_text("utf-8"))["shards"]
    (tmp_path / "train-00001-of-00005.tfrecord").unlink()
    with open(tmp_path / "train-00004-of-00005.tfrecord", "ab") as file:
        file.write(b"longer")
    summary = tmp_path / "train.beam/train-00003-of-00005.tfrecord.summary"
    summary.write_bytes(summary.read_bytes()[:-9])
    attempts = _note_calls(monkeypatch)
    _convert(_job(folder, tmp_path / "train"))
    # The shard with the broken image (the 8th, so of shard 2) is looked at anew.
    assert sorted(attempts) == [f"train-0000{k}-of-00005.tfrecord" for k in (1, 2, 3, 4)]
    assert _files(tmp_path) == expected


class _Take:
    """Takes the tasks and does nothing with them."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write_shards(self, tasks, show):
        self.tasks = tasks
        return iter(())


def test_two_workers_may_write_one_shard_at_a_time(folder, expected, tmp_path):
    """As a runner lets them that takes a slow worker for a dead one."""
    take = _Take()
    conversion.convert(_job(folder, tmp_path / "train"), take)
    (tmp_path / "train.beam").mkdir()
    files = [str(tmp_path / "train.beam" / f"{k}.task") for k in range(5)]
    for file, task in zip(files, take.tasks, strict=True):
        worker_files.write(file, pickle.dumps(task))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(beam_shards.write_shard, [*files, *files, *files]))
    written = {path.name: path.read_bytes() for path in tmp_path.glob("*.tfrecord*")}
    assert written == {name: expected[name] for name in expected if name.endswith(".tfrecord")}
    assert sorted(path.name for path in (tmp_path / "train.beam").iterdir()) == sorted(
        f"{k}.{kind}" for k in range(5) for kind in ("task", "summary")
    )


def test_what_is_refused_is_refused_here_too(folder, tmp_path):
    with pytest.raises(SystemExit, match="more than 1 %"):
        _convert(_job(folder, tmp_path / "train", skip_problems=False))
    with pytest.raises(ValueError, match="'runner=FnApiRunner': Beam's options are written --name"):
        beam_shards.BeamWorkers("train", ["runner=FnApiRunner"])


@pytest.mark.parametrize("content", ["", "[]", '{"num_bytes": 3}', "[" * 100000, "\xff"])
def test_a_damaged_summary_is_none(tmp_path, content):
    task = shards.ShardTask(str(tmp_path / "s"), "", [], "", {}, None, None)
    (tmp_path / "s").write_bytes(b"abc")
    (tmp_path / "s.summary").write_text(content, "latin-1")
    assert beam_shards._finished(str(tmp_path / "s.task"), task) is None
    whole = shards.ShardSummary(3, "", {"images": 0}, [])
    (tmp_path / "s.summary").write_text(json.dumps(whole._asdict()))
    assert beam_shards._finished(str(tmp_path / "s.task"), task) == whole


@pytest.mark.slow
def test_the_command_in_two_processes(folder, expected, tmp_path):
    """Workers take relative names for those of the command's own folder."""
    (tmp_path / "coco").symlink_to(folder)
    command = _command("beam_convert.py", pathlib.Path("coco"), "out/train")
    done = subprocess.run(
        [*command, "--", *beam_workers.PROCESSES],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 shards" in done.stdout
    assert _files(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_only_what_it_was_writing(tmp_path):
    """SIGKILL in the middle of a shard, Ctrl-C where the runner waits for ever, the same again."""
    folder = tmp_path / "coco"
    (folder / "images").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
    Image.fromarray(noise).save(folder / "images/0.png")
    images = [{"id": 0, "file_name": "0.png", "height": 1200, "width": 1200}]
    for k in range(1, 160):
        os.link(folder / "images/0.png", folder / f"images/{k}.png")
        images.append(images[0] | {"id": k, "file_name": f"{k}.png"})
    box = {"id": 1, "image_id": 3, "category_id": 7, "bbox": [2, 3, 12, 20], "area": 240}
    content = {"images": images, "annotations": [box | {"iscrowd": 0}]}
    content["categories"] = [{"id": 7, "name": "noise"}]
    (folder / "instances.json").write_text(json.dumps(content))
    _run_command("create_coco_tfrecord.py", folder, tmp_path / "expected/train")

    out = tmp_path / "out"
    command = _command("beam_convert.py", folder, out / "train", "--", *beam_workers.PROCESSES)
    with open(tmp_path / "log", "w") as log:
        running = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        beam_workers.wait_until(
            lambda: any(out.glob("train.beam/*.summary")) and any(out.glob("*.partial")),
            running,
            seconds=300,
        )
        workers = beam_workers.of(running.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert beam_workers.end(running) != 0, (tmp_path / "log").read_text()
    finally:
        running.kill()
    finished = {path.stem for path in out.glob("train.beam/*.summary")}
    assert 0 < len(finished) < 5
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tfrecord")}
    _run_command("beam_convert.py", folder, out / "train", "--", *beam_workers.PROCESSES)
    assert _files(out) == _files(tmp_path / "expected")
    for name in finished:
        assert (out / name).stat().st_mtime_ns == written[name]
