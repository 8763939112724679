"""The command on folders as people have them: odd names, broken files, turned and huge images."""

import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.images import reading
from mrcnn_tf.serving import image_run, predictor, results_file

RED, GREEN = (255, 0, 0), (0, 255, 0)
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model_path(export):
    return str(export("image_bytes"))


@pytest.fixture
def folder(tmp_path, draw_rectangles):
    """Good images, one in a sub-folder, and two files that are not images."""
    (tmp_path / "in/Über füße").mkdir(parents=True)
    scene = Image.fromarray(draw_rectangles(100, 160, {RED: (20, 40, 60, 100)}))
    scene.save(tmp_path / "in/Über füße/ein Bild [1].png")
    Image.fromarray(draw_rectangles(80, 60, {GREEN: (40, 0, 80, 30)})).save(tmp_path / "in/b.webp")
    Image.new("RGB", (1, 1), RED).save(tmp_path / "in/one.png")
    (tmp_path / "in/broken.jpg").write_bytes(b"\xff\xd8\xff nothing behind it")
    (tmp_path / "in/cut.png").write_bytes(
        (tmp_path / "in/Über füße/ein Bild [1].png").read_bytes()[:3000]
    )
    (tmp_path / "in/notes.txt").write_text("no image")
    (tmp_path / "in/.hidden.png").write_bytes(b"not looked at")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("input_type", "batch_size"), [("image_bytes", 2), ("image_tensor", 3), ("tf_example", 1)]
)
def test_folder(export, folder, tmp_path, capsys, input_type, batch_size):
    out = tmp_path / "out"
    code = image_run.run(str(export(input_type)), str(folder), str(out), 0.6, batch_size)
    printed = capsys.readouterr().out
    assert code == 1
    assert "FAILED broken.jpg: begins as a JPEG image does, but is broken" in printed
    assert "FAILED cut.png: Invalid PNG data" in printed
    assert "PASSED OVER notes.txt: not an image\n" in printed
    assert "hidden" not in printed
    assert printed.count("FAILED") == 2
    assert "5/5 images" in printed
    rows = json.loads((out / "detections.json").read_text(encoding="utf-8"))
    assert [r["image_id"] for r in rows] == ["b.webp", "one.png", "Über füße/ein Bild [1].png"]
    assert [r["category"] for r in rows] == ["green", "Röhre", "Röhre"]
    assert [r["category_id"] for r in rows] == [2**24 + 1, 17, 17]
    assert [r["score"] for r in rows] == [0.5, 0.75, 0.75]
    np.testing.assert_allclose(rows[2]["bbox"], [40, 20, 60, 40], atol=1.6)
    # The fake mask is the left half of its box.
    mask = coco_mask.decode(rows[2]["segmentation"])
    assert mask.shape == (100, 160)
    assert mask[25:55, 45:65].all()
    assert not mask[:, 75:].any()
    np.testing.assert_allclose(mask.sum(), 30 * 40, rtol=0.1)
    drawn = {p.relative_to(out / "drawn").as_posix() for p in (out / "drawn").rglob("*.*")}
    assert drawn == {"b.webp.png", "one.png", "Über füße/ein Bild [1].png"}
    assert not list(out.glob("*.incomplete"))


def test_drawing_shows_scores_above_the_threshold(model_path, folder, tmp_path):
    out = tmp_path / "out"
    image_run.run(model_path, str(folder / "b.webp"), str(out), 0.6, 1)
    below = np.asarray(Image.open(out / "drawn/b.webp.png"))
    image_run.run(model_path, str(folder / "b.webp"), str(out), 0.4, 1)
    above = np.asarray(Image.open(out / "drawn/b.webp.png"))
    assert below.shape == above.shape
    assert (below != above).any()
    factor = below.shape[0] // 80  # small images are drawn enlarged
    original = np.asarray(Image.open(folder / "b.webp"))
    np.testing.assert_array_equal(below[::factor, ::factor], original)


def test_exif_orientation_is_applied(model_path, tmp_path, draw_rectangles, capsys):
    """Stored on its side, with the tag that says so: results are in the upright frame."""
    upright = Image.fromarray(draw_rectangles(100, 160, {RED: (20, 40, 60, 100)}))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert image_run.run(model_path, str(tmp_path), str(tmp_path / "out"), 0.5, 1) == 0
    assert "1 turned upright" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "out/detections.json").read_text())
    assert row["segmentation"]["size"] == [100, 160]
    np.testing.assert_allclose(row["bbox"], [40, 20, 60, 40], atol=1.6)


def test_huge_image(model_path, tmp_path, draw_rectangles):
    huge = Image.fromarray(draw_rectangles(4000, 6000, {RED: (1000, 3000, 2500, 5000)}))
    huge.save(tmp_path / "a.jpg", quality=90)
    assert image_run.run(model_path, str(tmp_path), str(tmp_path / "out"), 0.5, 1) == 0
    (row,) = json.loads((tmp_path / "out/detections.json").read_text())
    np.testing.assert_allclose(row["bbox"], [3000, 1000, 2000, 1500], atol=46)
    assert Image.open(tmp_path / "out/drawn/a.jpg").size == (6000, 4000)


def test_one_bad_image_does_not_take_its_batch_along(
    export_of_0_1_0, folder, tmp_path, monkeypatch, capsys
):
    """Pillow can read it but an old export cannot decode it: the batch is sent one by one."""
    scene = folder / "Über füße/ein Bild [1].png"
    for name in ("a.png", "odd.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(scene.read_bytes())
    read = reading.read

    def read_some_wrongly(path, **options):
        image = read(path, **options)
        return image._replace(file=b"odd") if "odd" in str(path) else image

    monkeypatch.setattr(reading, "read", read_some_wrongly)
    out = tmp_path / "out"
    inputs = [str(tmp_path / "in" / name) for name in ("a.png", "odd.png", "c.png")]
    assert image_run.run(str(export_of_0_1_0("image_bytes")), inputs, str(out), 0.5, 3) == 1
    assert "FAILED odd.png: Unknown image file format" in capsys.readouterr().out
    rows = json.loads((out / "detections.json").read_text())
    assert [r["image_id"] for r in rows] == ["a.png", "c.png"]


@pytest.mark.parametrize("input_type", ["image_bytes", "image_tensor", "tf_example"])
def test_exports_of_0_1_0_find_the_same(export, export_of_0_1_0, shared, tmp_path, input_type):
    """They decode once more, in the graph; turned and gray photos among the images."""
    images = str(shared / "data/conformance/odd_cases/images")
    outs = [tmp_path / "old", tmp_path / "new"]
    models = [export_of_0_1_0(input_type), export("image_bytes")]
    for model, out in zip(models, outs, strict=True):
        assert image_run.run(str(model), images, str(out), 0.5, 1) == 0
    old, new = ((out / "detections.json").read_bytes() for out in outs)
    assert old == new


def test_batches_share_a_canvas_and_rows_keep_their_order(
    model_path, draw_rectangles, tmp_path, monkeypatch
):
    """Landscapes and portraits in turn: no call sees both, and the file has them in turn."""
    calls = []
    call = predictor.Predictor.call

    def note(self, batch):
        calls.append([image.canvas_hw for image in batch])
        return call(self, batch)

    monkeypatch.setattr(predictor.Predictor, "call", note)
    (tmp_path / "in").mkdir()
    for k in range(12):
        height, width = ((80, 120), (120, 80))[k % 2]
        pixels = draw_rectangles(height, width, {RED: (10, 10 + k, 60, 50)})
        Image.fromarray(pixels).save(tmp_path / f"in/{k:02d}.png")
    out = tmp_path / "out"
    assert image_run.run(model_path, str(tmp_path / "in"), str(out), 0.5, 2, False) == 0
    assert sum(map(len, calls)) == 12
    assert [len(c) for c in calls] == [2] * 6
    assert {(canvas,) for batch in calls for canvas in batch} == {((128, 192),), ((192, 128),)}
    assert all(len(set(batch)) == 1 for batch in calls)
    rows = json.loads((out / "detections.json").read_text())
    assert [r["image_id"] for r in rows] == [f"{k:02d}.png" for k in range(12)]
    for k, row in enumerate(rows):
        np.testing.assert_allclose(row["bbox"], [10 + k, 10, 40 - k, 50], atol=1.6)


def test_nothing_is_drawn_with_nodraw(model_path, folder, tmp_path):
    """The command: the same detections, no pictures."""
    drawn, plain = tmp_path / "drawn", tmp_path / "plain"
    image_run.run(model_path, str(folder), str(drawn), 0.5, 2)
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={model_path}", "--nodraw"]
    command += [f"--input={folder}", f"--output_dir={plain}", "--batch_size=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "are drawn" not in done.stdout
    assert {path.name for path in plain.iterdir()} == {"detections.json", "unread.json"}
    assert (plain / "detections.json").read_bytes() == (drawn / "detections.json").read_bytes()


def test_each_file_is_decoded_once(model_path, folder, tmp_path, monkeypatch):
    decoded = []
    decode = reading.decode
    monkeypatch.setattr(
        reading, "decode", lambda raw, *more: decoded.append(raw) or decode(raw, *more)
    )
    monkeypatch.setattr(reading, "encode", None)
    image_run.run(model_path, str(folder), str(tmp_path / "out"), 0.5, 2)
    assert len(decoded) == len(set(decoded)) == 4  # of one file, the header is broken


@pytest.mark.parametrize(
    ("number", "said", "code"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "stopped by SIGTERM", 143)],
)
def test_interrupted(model_path, draw_rectangles, tmp_path, number, said, code):
    """What is there stays under its provisional name, a whole list, and the command ends."""
    (tmp_path / "in").mkdir()
    for k in range(3000):
        pixels = draw_rectangles(20, 30, {RED: (5, 5, 15, 15)})
        Image.fromarray(pixels).save(tmp_path / f"in/{k:04d}.bmp")
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={model_path}"]
    command += [f"--input={tmp_path / 'in'}", f"--output_dir={tmp_path / 'out'}"]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in running.stdout:
        if line.startswith("first call took"):
            break
    running.send_signal(number)
    printed, errors = running.communicate(timeout=60)
    assert running.returncode == code, errors
    assert f"is in {tmp_path / 'out/detections.json.incomplete'}\n{said}\n" in printed
    assert "Traceback" not in errors
    assert not (tmp_path / "out/detections.json").exists()
    assert json.loads((tmp_path / "out/detections.json.incomplete").read_text()) is not None


def test_interrupted_before_anything_was_found(model_path, monkeypatch, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "Predictor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        image_run.run(model_path, str(tmp_path / "a.png"), str(tmp_path / "out"), 0.5, 1)
    assert "incomplete" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_interrupted_results_get_no_name(tmp_path):
    def interrupted():
        with results_file.ResultsFile(str(tmp_path / "r.json")) as results:
            results.add({"score": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "r.json").exists()


def test_what_may_have_been_meant_is_named(tmp_path):
    for version in ("2", "10"):
        (tmp_path / "models/shapes" / version).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"its newest version is .*models/shapes/10$"):
        predictor.Predictor(str(tmp_path / "models/shapes"))
    with pytest.raises(FileNotFoundError, match=r"that is --model=a\.tflite$"):
        predictor.Predictor("a.tflite")


def test_foreign_saved_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no SavedModel; write one with python -m"):
        predictor.Predictor(str(tmp_path))
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(ValueError, match="is not from mrcnn_tf.export"):
        predictor.Predictor(str(tmp_path / "m"))


def test_command_line_without_training_packages(model_path, folder, tmp_path):
    """The real command, in an interpreter without tf_keras and tf-models-official."""
    program = f"""
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tf_keras", "official"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["predict", "--saved_model={model_path}", "--input={folder}",
            "--output_dir={tmp_path / "out"}", "--batch_size=4"]
runpy.run_module("mrcnn_tf.predict", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert "FAILED broken.jpg" in done.stdout
    assert done.stderr == ""  # TensorFlow's start-up noise is silenced
    assert len(json.loads((tmp_path / "out/detections.json").read_text(encoding="utf-8"))) == 3


def test_odd_real_images(model_path, shared, tmp_path, capsys):
    """Gray, CMYK, alpha and turned photos: all are read, none fails."""
    folder = shared / "data/conformance/odd_cases/images"
    assert image_run.run(model_path, str(folder), str(tmp_path), 0.5, 4) == 0
    printed = capsys.readouterr().out
    assert "1 turned upright" in printed
    drawn = {p.relative_to(tmp_path / "drawn").as_posix() for p in tmp_path.rglob("drawn/**/*.*")}
    assert "sub dir/j_ünïcode name.jpg" in drawn
    assert len(drawn) == 12


def test_every_file_of_a_folder_is_processed_or_named(
    model_path, tmp_path, draw_rectangles, capsys
):
    """The command on names and formats as telephones, browsers and cameras write them."""
    scene = Image.fromarray(draw_rectangles(100, 160, {RED: (20, 40, 60, 100)}))
    folder = tmp_path / "in [2]"
    folder.mkdir()
    long_name = "ü" * 125 + ".bmp"  # 254 bytes: with .png behind it, too long for a file
    for name, kind in (
        ("browser.jfif", "JPEG"), ("no suffix", "PNG"), ("scan.jp2", "JPEG2000"),
        ("page.tif", "TIFF"), ("wrong.jpg", "PNG"), (long_name, "BMP"),
    ):  # fmt: skip
        scene.save(folder / name, kind)
    (folder / "telephone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    (folder / "new.jxl").write_bytes(b"\xff\x0a" + bytes(99))
    (folder / "cut.png").write_bytes((folder / "no suffix").read_bytes()[:-12])  # no IEND
    Image.fromarray(np.full([9, 9], 4095, np.uint16)).save(folder / "12 bits.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "raw.CR3").write_bytes(b"\0\0\0\x18ftypcrx " + bytes(99))
    (folder / "dead.jpg").symlink_to(folder / "absent")
    (folder / "dead").symlink_to(folder / "absent")
    (folder / "page.pdf").write_bytes(b"%PDF-1.7")
    (folder / "notes.txt").write_text("text")
    (folder / ".DS_Store").write_bytes(b"")
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={model_path}"]
    command += [f"--input={folder}", f"--output_dir={folder}", "--batch_size=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    found = ["browser.jfif", "no suffix", "page.tif", "scan.jp2", "wrong.jpg", long_name]
    assert [row["image_id"] for row in rows] == found
    for row in rows:
        np.testing.assert_allclose(row["bbox"], [40, 20, 60, 40], atol=2.6)
    assert len(list((folder / "drawn").iterdir())) == 6
    named = {line.split(":")[0].removeprefix("FAILED ") for line in done.stdout.splitlines()
             if line.startswith("FAILED ")}  # fmt: skip
    assert named == {
        "telephone.heic", "new.jxl", "cut.png", "12 bits.png", "empty.jpg", "raw.CR3", "dead.jpg",
        "dead",
    }  # fmt: skip
    unread = json.loads((folder / "unread.json").read_text(encoding="utf-8"))
    assert {row["file"]: row["status"] for row in unread} == {
        **dict.fromkeys(named, "failed"), "notes.txt": "no image", "page.pdf": "no image",
    }  # fmt: skip
    why = {row["file"]: row["why"] for row in unread}
    assert why["page.pdf"] == "not an image but a PDF: save its pages as PNG"
    assert why["dead"] == "the file cannot be read: No such file or directory"
    assert "develop it first" in why["raw.CR3"]
    assert f"FAILED raw.CR3: {why['raw.CR3']}\n" in done.stdout
    assert "PASSED OVER notes.txt: not an image\n" in done.stdout
    assert "DS_Store" not in done.stdout
    assert "14/14 images" in done.stdout
    # Again: what the first run wrote into the same folder is not taken for input.
    assert image_run.run(model_path, str(folder), str(folder), 0.5, 3) == 1
    printed = capsys.readouterr().out
    assert "14/14 images" in printed
    assert "PASSED OVER detections" not in printed


def test_a_mistake_is_one_line(model_path, tmp_path):
    pattern = tmp_path / ("x" * 300)  # longer than a file's name can be
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={model_path}"]
    command += [f"--input={pattern}", f"--output_dir={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == f"{pattern}: there is no such file, or nothing in it\n"
    assert done.stderr == ""


def test_another_file_system(model_path, draw_rectangles, capsys):
    pixels = draw_rectangles(100, 160, {RED: (20, 40, 60, 100)})
    for name in ("a [1].png", "b c/d"):
        tf.io.gfile.makedirs(f"ram://predict/in/{name.rpartition('/')[0]}")
        with tf.io.gfile.GFile(f"ram://predict/in/{name}", "wb") as file:
            file.write(tf.io.encode_png(pixels).numpy())
    for patterns in ("ram://predict/in", ["ram://predict/in/b c", "ram://predict/in/*.png"]):
        assert image_run.run(model_path, patterns, "ram://predict/out", 0.5, 2) == 0
        assert "2/2 images" in capsys.readouterr().out
        with tf.io.gfile.GFile("ram://predict/out/detections.json", "rb") as file:
            rows = json.loads(file.read())
        assert len(rows) == 2
    assert tf.io.gfile.exists("ram://predict/out/drawn/b c/d.png")
    assert tf.io.gfile.exists("ram://predict/out/drawn/a [1].png")


def test_large_images_are_read_while_no_other_is(
    model_path, tmp_path, draw_rectangles, monkeypatch
):
    """They are found like others, in the order of the names, and decoded in the main thread."""
    monkeypatch.setattr(reading, "LARGE_PIXELS", 100 * 120)
    (tmp_path / "in").mkdir()
    for k in range(12):
        height, width = (100, 160) if k % 3 == 0 else (80, 100)
        pixels = draw_rectangles(height, width, {RED: (20, 20, 60, 60)})
        Image.fromarray(pixels).save(tmp_path / f"in/{k:02d}.png")
    by_thread = []
    decode = reading.decode

    def watched(raw, *more):
        header, pixels = decode(raw, *more)
        by_thread.append((header.is_large, threading.current_thread() is threading.main_thread()))
        return header, pixels

    monkeypatch.setattr(reading, "decode", watched)
    out = tmp_path / "out"
    assert image_run.run(model_path, str(tmp_path / "in"), str(out), 0.5, 2) == 0
    assert sorted(by_thread) == [(False, False)] * 8 + [(True, True)] * 4
    rows = json.loads((out / "detections.json").read_text())
    assert [row["image_id"] for row in rows] == [f"{k:02d}.png" for k in range(12)]
    assert len(list((out / "drawn").iterdir())) == 12


def test_a_full_disk_is_one_line_with_the_file(model_path, folder, small_disk):
    """What an earlier run wrote stays whole; with room again, so does the next."""
    out, image = small_disk / "out", str(folder / "b.webp")
    assert image_run.run(model_path, image, str(out), 0.5, 1) == 0
    before = (out / "detections.json").read_bytes()
    fill(small_disk / "filler")
    with pytest.raises(OSError, match="No space left .*: '.*out/detections.json.incomplete'"):
        image_run.run(model_path, image, str(out), 0.5, 1)
    assert (out / "detections.json").read_bytes() == before
    (small_disk / "filler").unlink()
    assert image_run.run(model_path, image, str(out), 0.5, 1) == 0
    assert (out / "detections.json").read_bytes() == before


def fill(path):
    """Leave no room on a disk."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**12))
