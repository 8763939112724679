"""A film and a network in, lines and a drawn film out; the network is one that goes by colour."""

import json
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from mrcnn_tf.images import drawing
from mrcnn_tf.remote.failures import ServerError
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.serving import answers, film_source, predictor

av = pytest.importorskip("av", reason="films need PyAV: pip install 'mrcnn-tf[video]'")

from mrcnn_tf.serving import film_reader, film_run, film_writer  # noqa: E402
from tests.serving import films  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
RED_SCORE, GREEN_SCORE = 0.9, 0.4


class ByColor:
    """Finds what is red (category 3) and what is green (5); its canvas is the frame.

    Attributes:
      batches: frames of each call.
      before_call: called with the number of calls before.
    """

    suggested_score_threshold = None

    def __init__(self):
        self.batches = []
        self.before_call = lambda count: None

    def prepare(self, image):
        return predictor.Prepared(image.pixels.shape[:2], image.pixels)

    def call(self, batch):
        self.before_call(len(self.batches))
        self.batches.append(len(batch))
        assert len({one.canvas_hw for one in batch}) == 1
        return {"pixels": np.stack([one.request for one in batch]).astype(int)}

    def read(self, answer, row):
        red, green, blue = np.moveaxis(answer["pixels"][row], -1, 0)
        found = []
        for pixels, category_id, name, score in (
            (red - green > 80, 3, "red", RED_SCORE),
            (green - red > 80, 5, "green", GREEN_SCORE),
        ):
            if pixels.any():
                rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
                box = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], np.float64)
                mask = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
                found.append(Detection(box, score, category_id, name, mask))
        return found


@pytest.fixture
def network(monkeypatch):
    """The network that the run loads."""
    network = ByColor()
    monkeypatch.setattr(predictor, "Predictor", lambda path: network)
    return network


def run(path, out, threshold=0.3, batch_size=1, **options):
    """Run; return (exit code, lines)."""
    source = path if isinstance(path, film_source.Source) else film_source.find([path])
    code = film_run.run("model", source, str(out), threshold, batch_size, **options)
    return code, lines_of(out / "detections.jsonl")


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def color_at(path, k, y, x):
    return films.pictures(path)[k][y, x].astype(int)


def tinted(color, track_id):
    """What a pixel inside a mask becomes."""
    return 0.55 * np.array(color) + 0.45 * drawing.colors_of([track_id])[0]


def test_a_film_with_sound(network, tmp_path, capsys):
    path = films.make(tmp_path / "a.mp4", count=20)
    code, lines = run(path, tmp_path / "out")
    assert code == 0
    assert [line["frame"] for line in lines] == list(range(20))
    np.testing.assert_allclose([line["time"] for line in lines], np.arange(20) / 10)
    for k, line in enumerate(lines):
        red, green = line["detections"]
        assert (red["image_id"], red["category_id"], red["category"]) == (k, 3, "red")
        assert (red["score"], green["score"]) == (RED_SCORE, GREEN_SCORE)
        np.testing.assert_allclose(red["bbox"], [10 + 2 * k, 10, 30, 30], atol=2)
        np.testing.assert_allclose(green["bbox"], [90 - 2 * k, 50, 30, 30], atol=2)
        assert coco_mask.decode(red["segmentation"]).shape == (96, 128)
        assert (red["track_id"], green["track_id"]) == (1, 2)
    drawn = str(tmp_path / "out/drawn/a.mp4")
    np.testing.assert_allclose(films.times(drawn), films.times(path), atol=1e-3)
    assert films.sound(drawn) == films.sound(path)
    for k in (0, 7, 19):
        at_red, at_green = color_at(drawn, k, 30, 25 + 2 * k), color_at(drawn, k, 65, 105 - 2 * k)
        np.testing.assert_allclose(at_red, tinted(films.RED, 1), atol=12)
        np.testing.assert_allclose(at_green, tinted(films.GREEN, 2), atol=12)
        np.testing.assert_allclose(color_at(drawn, k, 90, 5), [90, 90, 90], atol=12)
    printed = capsys.readouterr().out
    assert "a.mp4: about 20 frames of 128 x 96 at 10 frames per second, audio copied" in printed
    assert "20/20 frames" in printed
    assert "40 detections in 20 of 20 frames" in printed
    assert sorted(p.name for p in tmp_path.rglob("out/**/*.*")) == ["a.mp4", "detections.jsonl"]


def test_between_the_frames_looked_at_the_last_known_objects_are_shown(network, tmp_path):
    path = films.make(tmp_path / "a.mp4", count=18, audio=None)
    code, lines = run(path, tmp_path / "out", every_nth=8)
    assert code == 0
    assert [line["frame"] for line in lines] == [0, 8, 16]
    assert [d["track_id"] for line in lines for d in line["detections"]] == [1, 2] * 3
    assert sum(network.batches) == 3
    drawn = str(tmp_path / "out/drawn/a.mp4")
    assert len(films.times(drawn)) == 18
    # In frame 7 red has moved on by 14; its mask of frame 0 is still drawn on what is grey by then.
    np.testing.assert_allclose(color_at(drawn, 7, 32, 17), tinted([90] * 3, 1), atol=12)
    np.testing.assert_allclose(color_at(drawn, 7, 30, 46), films.RED, atol=12)
    np.testing.assert_allclose(color_at(drawn, 8, 32, 50), tinted(films.RED, 1), atol=12)


def test_batches_and_skipped_frames_change_no_line(network, tmp_path):
    path = films.make(tmp_path / "a.mp4", count=30, audio=None)
    _, expected = run(path, tmp_path / "1")
    _, batched = run(path, tmp_path / "4", batch_size=4)
    assert network.batches == [1] * 30 + [4] * 7 + [2]
    assert batched == expected
    network.batches.clear()
    _, some = run(path, tmp_path / "3", batch_size=4, every_nth=3)
    assert sum(network.batches) == 10
    assert [line["detections"] for line in some] == [line["detections"] for line in expected[::3]]


def test_only_what_is_above_the_threshold_is_drawn(network, tmp_path):
    path = films.make(tmp_path / "a.mp4", count=3, audio=None)
    _, lines = run(path, tmp_path / "out", threshold=0.5)
    assert all(len(line["detections"]) == 2 for line in lines)
    drawn = str(tmp_path / "out/drawn/a.mp4")
    np.testing.assert_allclose(color_at(drawn, 0, 65, 105), films.GREEN, atol=12)
    np.testing.assert_allclose(color_at(drawn, 0, 30, 25), tinted(films.RED, 1), atol=12)


def test_nothing_is_drawn_with_nodraw(network, tmp_path):
    path = films.make(tmp_path / "a.mp4", count=3)
    _, lines = run(path, tmp_path / "out", draw_film=False)
    assert len(lines) == 3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["detections.jsonl"]


def test_max_frames(network, tmp_path):
    path = films.make(tmp_path / "a.mp4", count=30)
    code, lines = run(path, tmp_path / "out", max_frames=7)
    assert (code, len(lines)) == (0, 7)
    assert len(films.times(str(tmp_path / "out/drawn/a.mp4"))) == 7


def test_an_object_that_comes_later_and_one_that_goes_and_returns(network, tmp_path):
    def frame(k):
        shapes = {} if 4 <= k < 7 else {films.RED: (10, 10, 40, 40)}
        return films.picture(shapes | ({films.GREEN: (50, 50, 80, 80)} if k >= 2 else {}))

    path = films.make(tmp_path / "a.mp4", frame, count=10, audio=None)
    _, lines = run(path, tmp_path / "out")
    numbers = [{d["category"]: d["track_id"] for d in line["detections"]} for line in lines]
    both, green = {"red": 1, "green": 2}, {"green": 2}
    assert numbers == [{"red": 1}] * 2 + [both] * 2 + [green] * 3 + [both] * 3


def test_interrupted(network, tmp_path, capsys):
    """What was done stays, playable, under provisional names."""
    path = films.make(tmp_path / "a.mp4", count=90)

    def interrupt(count):
        if count == 66:
            raise KeyboardInterrupt

    network.before_call = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(path, tmp_path / "out")
    lines_path = tmp_path / "out/detections.jsonl.incomplete"
    drawn = tmp_path / "out/drawn/a.incomplete.mp4"
    assert f"what was done until then is in {lines_path} and {drawn}\n" in capsys.readouterr().out
    assert not (tmp_path / "out/detections.jsonl").exists()
    assert not (tmp_path / "out/drawn/a.mp4").exists()
    lines = lines_of(lines_path)
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert 45 < len(lines) <= 66
    times = films.times(str(drawn))
    assert 40 < len(times) <= len(lines)  # fragments alone would hold 40 at most
    np.testing.assert_allclose(times, np.arange(len(times)) / 10, atol=1e-3)
    kept = films.sound(str(drawn))
    assert kept == films.sound(path)[: len(kept)]
    assert len(kept) > 180
    # Another run takes the place of what is there.
    network.before_call = lambda count: None
    code, lines = run(path, tmp_path / "out")
    assert (code, len(lines)) == (0, 90)
    assert sorted(p.name for p in tmp_path.rglob("out/**/*.*")) == ["a.mp4", "detections.jsonl"]


def test_a_network_that_fails(network, tmp_path):
    def fail(count):
        if count == 10:
            raise ValueError("no memory")

    network.before_call = fail
    path = films.make(tmp_path / "a.mp4", count=20)
    with pytest.raises(ValueError, match="no memory"):
        run(path, tmp_path / "out")
    assert films.times(str(tmp_path / "out/drawn/a.incomplete.mp4"))


def test_a_film_that_breaks_off_keeps_what_was_done(network, tmp_path, capsys):
    path = films.make(tmp_path / "a.mp4", count=60, options={"movflags": "faststart"})
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) * 6 // 10])
    code, lines = run(path, tmp_path / "out")
    assert code == 1
    assert 20 < len(lines) < 60
    assert len(films.times(str(tmp_path / "out/drawn/a.mp4"))) == len(lines)
    printed = capsys.readouterr().out
    assert f"BROKEN OFF a.mp4 after {len(lines)} frames: the file says that there are" in printed


def test_a_film_without_one_good_frame(network, tmp_path, capsys):
    path = films.make(tmp_path / "a.mp4", count=5, audio=None)
    with av.open(path) as container:
        packets = [(p.pos, p.size) for p in container.demux() if p.size]
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    for start, size in packets:
        content[start : start + size] = bytes(size)
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mp4: not one of its frames can be decoded"):
        run(path, tmp_path / "out")
    assert "incomplete" not in capsys.readouterr().out


@pytest.fixture
def camera(monkeypatch):
    """A camera that has a picture whenever it is asked, without end."""
    monkeypatch.setattr(film_reader, "_CAMERA_FORMAT", "lavfi")
    return film_source.Source("camera0", "testsrc=size=64x48:rate=30", True)


def test_a_camera_ends_after_max_frames(network, camera, tmp_path):
    code, lines = run(camera, tmp_path / "out", max_frames=12, every_nth=3)
    assert (code, len(lines)) == (0, 4)
    drawn = str(tmp_path / "out/drawn/camera0.mp4")
    assert len(films.times(drawn)) == 12
    looked_at = [line["frame"] for line in lines]
    assert looked_at[0] >= 0
    assert (np.diff(looked_at) >= 3).all()


def test_ctrl_c_is_the_end_of_a_camera(network, camera, tmp_path, capsys):
    def interrupt(count):
        if count == 20:
            raise KeyboardInterrupt

    network.before_call = interrupt
    code, lines = run(camera, tmp_path / "out")
    assert code == 0
    assert lines
    assert films.times(str(tmp_path / "out/drawn/camera0.mp4"))
    assert sorted(p.name for p in tmp_path.rglob("out/**/*.*")) == [
        "camera0.mp4",
        "detections.jsonl",
    ]


def test_a_long_film_does_not_pile_up(network, tmp_path, monkeypatch):
    """However slow the network is, few frames are decoded before they can be used."""
    path = films.make(
        tmp_path / "a.mp4", count=200, audio=None, video_options={"preset": "ultrafast"}
    )
    num_read, ahead = 0, []
    frames = film_reader.FilmReader.frames

    def counted(self):
        nonlocal num_read
        for frame in frames(self):
            num_read += 1
            yield frame

    monkeypatch.setattr(film_reader.FilmReader, "frames", counted)
    network.before_call = lambda count: ahead.append(num_read - sum(network.batches))
    threads = threading.active_count()
    assert run(path, tmp_path / "out", batch_size=2)[0] == 0
    assert 2 <= max(ahead) <= 12
    num_read = 0
    ahead.clear()
    network.batches.clear()
    assert run(path, tmp_path / "out", batch_size=8, every_nth=50)[0] == 0
    assert num_read == 200
    assert threading.active_count() <= threads + 5


def test_outputs_are_on_this_machine(network, tmp_path):
    path = films.make(tmp_path / "a.mp4", count=2)
    with pytest.raises(ValueError, match="ram://out: what is found in films is written on this"):
        film_run.run("model", film_source.find([path]), "ram://out", 0.5, 1)


def test_a_film_is_not_written_over(network, tmp_path):
    (tmp_path / "drawn").mkdir()
    path = films.make(tmp_path / "drawn/a.mp4", count=2)
    with pytest.raises(ValueError, match=r"a\.mp4: the drawn film would take its place"):
        run(path, tmp_path)
    assert len(films.times(path)) == 2


def test_a_disk_that_fails_in_the_end(network, tmp_path, monkeypatch, capsys):
    def fail(self):
        raise OSError("disk full")

    monkeypatch.setattr(film_writer.FilmWriter, "complete", fail)
    path = films.make(tmp_path / "a.mp4", count=2)
    with pytest.raises(OSError, match="disk full"):
        run(path, tmp_path / "out")
    assert f"until then is in {tmp_path}/out/drawn/a.incomplete.mp4\n" in capsys.readouterr().out
    assert len(lines_of(tmp_path / "out/detections.jsonl")) == 2


def test_a_film_of_another_file_system(network, tmp_path):
    path = films.make(tmp_path / "a.mp4", count=5)
    with tf.io.gfile.GFile("ram://films/a.mp4", "wb") as file:
        file.write((tmp_path / "a.mp4").read_bytes())
    code, lines = run("ram://films/a.mp4", tmp_path / "out")
    assert (code, len(lines)) == (0, 5)
    assert films.sound(str(tmp_path / "out/drawn/a.mp4")) == films.sound(path)


def command(model_path, *flags):
    return [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={model_path}", *flags]


def test_the_command(export, tmp_path):
    """A real SavedModel: a film with sound, all flags."""
    path = films.make(tmp_path / "a.mp4", count=9)
    flags = [f"--input={path}", f"--output_dir={tmp_path / 'out'}", "--every_nth=2"]
    flags += ["--max_frames=8", "--score_threshold=0.6", "--batch_size=2"]
    done = subprocess.run(
        command(export("image_bytes"), *flags),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = lines_of(tmp_path / "out/detections.jsonl")
    assert [line["frame"] for line in lines] == [0, 2, 4, 6]
    for line in lines:
        (red,) = [d for d in line["detections"] if d["category"] == "Röhre"]
        assert red["track_id"] == 1
        np.testing.assert_allclose(red["bbox"], [10 + 2 * line["frame"], 10, 30, 30], atol=3)
    drawn = str(tmp_path / "out/drawn/a.mp4")
    assert len(films.times(drawn)) == 8
    kept = films.sound(drawn)
    assert kept == films.sound(path)[: len(kept)]
    assert len(kept) > 20


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_interrupted(export, tmp_path, number, code):
    path = films.make(tmp_path / "a.mp4", count=3000, audio=None)
    running = subprocess.Popen(
        command(export("image_bytes"), f"--input={path}", f"--output_dir={tmp_path / 'out'}"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in running.stdout:
        if line.startswith("predicting") and not line.startswith("predicting 0/"):
            break
    running.send_signal(number)
    printed, errors = running.communicate(timeout=60)
    assert running.returncode == code, errors
    assert "a.incomplete.mp4" in printed
    assert "Traceback" not in errors
    times = films.times(str(tmp_path / "out/drawn/a.incomplete.mp4"))
    np.testing.assert_allclose(times, np.arange(len(times)) / 10, atol=1e-3)
    assert 10 < len(times) < 3000


def test_without_pyav_the_command_says_what_installs_it(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    program = f"""
import runpy, sys
sys.modules["av"] = None
sys.argv = ["predict", "--saved_model=m", "--input={tmp_path / "a.mp4"}", "--output_dir={tmp_path}"]
runpy.run_module("mrcnn_tf.predict", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs packages that are not installed (av)" in done.stderr
    assert "pip install 'mrcnn-tf[video]'" in done.stderr


def test_flags_of_films_with_images_are_a_mistake(tmp_path):
    done = subprocess.run(
        command("m", f"--input={tmp_path}", f"--output_dir={tmp_path}", "--every_nth=2"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == "--every_nth and --max_frames are for a film or a camera as --input\n"


def test_frames_that_a_server_does_not_answer(network, tmp_path, capsys):
    """Two calls fail and one frame is refused: the others are looked at, and the exit code is 1."""
    path = films.make(tmp_path / "a.mp4", count=10)
    refusing(network, failed=[3, 4])
    read = network.read

    def refuse_the_eighth(answer, row):
        if answer["call"] == 7:
            raise answers.RefusedPictureError("on the server: undecodable")
        return read(answer, row)

    network.read = refuse_the_eighth
    code, lines = run(path, tmp_path / "out")
    assert code == 1
    assert [line["frame"] for line in lines] == [0, 1, 2, 5, 6, 8, 9]
    assert len(films.times(str(tmp_path / "out/drawn/a.mp4"))) == 10
    printed = capsys.readouterr().out
    assert "FAILED a.mp4, frame 3: busy\nFAILED a.mp4, frame 4: busy\n" in printed
    assert "FAILED a.mp4, frame 7: on the server: undecodable\n" in printed


def test_a_server_that_is_gone(network, tmp_path, capsys):
    path = films.make(tmp_path / "a.mp4", count=10)
    calls = refusing(network, failed=range(5, 10))
    with pytest.raises(ServerError, match="busy"):
        run(path, tmp_path / "out")
    assert len(calls) == 8
    assert len(lines_of(tmp_path / "out/detections.jsonl.incomplete")) == 5


def refusing(network, failed):
    """Let calls fail, counted from 0; return the list of all calls."""
    calls, call = [], network.call

    def answer(batch):
        calls.append(len(batch))
        if len(calls) - 1 in failed:
            raise ServerError("busy")
        return call(batch) | {"call": len(calls) - 1}

    network.call = answer
    return calls
