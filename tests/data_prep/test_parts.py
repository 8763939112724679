"""A set that several machines convert: in any order, at once, killed and repeated."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from data_prep import conversion, create_coco_tfrecord, shards, unfinished
from mrcnn_tf.data import record_files
from tests.data_prep.in_process import InProcess
from tests.data_prep.test_create_coco_tfrecord import _job, _make_folder

NUM_SHARDS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    _make_folder(folder, num_images=23)
    return folder


@pytest.fixture
def convert(monkeypatch, folder):
    """Convert a part, or all, in this process and through what the command calls."""
    monkeypatch.setattr(shards, "WorkerPool", InProcess)

    def convert(where, part=None, **changes):
        changes = {"num_shards": NUM_SHARDS, "part": part} | changes
        job = _job(folder, where / "train", **changes)
        create_coco_tfrecord.run(job)

    return convert


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(convert, tmp_path, capsys):
    """The files of one conversion."""
    convert(tmp_path / "whole")
    files = files_of(tmp_path / "whole")
    capsys.readouterr()
    return {
        name: content.replace(str(tmp_path / "whole").encode(), b"FOLDER")
        for name, content in files.items()
    }


@pytest.mark.parametrize(
    "parts",
    [
        [(0, 2), (2, 5)],
        [(3, 5), (0, 2), (2, 3)],
        [(1, 4), (0, 3), (3, 5)],
        [(4, 5), (4, 5), (0, 1), (1, 4)],
        [(0, 2), None],
    ],
)
def test_parts_in_any_order_make_the_set_of_one_conversion(convert, whole, tmp_path, parts, capsys):
    out = tmp_path / "parts"
    for part in parts[:-1]:
        convert(out, part)
        assert "these are not yet: --shards=" in capsys.readouterr().out
        assert not (out / "train.manifest.json").exists()
        with pytest.raises(ValueError, match=r"of the 5 record files .* are missing: train-0"):
            record_files.find(f"{out}/train-*.tfrecord")
    convert(out, parts[-1])
    assert "5 shards" in capsys.readouterr().out
    assert len(record_files.find(f"{out}/train-*.tfrecord")) == 5
    files = {n: c.replace(str(out).encode(), b"FOLDER") for n, c in files_of(out).items()}
    assert files == whole
    convert(out, parts[0])  # once more does no harm
    assert "5 shards" in capsys.readouterr().out
    assert files_of(out).keys() == whole.keys()


def test_what_is_missing_is_said(convert, tmp_path, capsys):
    convert(tmp_path / "out", (1, 2))
    assert "--shards=0:1, --shards=2:5. Whichever" in capsys.readouterr().out


def test_the_lengths_of_parts_are_known_before_the_set_is_complete(convert, tmp_path):
    out = tmp_path / "out"
    convert(out, (0, 3))
    first = out / "train-00001-of-00005.tfrecord"
    assert len(record_files.find(f"{out}/train-0000[0-2]-*")) == 3
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train-00001-of-00005.tfrecord has .* bytes instead of"):
        record_files.find(f"{out}/train-0000[0-2]-*")
    convert(out, (0, 3))  # writes it again
    assert len(record_files.find(f"{out}/train-0000[0-2]-*")) == 3


def test_parts_of_other_input_do_not_mix(convert, tmp_path):
    convert(tmp_path / "out", (0, 2))
    with pytest.raises(SystemExit, match="mask_format: 'rle' then, 'png' now"):
        convert(tmp_path / "out", (2, 5), mask_format="png")


def test_what_a_killed_process_left_is_swept(convert, whole, tmp_path):
    out = tmp_path / "parts"
    out.mkdir()
    host = unfinished.name_of("x").split(".")[-2].rpartition("-")[0]
    shard = out / "train-00000-of-00005.tfrecord"
    dead, alive, elsewhere = (
        out / f"{shard.name}.{name}.partial" for name in (f"{host}-999999999", f"{host}-1", "b-2")
    )
    others = out / f"other-00000-of-00001.tfrecord.{host}-999999999.partial"
    for path in (dead, alive, elsewhere, others):
        path.write_bytes(b"half")
    convert(out, (0, 2))
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()
    convert(out, (2, 5))
    assert not alive.exists()
    assert not elsewhere.exists()
    assert others.exists()
    assert files_of(out).keys() - {others.name} == whole.keys()


def test_a_repeated_part_that_is_still_running_when_the_set_is_completed(
    convert, tmp_path, monkeypatch
):
    """Its unfinished file is swept under its feet; it finds the shard there."""
    out = tmp_path / "out"
    convert(out)
    before = files_of(out)
    write_records = shards._write_records

    def swept(task, path, image_is_done):
        written = write_records(task, path, image_is_done)
        os.remove(path)
        return written

    monkeypatch.setattr(shards, "_write_records", swept)
    (out / "train.manifest.json").unlink()
    (out / "train-00000-of-00005.tfrecord").rename(tmp_path / "kept")
    with pytest.raises(SystemExit, match="unknown origin"):
        convert(out, (0, 1))
    (out / "train.manifest.json").write_bytes(before["train.manifest.json"])
    with pytest.raises(SystemExit, match="error: "):
        convert(out, (0, 1))
    monkeypatch.setattr(
        shards, "_write_records", lambda *a: ((tmp_path / "kept").rename(a[0].path), swept(*a))[1]
    )
    convert(out, (0, 1))
    assert files_of(out).keys() == before.keys()


@pytest.mark.parametrize("text", ["0", "3:3", "4:2", "0:6", "a:b", ":", "-1:2", "1.5:2"])
def test_parts_that_are_none(text):
    if text == ":":
        assert create_coco_tfrecord._part(text, 5) == (0, 5)
        return
    with pytest.raises(SystemExit, match=f"--shards={text}: expected FROM:UP_TO, .* <= 5 "):
        create_coco_tfrecord._part(text, 5)


def test_open_ends():
    assert create_coco_tfrecord._part(":3", 5) == (0, 3)
    assert create_coco_tfrecord._part("3:", 5) == (3, 5)


def test_a_part_beyond_the_images_is_refused(convert, tmp_path):
    with pytest.raises(SystemExit, match=r"--shards=30:32: there are 23 shards, 0 to 22"):
        convert(tmp_path / "out", (30, 32), num_shards=32)


@pytest.mark.slow
def test_parts_at_once_with_kills(tmp_path):
    """Real processes: three parts at once, one of them twice, two of them killed and repeated."""
    _make_folder(tmp_path, num_images=600)
    conversion.convert(_job(tmp_path, tmp_path / "whole/train", num_shards=30))
    script = pathlib.Path(create_coco_tfrecord.__file__)

    def start(part):
        command = [sys.executable, str(script), f"--image_dir={tmp_path / 'images'}"]
        command += [f"--object_annotations_file={tmp_path / 'instances.json'}", "--num_shards=30"]
        command += [f"--output_file_prefix={tmp_path / 'out/train'}", "--num_processes=1"]
        return subprocess.Popen(
            [*command, f"--shards={part}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    runs = [start(part) for part in ("0:10", "10:20", "20:30", "10:20")]
    while len(list(tmp_path.glob("out/*.tfrecord"))) < 3:
        time.sleep(0.01)
    for run in runs[:2]:
        run.send_signal(signal.SIGKILL)
    for run in runs:
        run.communicate()
    again = [start(part) for part in ("0:10", "10:20")]
    said = [run.communicate()[0].decode() for run in again]
    assert [run.returncode for run in again] == [0, 0], said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names - {"train.report.txt"} == {p.name for p in (tmp_path / "whole").iterdir()}
    for name in names - {"train.report.txt"}:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("first", [None, (0, 2)])
@pytest.mark.parametrize("then", [[None], [(0, 2), (2, 5)], [(3, 5), (0, 3)]])
def test_manifests_of_records_that_are_gone_are_no_obstacle(convert, tmp_path, first, then):
    """What the refusal advises: the records are removed, their manifests stay."""
    out = tmp_path / "out"
    convert(out, first)
    for path in out.glob("*.tfrecord"):
        path.unlink()
    for part in then:
        convert(out, part, mask_format="png")
    assert len(record_files.find(f"{out}/train-*.tfrecord")) == NUM_SHARDS
    assert not list(out.glob("*.part-*"))


def test_a_part_that_is_repeated_over_another_image_completes_the_set(
    convert, folder, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    convert(out)
    image = min(folder.rglob("*.jpg"))
    content = image.read_bytes()
    try:
        image.write_bytes(content + b"\0" * 7)  # bytes behind the end of a JPEG change no pixel
        convert(out, (0, 3))
        convert(out, (3, 5))
        assert len(record_files.find(f"{out}/train-*.tfrecord")) == NUM_SHARDS
        assert not list(out.glob("*.part-*"))
    finally:
        image.write_bytes(content)


def test_small_files_on_their_way_and_other_sets_are_left_alone(convert, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    running = [out / f"{name}.b-2.partial" for name in ("train.manifest.json", "train.report.txt")]
    running.append(out / "train.mini-00000-of-00004.tfrecord.b-2.partial")
    for path in running:
        path.write_bytes(b"half")
    convert(out)
    assert all(path.exists() for path in running)
