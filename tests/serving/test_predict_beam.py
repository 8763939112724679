"""Prediction by Apache Beam: the numbers of `mrcnn_tf.predict`, every image in one of two lists."""

import collections
import errno
import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from PIL import Image

pytest.importorskip("apache_beam", reason="an environment of its own: requirements-beam.txt")

from mrcnn_tf.beam import occupied, prediction, prediction_run, running  # noqa: E402
from mrcnn_tf.data import columns, damage, schema  # noqa: E402
from mrcnn_tf.images import storage  # noqa: E402
from mrcnn_tf.serving import image_run  # noqa: E402
from tests import beam_workers  # noqa: E402

RED, GREEN = (255, 0, 0), (0, 255, 0)
ROOT = pathlib.Path(__file__).resolve().parents[2]
IN_MEMORY = ["--runner=FnApiRunner"]
RETRIES = ["--runner=BundleBasedDirectRunner"]  # tries a bundle up to four times


@pytest.fixture(scope="module")
def model_path(export):
    return str(export("image_bytes"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, draw_rectangles):
    """40 images of two canvases, a turned one, one of a name that is not UTF-8; three odd files."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "Über füße").mkdir()
    for k in range(40):
        height, width = ((80, 120), (120, 80))[k % 2]
        rectangles = {RED: (10, 10 + k % 30, 60, 50)} | ({GREEN: (62, 5, 79, 40)} if k % 3 else {})
        exif = Image.Exif()
        if k % 10 == 7:
            exif[0x0112] = 6
        pixels = Image.fromarray(draw_rectangles(height, width, rectangles))
        pixels.save(folder / f"Über füße/{k:02d} [1].png", exif=exif)
    odd = os.path.join(os.fsencode(folder), b"caf\xe9.png")
    with open(odd, "wb") as file:
        file.write((folder / "Über füße/00 [1].png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing behind it")
    (folder / "cut.png").write_bytes((folder / "Über füße/01 [1].png").read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def expected(model_path, folder, tmp_path_factory):
    """(rows of detections.json, {file: why} of unread.json) of `mrcnn_tf.predict`."""
    out = tmp_path_factory.mktemp("out")
    assert image_run.run(model_path, str(folder), str(out), 0.5, 1, draw_images=False) == 1
    unread = json.loads((out / "unread.json").read_text(encoding="utf-8"))
    rows = (out / "detections.json").read_bytes().decode("utf-8", "surrogateescape")
    return json.loads(rows), {row["file"]: row["why"] for row in unread}


def _lines(out, name):
    rows = []
    for path in sorted(out.glob(f"{name}-*-of-*.jsonl")):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        rows += [json.loads(line) for line in text.splitlines()]
    return rows


def _sorted(rows):
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def _counts(out):
    return json.loads((out / "counts.json").read_text())


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_numbers_are_those_of_predict(
    model_path, folder, expected, tmp_path, capsys, batch_size
):
    out = tmp_path / "ö ut"
    code = prediction_run.run(
        model_path, str(out), IN_MEMORY, inputs=[str(folder)], batch_size=batch_size
    )
    assert code == 1
    rows, why = expected
    assert len(rows) > 60
    assert _sorted(_lines(out, "detections")) == _sorted(rows)
    failed = {row["image_id"]: row["why"] for row in _lines(out, "unread")}
    (passed_over,) = map(json.loads, (out / "passed_over.jsonl").read_text().splitlines())
    assert failed | {passed_over["file"]: passed_over["why"]} == why
    assert set(failed) == {"broken.jpg", "cut.png"}
    counts = {"images": 43, "predicted": 41, "unread": 2, "detections": len(rows)}
    assert _counts(out) == counts
    printed = capsys.readouterr().out
    assert f"{len(rows)} detections in 41 images" in printed
    assert "FAILED 2" in printed
    assert "first call" not in printed
    with pytest.raises(ValueError, match="results are there already"):
        prediction_run.run(model_path, str(out), IN_MEMORY, inputs=[str(folder)])
    with pytest.raises(ValueError, match="for a pattern"):
        prediction_run.run(model_path, str(tmp_path / "[1]"), IN_MEMORY, inputs=[str(folder)])


def test_a_bundle_that_fails_is_tried_again_and_counts_once(
    model_path, folder, expected, tmp_path, monkeypatch
):
    """Of each call of the handler the first attempt dies, behind the network, before the end."""
    seen, num_failed = set(), 0
    run_inference = prediction.Network.run_inference

    def fail_at_first(self, batch, model, inference_args=None):
        nonlocal num_failed
        outcomes = list(run_inference(self, batch, model, inference_args))
        yield from outcomes[:-1]
        key = tuple(picture.path for picture in batch)
        if key not in seen:
            seen.add(key)
            num_failed += 1
            raise OSError("the worker is gone")
        yield outcomes[-1]

    monkeypatch.setattr(prediction.Network, "run_inference", fail_at_first)
    assert prediction_run.run(model_path, str(tmp_path), RETRIES, inputs=[str(folder)]) == 1
    assert num_failed > 0
    assert _sorted(_lines(tmp_path, "detections")) == _sorted(expected[0])
    assert _counts(tmp_path)["images"] == 43


def test_a_pipeline_that_fails_leaves_no_counts_and_is_begun_anew(
    model_path, folder, expected, tmp_path, monkeypatch
):
    def fail(self):
        raise MemoryError("no room for the network")

    with monkeypatch.context() as patch:
        patch.setattr(prediction.Network, "load_model", fail)
        with pytest.raises(running.PipelineError, match="no room for the network"):
            prediction_run.run(model_path, str(tmp_path), IN_MEMORY, inputs=[str(folder)])
    assert not (tmp_path / "counts.json").exists()
    (tmp_path / "detections-00000-of-00007.jsonl").write_text("half a run\n")
    (tmp_path / "beam-temp-detections-0123").mkdir()
    (tmp_path / "beam-temp-detections-0123/part").write_text("half a run\n")
    assert prediction_run.run(model_path, str(tmp_path), IN_MEMORY, inputs=[str(folder)]) == 1
    assert _sorted(_lines(tmp_path, "detections")) == _sorted(expected[0])
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {
        "counts.json", "detections", "images.jsonl", "passed_over.jsonl", "unread"
    }  # fmt: skip


@pytest.mark.parametrize("runner", ["DataflowRunner", "flink", "a.module.OfOthers"])
def test_a_job_whose_end_was_not_seen_keeps_its_folder(tmp_path, capsys, runner):
    """Ctrl-C, or no answer from a far runner; then the same command, and one on this machine."""
    with pytest.raises(KeyboardInterrupt), occupied.hold(str(tmp_path), runner):
        raise KeyboardInterrupt  # before there is a job
    assert not list(tmp_path.iterdir())
    part = tmp_path / "beam-temp-detections-0123/part"
    part.parent.mkdir()
    part.write_text("half of the job's rows")
    with pytest.raises(running.Interrupt), occupied.hold(str(tmp_path), runner):
        raise running.Interrupt
    said = f"the job on {runner} may go on, and keeps this folder: {tmp_path}/running.json\n"
    assert capsys.readouterr().out == said
    refused = rf"running\.json: a job on {runner}, begun at 2.*remove this file"
    for options in ([f"--runner={runner}"], IN_MEMORY):
        with pytest.raises(ValueError, match=refused):
            prediction_run.run("absent", str(tmp_path), options, manifest=__file__)
    assert part.exists()
    (tmp_path / "running.json").unlink()
    with pytest.raises(running.PipelineError), occupied.hold(str(tmp_path), runner):
        raise running.PipelineError("no route to the service", may_go_on=True)
    with pytest.raises(ValueError, match=refused):
        prediction_run.run("absent", str(tmp_path), IN_MEMORY, manifest=__file__)
    (tmp_path / "running.json").unlink()
    with pytest.raises(running.PipelineError), occupied.hold(str(tmp_path), runner):
        raise running.PipelineError("it ended as FAILED")
    assert not (tmp_path / "running.json").exists()


def test_a_pipeline_on_this_machine_keeps_its_folder_while_its_command_runs(tmp_path):
    runner = "FnApiRunner"
    with occupied.hold(str(tmp_path), runner):
        with pytest.raises(ValueError, match=r"running\.json: another command writes into this"):
            prediction_run.run("absent", str(tmp_path), IN_MEMORY, manifest=__file__)
        note = (tmp_path / "running.json").read_text()
    assert json.loads(note)["runner"] == runner
    with pytest.raises(running.Interrupt), occupied.hold(str(tmp_path), runner):
        raise running.Interrupt
    assert not list(tmp_path.iterdir())
    for left in (note, note[:9], ""):  # by a command that was killed
        (tmp_path / "running.json").write_text(left)
        with occupied.hold(str(tmp_path), runner):
            pass


def test_a_lock_on_a_file_that_is_no_longer_there_keeps_nobody_out(tmp_path, monkeypatch):
    """Another command ends, and removes its note, between our opening and locking it."""
    flock, path = fcntl.flock, tmp_path / "running.json"

    def remove_first(*given):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(*given)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with (
        occupied.hold(str(tmp_path), "FnApiRunner"),
        pytest.raises(ValueError, match="another command"),
        occupied.hold(str(tmp_path), "FnApiRunner"),
    ):
        pass
    assert not path.exists()


def test_results_of_a_command_that_ends_while_another_begins_stay(tmp_path, monkeypatch):
    def end(path):
        (tmp_path / "detections-00000-of-00001.jsonl").write_text("its rows")
        (tmp_path / "counts.json").write_text("{}")

    monkeypatch.setattr(occupied, "_refuse_former", end)
    with pytest.raises(ValueError, match=r"counts\.json: results are there already"):
        prediction_run.run("absent", str(tmp_path), IN_MEMORY, manifest=__file__)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "counts.json",
        "detections-00000-of-00001.jsonl",
    ]


def test_an_interrupted_pipeline_may_go_on(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:  # before the runner knows of it
        running.run(interrupt, running.options(IN_MEMORY))
    assert not isinstance(error.value, running.Interrupt)
    monkeypatch.setattr(running.beam.Pipeline, "run", interrupt)
    with pytest.raises(running.Interrupt):
        running.run(lambda root: None, running.options(IN_MEMORY))


@pytest.mark.parametrize(("state", "may_go_on"), [("RUNNING", True), ("FAILED", False)])
def test_a_job_that_cannot_be_watched_may_go_on(monkeypatch, state, may_go_on):
    class Job:
        def wait_until_finish(self):
            raise ConnectionError("no route to the service")

    Job.state = state
    monkeypatch.setattr(running.beam.Pipeline, "run", lambda self: Job())
    with pytest.raises(running.PipelineError, match="no route to the service") as error:
        running.run(lambda root: None, running.options(IN_MEMORY))
    assert error.value.may_go_on is may_go_on
    del Job.state  # it cannot be asked for, either
    with pytest.raises(running.PipelineError) as error:
        running.run(lambda root: None, running.options(IN_MEMORY))
    assert error.value.may_go_on


def test_results_that_do_not_add_up_are_not_called_complete(
    model_path, folder, tmp_path, monkeypatch
):
    """A pipeline that loses an image, as only a fault of Beam or of ours could."""
    run_inference = prediction.Network.run_inference
    monkeypatch.setattr(
        prediction.Network,
        "run_inference",
        lambda *given: list(run_inference(*given))[1:],
    )
    manifest = tmp_path / "some.txt"
    manifest.write_text("".join(f"{folder}/Über füße/0{k} [1].png\n" for k in range(3)), "utf-8")
    out = tmp_path / "out"
    with pytest.raises(running.PipelineError, match="of 3 images, 2 came back"):
        prediction_run.run(model_path, str(out), IN_MEMORY, manifest=str(manifest))
    assert not (out / "counts.json").exists()
    manifest.write_text("\n")
    with pytest.raises(running.PipelineError, match="it met no image"):
        prediction_run.run(model_path, str(out), IN_MEMORY, manifest=str(manifest))
    assert not (out / "counts.json").exists()


def test_manifest(model_path, folder, expected, tmp_path):
    """Ids of its own, relative paths; lines that name nothing or the same are listed, not lost."""
    image = "Über füße/00 [1].png"
    lines = [
        json.dumps({"path": image, "image_id": 7}),
        json.dumps({"path": image, "image_id": "7"}),
        "",
        json.dumps({"path": image}),
        json.dumps({"path": str(folder / image), "image_id": 7}),
        json.dumps({"path": "Über füße/absent.png", "image_id": 8}),
        json.dumps({"image_id": 9}),
        json.dumps({"path": image, "image_id": [1]}),
        json.dumps({"path": image, "image_id": "half a character: \ud800"}),
        json.dumps({"path": "\udfff.png"}),
        '{"path": ',
        "[" * 100000,
    ]
    manifest = folder / "some [1].jsonl"
    try:
        manifest.write_text("\n".join(lines), "utf-8")
        given = {"manifest": str(manifest), "batch_size": 3}
        assert prediction_run.run(model_path, str(tmp_path), IN_MEMORY, **given) == 1
    finally:
        manifest.unlink()
    own = [row for row in expected[0] if row["image_id"] == image]
    assert own
    assert _sorted(_lines(tmp_path, "detections")) == _sorted(
        row | {"image_id": name} for row in own for name in (7, "7", image)
    )
    unread = _lines(tmp_path, "unread")
    reasons = sorted((str(row["image_id"])[:20], row["why"]) for row in unread)
    no_line = f'{manifest}: a line that is not {{"path": ..., "image_id": ...}}'
    assert reasons == sorted(
        [
            ("7", f"its id is that of another image, {folder / image}"),
            ("8", "the file cannot be read: No such file or directory"),
            *((line.strip()[:20], no_line) for line in lines[-6:]),
        ]
    )
    counts = {"images": 11, "predicted": 3, "unread": 8, "detections": 3 * len(own)}
    assert _counts(tmp_path) == counts


def test_a_list_of_paths(model_path, folder, expected, tmp_path):
    listed = tmp_path / "list.txt"
    names = [f"Über füße/{k:02d} [1].png" for k in (3, 17)]
    listed.write_text("\ufeff" + "".join(f"{folder / name}\r\n" for name in names), "utf-8")
    out = tmp_path / "out"
    assert prediction_run.run(model_path, str(out), IN_MEMORY, manifest=str(listed)) == 0
    rows = [row | {"image_id": str(folder / row["image_id"])} for row in expected[0]]
    rows = [row for row in rows if row["image_id"] in {str(folder / name) for name in names}]
    assert _sorted(_lines(out, "detections")) == _sorted(rows)
    assert not _lines(out, "unread")
    counts = {"images": 2, "predicted": 2, "unread": 0, "detections": len(rows)}
    assert _counts(out) == counts


def _record(source_id, content, names=(schema.IMAGE_SOURCE_ID, schema.IMAGE_ENCODED)):
    def feature(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    keys = dict(zip(names, map(feature, (source_id, content)), strict=True))
    return tf.train.Example(features=tf.train.Features(feature=keys)).SerializeToString()


def _write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def test_records(model_path, folder, expected, tmp_path):
    """The data set's ids, in both layouts; what is damaged is listed, what lies behind it read."""
    content = [(folder / f"Über füße/{k:02d} [1].png").read_bytes() for k in range(9)]
    a, b, c = (tmp_path / f"a-0000{k}-of-00003.tfrecord" for k in range(3))
    of_numbers = [_record(b"%d" % (1000 + k), content[k]) for k in range(3)]
    huge = _record(b"9" * 5000, content[0])  # more digits than Python makes a number of
    _write(a, [*of_numbers, b"no example", _record(b"x", b"no picture"), huge])
    names = (columns.TFDS_NAMES[schema.IMAGE_SOURCE_ID], columns.TFDS_IMAGE)
    _write(b, [_record(b"0%d" % k, content[k], names) for k in range(3, 6)])
    damaged = bytearray(b.read_bytes())
    damaged[len(damaged) // 2] ^= 1  # the content of the second
    b.write_bytes(damaged)
    of_two = [_record(b"-7", content[7]), _record(b"\xd9\xa8", content[8])]  # an Arabic 8
    _write(c, of_two)
    with open(c, "ab") as file:
        file.write(b"\x10\x00\x00\x00\x00\x00")  # ends in a length
    out = tmp_path / "out"
    code = prediction_run.run(
        model_path, str(out), IN_MEMORY, records=[str(tmp_path / "a-*.tfrecord")]
    )
    assert code == 1
    ids = {0: 1000, 1: 1001, 2: 1002, 3: "03", 5: "05", 7: -7, 8: "\u0668"}
    names = {f"Über füße/{k:02d} [1].png": name for k, name in ids.items()}
    rows = [
        row | {"image_id": names[row["image_id"]]}
        for row in expected[0]
        if row["image_id"] in names
    ]
    assert _sorted(_lines(out, "detections")) == _sorted(rows)
    unread = {row["image_id"]: row["why"] for row in _lines(out, "unread")}
    assert set(unread) == {
        "x", f"{a}: record 4", f"{a}: record 6", f"{b}: record 2", f"{c}: record 3"
    }  # fmt: skip
    assert "its content does not fit its checksum" in unread[f"{b}: record 2"]
    assert "its length is damaged" in unread[f"{c}: record 3"]
    counts = {"images": 12, "predicted": 7, "unread": 5, "detections": len(rows)}
    assert _counts(out) == counts


def test_what_storage_fails_to_give_is_asked_for_again(
    model_path, folder, expected, tmp_path, monkeypatch
):
    """Five images: three fail at first, one always, one is absent. Then the list, once more."""
    names = [f"Über füße/{k:02d} [1].png" for k in (1, 2, 3, 4)] + ["Über füße/absent.png"]
    num_failures = {
        str(folder / names[0]): (OSError(errno.EIO, "Input/output error"), 1),
        str(folder / names[1]): (tf.errors.UnavailableError(None, None, "503"), 2),
        str(folder / names[2]): (MemoryError(), 1),
        str(folder / names[3]): (OSError(errno.ESTALE, "Stale file handle"), 99),
    }
    attempts = collections.Counter()
    read = storage.read

    def read_or_fail(path, *given):
        attempts[path] += 1
        error, count = num_failures.get(path, (None, 0))
        if attempts[path] <= count:
            raise error
        return read(path, *given)

    manifest, out = tmp_path / "some.txt", tmp_path / "out"
    manifest.write_text("".join(f"{folder / name}\n" for name in names), "utf-8")
    monkeypatch.setattr(prediction, "_PAUSES", (0.001, 0.001, 0.001))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", read_or_fail)
        assert prediction_run.run(model_path, str(out), IN_MEMORY, manifest=str(manifest)) == 1
    assert [attempts[str(folder / name)] for name in names] == [2, 3, 2, 4, 1]
    unread = {row["image_id"]: row["why"] for row in _lines(out, "unread")}
    assert unread == {
        str(folder / names[3]): "the file cannot be read: Stale file handle",
        str(folder / names[4]): "the file cannot be read: No such file or directory",
    }
    rows = [row | {"image_id": str(folder / row["image_id"])} for row in expected[0]]
    readable = {str(folder / name) for name in names[:3]}
    assert _sorted(_lines(out, "detections")) == _sorted(
        row for row in rows if row["image_id"] in readable
    )

    again, anew = tmp_path / "again.jsonl", tmp_path / "anew"
    again.write_bytes(b"".join(path.read_bytes() for path in out.glob("unread-*.jsonl")))
    assert prediction_run.run(model_path, str(anew), IN_MEMORY, manifest=str(again)) == 1
    assert _sorted(_lines(anew, "detections")) == _sorted(
        row for row in rows if row["image_id"] == str(folder / names[3])
    )
    assert [row["image_id"] for row in _lines(anew, "unread")] == [str(folder / names[4])]


def test_a_record_file_that_cannot_be_read_for_a_moment_is_not_one_unread_image(
    model_path, folder, tmp_path, monkeypatch
):
    content = (folder / "Über füße/00 [1].png").read_bytes()
    file = tmp_path / "a-00000-of-00001.tfrecord"
    _write(file, [_record(b"%d" % k, content) for k in range(3)])
    num_attempts, look = 0, damage._damages_of

    def fail_at_first(*given):
        nonlocal num_attempts
        num_attempts += 1
        if num_attempts == 1:
            raise OSError(errno.EIO, "Input/output error")
        return look(*given)

    monkeypatch.setattr(damage, "_damages_of", fail_at_first)
    out = tmp_path / "out"
    with pytest.raises(running.PipelineError, match=rf"{file}: cannot be read \(Input/"):
        prediction_run.run(model_path, str(out), IN_MEMORY, records=[str(file)])
    assert not (out / "counts.json").exists()
    num_attempts = 0
    assert prediction_run.run(model_path, str(out), RETRIES, records=[str(file)]) == 0
    assert num_attempts == 2
    assert _counts(out)["predicted"] == 3


def test_beam_knows_the_options_that_the_docs_name(caplog, capsys):
    blocks = re.findall("```sh\n(.*?)```", (ROOT / "docs/beam.md").read_text("utf-8"), re.DOTALL)
    commands = " ".join(blocks).replace("\\\n", " ").splitlines()
    given = [line.partition(" -- ")[2].split() for line in commands if " -- " in line]
    assert {"--runner=DataflowRunner", "--runner=FlinkRunner", "--runner=SparkRunner"} <= {
        option for options in given for option in options
    }
    for options in given:
        running.options(options)
    assert not capsys.readouterr().out
    assert "unparseable" not in caplog.text


@pytest.mark.parametrize(
    ("options", "unknown"),
    [
        (["--runer=DataflowRunner", "--project=p"], "--runer=DataflowRunner"),
        (["--no_such_option", "--region=r", "--a-b=1"], "--no_such_option --a-b=1"),
    ],
)
def test_a_typing_error_does_not_run_the_job_on_this_machine(options, unknown, capsys):
    with pytest.raises(ValueError, match=f"^{unknown}: not options of Beam's, and there is no --r"):
        running.options(options)
    running.options([*options, "--runner=FlinkRunner"])
    printed = capsys.readouterr().out
    assert printed == f"not options of Beam's, perhaps of the runner's: {unknown}\n"


def test_what_is_wrong_with_input_and_output_is_known_before_the_network_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    absent, out = str(tmp_path / "absent"), str(tmp_path / "out")
    for output_dir, given, error, text in (
        (str(tmp_path / "file"), {"manifest": __file__}, FileExistsError, "file"),
        (str(tmp_path / "file/out"), {"manifest": __file__}, NotADirectoryError, "file/out"),
        (out, {"manifest": absent}, FileNotFoundError, f"{absent}: there is no such file"),
        (out, {"records": [absent]}, FileNotFoundError, f"no record file matches '{absent}'"),
        (out, {"inputs": [absent]}, FileNotFoundError, f"{absent}: there is no such file"),
        (out, {"inputs": [str(tmp_path / "empty")]}, FileNotFoundError, "nothing in it"),
        (out, {"manifest": __file__}, FileNotFoundError, f"{absent} holds no SavedModel"),
    ):
        with pytest.raises(error, match=re.escape(text)):
            prediction_run.run(absent, output_dir, IN_MEMORY, **given)
    assert not list((tmp_path / "out").iterdir())


def _command(*options):
    command = [sys.executable, "-m", "mrcnn_tf.predict_beam", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_in_two_processes(model_path, folder, expected, tmp_path):
    flags = [f"--saved_model={model_path}", f"--output_dir={tmp_path}"]
    both = _command(*flags, f"--input={folder}", "--records=x")
    assert (both.returncode, both.stdout) == (
        2, "give one of --input=IMAGES, --manifest=FILE and --records=GLOB\n"
    )  # fmt: skip
    done = _command(*flags, f"--input={folder}", "--", *beam_workers.PROCESSES)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "detections in 41 images" in done.stdout
    assert _sorted(_lines(tmp_path, "detections")) == _sorted(expected[0])


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_a_new_run_but_no_image(
    model_path, folder, expected, tmp_path
):
    """SIGKILL in the middle, Ctrl-C where the runner waits for ever, the same command again."""
    manifest = tmp_path / "images.jsonl"
    names = [f"Über füße/{k:02d} [1].png" for k in range(40)]
    rows = [{"path": str(folder / names[k % 40]), "image_id": k} for k in range(3000)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mrcnn_tf.predict_beam", f"--saved_model={model_path}"]
    command += [f"--manifest={manifest}", f"--output_dir={out}", "--", *beam_workers.PROCESSES]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        beam_workers.wait_until(lambda: len(beam_workers.of(process.pid)) == 2, process, 300)
        time.sleep(8)  # TensorFlow is started and the network loaded
        os.kill(beam_workers.of(process.pid)[0], signal.SIGKILL)
        assert beam_workers.end(process) != 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
    assert not (out / "counts.json").exists()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _counts(out)["predicted"] == 3000
    found = collections.Counter(row["image_id"] for row in _lines(out, "detections"))
    of_name = collections.Counter(row["image_id"] for row in expected[0])
    assert found == {k: of_name[names[k % 40]] for k in range(3000)}
