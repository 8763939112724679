"""Images cut into tiles: every object comes back once, as it is, whatever its size and place."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.images import reading
from mrcnn_tf.results.column_runs import Rectangle
from mrcnn_tf.serving import image_run, predictor, signatures, tiles
from tests.serving import large_scene

ROOT = pathlib.Path(__file__).resolve().parents[2]
RED, GREEN = (255, 0, 0), (0, 255, 0)


def test_tiles_by_hand():
    """Steps of 8; the last tiles end with the image."""
    assert tiles.Tiling(10, 0.2).windows(10, 25) == [
        Rectangle(0, 0, 10, 10), Rectangle(0, 8, 10, 18), Rectangle(0, 15, 10, 25),
    ]  # fmt: skip
    assert tiles.Tiling(10, 0.2).windows(3, 10) == [Rectangle(0, 0, 3, 10)]


@pytest.mark.parametrize("side", [2, 7, 64])
@pytest.mark.parametrize("overlap", [0.15, 0.3, 0.5, 0.8])
def test_tiles_cover_the_image_and_share_pixels(side, overlap):
    if not 1 <= round(side * overlap) < side:
        with pytest.raises(ValueError, match="share a pixel at least"):
            tiles.Tiling(side, overlap)
        return
    for height, width in ((1, 1), (side, side + 1), (3 * side - 1, 200)):
        windows = tiles.Tiling(side, overlap).windows(height, width)
        seen = np.zeros((height, width), int)
        for y1, x1, y2, x2 in windows:
            assert (y2 - y1, x2 - x1) == (min(side, height), min(side, width))
            seen[y1:y2, x1:x2] += 1
        assert seen.min() == 1 if max(height, width) > side else seen.max() == 1
        row = [w for w in windows if w.y1 == 0]
        shared = [a.x2 - b.x1 for a, b in zip(row, row[1:], strict=False)]
        assert min(shared, default=1) >= 1
        assert len(set(windows)) == len(windows)


@pytest.mark.parametrize(
    ("side", "overlap", "batch_size"), [(150, 0.2, 1), (150, 0.01, 4), (97, 0.6, 7), (900, 0.2, 1)]
)
def test_every_shape_comes_back(side, overlap, batch_size):
    shapes = large_scene.scene(800, 64)
    pixels = large_scene.colours(shapes, large_scene.numbers_in(shapes, 0, 0, 800, 800))
    calls = []

    def detect_in(batch):
        calls.append(len(batch))
        return [large_scene.look(tile) for tile in batch]

    objects = tiles.detect(pixels, detect_in, tiles.Tiling(side, overlap), batch_size)
    large_scene.assert_found(shapes, objects, 800)
    assert set(calls[:-1]) <= {batch_size}


def test_the_run(tmp_path, capsys):
    """Files in, detections, other forms and reduced drawings out; a broken file on the way."""
    shapes = large_scene.scene(800, 9)
    (tmp_path / "in").mkdir()
    large_scene.write_png(tmp_path / "in/a.png", shapes, 800)
    (tmp_path / "in/b.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:500])
    Image.new("RGB", (5, 3)).save(tmp_path / "in/c.png")
    seer, found = large_scene.Seer(), tmp_path / "detections.json"
    drawn = str(tmp_path / "drawn")
    images = [(name, str(tmp_path / "in" / name)) for name in ("a.png", "b.png", "c.png")]
    run = image_run.ImageRun(seer, drawn, 0.5, tiling=tiles.Tiling(128, 0.25))
    with image_run.ResultsFile(str(found)) as results:
        run.process(images, 2, results, lambda _: None)
    assert list(run.failures) == ["b.png"]
    assert seer.sizes == {(128, 128, 3), (3, 5, 3)}
    rows = json.loads(found.read_text())
    assert {row["image_id"] for row in rows} == {"a.png"}
    numbers = large_scene.numbers_in(shapes, 0, 0, 800, 800)
    for number, row in enumerate(rows, start=1):
        np.testing.assert_array_equal(coco_mask.decode(row["segmentation"]), numbers == number)
    assert len(rows) == len(shapes)
    assert Image.open(tmp_path / "drawn/a.png").size == (800, 800)
    assert capsys.readouterr().out.count("first call") == 2


def test_drawings_of_large_images_are_reduced(tmp_path, monkeypatch):
    """Pixels, boxes and masks alike, by a whole factor."""
    monkeypatch.setattr(image_run, "_MAX_DRAWN", 300)
    shapes = large_scene.scene(800, 9)
    numbers = large_scene.numbers_in(shapes, 0, 0, 800, 800)
    pixels = large_scene.colours(shapes, numbers)
    small, reduced = image_run._reduced(pixels, large_scene.look(pixels))
    np.testing.assert_array_equal(small, pixels[::3, ::3])
    for number, one in enumerate(reduced, start=1):
        np.testing.assert_array_equal(coco_mask.decode(one.mask), numbers[::3, ::3] == number)
        box = one.box * 3
        assert box.tolist() == pytest.approx(large_scene.look(pixels)[number - 1].box.tolist())


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, detect, labels, preprocess):
    """A network whose masks fill their boxes, as a SavedModel."""

    def with_whole_masks(images, image_size_hw):
        found = detect(images, image_size_hw)
        return found._replace(masks=tf.ones_like(found.masks))

    path = str(tmp_path_factory.mktemp("models") / "whole")
    signatures.export_saved_model(
        with_whole_masks,
        path,
        input_type="image_bytes",
        label_map=labels,
        preprocess=preprocess,
        mask_convention="pixel_centres",
    )
    return path


def test_a_predictor_finds_in_tiles(model_path, draw_rectangles):
    """The Python API on arrays: a rectangle that no tile holds, and one in a corner."""
    find = predictor.Predictor(model_path)
    pixels = draw_rectangles(300, 420, {RED: (100, 40, 200, 400), GREEN: (0, 0, 30, 50)})
    objects = tiles.detect(pixels, find, tiles.Tiling(160, 0.25), batch_size=4)
    by_name = {one.category: one for one in objects}
    assert len(objects) == len(by_name) == 2
    np.testing.assert_allclose(by_name["Röhre"].box, [100, 40, 200, 400], atol=3)
    np.testing.assert_allclose(by_name["green"].box, [0, 0, 30, 50], atol=3)
    whole = find([pixels])[0]
    assert {one.category for one in whole} == {"Röhre", "green"}


def test_the_command(model_path, draw_rectangles, tmp_path):
    """With everything that can be written beside it."""
    pixels = draw_rectangles(300, 420, {RED: (100, 40, 200, 400)})
    Image.fromarray(pixels).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={model_path}"]
    command += [f"--input={tmp_path / 'a.png'}", f"--output_dir={tmp_path / 'out'}"]
    command += ["--tiles=160", "--overlap=0.25", "--results=coco,labelme,yolo,masks,crops"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "out/detections.json").read_text())
    np.testing.assert_allclose(row["bbox"], [40, 100, 360, 100], atol=3)
    written = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("out/**/*.*")}
    assert written == {
        "detections.json", "drawn/a.png", "results/coco/annotations.json", "results/labelme/a.json",
        "results/yolo/data.yaml", "results/yolo/labels/a.txt", "results/masks/class_names.txt",
        "results/masks/SegmentationObject/a.png", "results/masks/SegmentationClass/a.png",
        "results/crops/Röhre/a.png-0.png",
    }  # fmt: skip
    (annotation,) = json.loads((tmp_path / "out/results/coco/annotations.json").read_text("utf-8"))[
        "annotations"
    ]
    polygons = coco_mask.frPyObjects(annotation["segmentation"], 300, 420)
    assert coco_mask.merge(polygons) == coco_mask.merge([row["segmentation"]])


def test_an_image_that_is_too_large_says_so(tmp_path, monkeypatch):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    with pytest.raises(reading.UnusableImageError, match="predict --tiles reads up to 536,870,911"):
        reading.read(tmp_path / "a.png")
    assert reading.read(tmp_path / "a.png", large=True).pixels.shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 250
    monkeypatch.setattr(reading, "MAX_PIXELS", 599)
    with pytest.raises(reading.UnusableImageError, match="30 x 20 pixels, more than 599: cut it"):
        reading.read(tmp_path / "a.png", large=True)


@pytest.mark.slow
def test_a_picture_of_20000_x_20000(tmp_path):
    """Beyond the pixels themselves, 1.2 GB, memory holds no more than for any picture."""
    script = ROOT / "tests/serving/large_picture_script.py"
    command = [sys.executable, str(script), str(tmp_path), "20000", "1500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["objects"] == 1505
    assert said["peak_bytes"] - said["start_bytes"] < 20_000**2 * 3 + 512 * 2**20
