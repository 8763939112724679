"""One image through every door: converter, predict, Python API and exported graphs see the same."""

import io
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mrcnn_tf.data import decoder, schema
from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.detector import Detector
from mrcnn_tf.images import reading
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.ops import paste
from mrcnn_tf.serving import preprocessing, signatures
from tests.marks import one_quick

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = [(kind, endian, tag) for kind in ("JPEG", "PNG") for endian in "<>" for tag in range(1, 9)]
LABELS = LabelMap((1,), ("thing",))
RED = (255, 0, 0)


def smooth(height=24, width=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 255 - 4 * x], axis=-1).astype(np.uint8)


def save(path, pixels, kind, endian, tag):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "maker"
    exif[0x0112] = tag
    Image.fromarray(pixels).save(path, kind, exif=exif, quality=95)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One image per case, and a COCO file whose sizes are those of the upright images."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    rows = []
    for k, case in enumerate(CASES):
        save(folder / "images" / f"{k}.img", smooth(), *case)
        height, width = upright(folder, k).shape[:2]
        rows.append({"id": k, "file_name": f"{k}.img", "height": height, "width": width})
    content = {"images": rows, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (folder / "ann.json").write_text(json.dumps(content))
    return folder


def upright(folder, k):
    with Image.open(folder / "images" / f"{k}.img") as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.fixture(scope="module")
def prepare():
    return preprocessing.Preprocessor(
        short_edge=24,
        long_edge=40,
        resize_convention="detectron2",
        channel_order="rgb",
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(255.0, 255.0, 255.0),
    )


def detect(images, image_size_hw, training=False):
    """Answer the network input itself as three masks of the whole image."""
    boxes = tf.concat([tf.zeros_like(image_size_hw), image_size_hw], axis=-1)[:, tf.newaxis]
    ones = tf.ones([tf.shape(images)[0], 3], tf.int32)
    padded = tf.pad(images, [[0, 0], [0, 64], [0, 64], [0, 0]])[:, :64, :64]
    masks = tf.transpose(tf.ensure_shape(padded, [None, 64, 64, 3]), [0, 3, 1, 2])
    scores = tf.cast(ones, tf.float32)
    return Detections(tf.tile(boxes, [1, 3, 1]), ones, scores, ones > 0, masks)


def serve(prepare, input_type, request):
    network = signatures.trace(
        signatures.build_network(detect, (1,)), *signatures.NETWORK_SPECS
    ).get_concrete_function()
    function = tf.function(
        signatures.build_serve(
            network,
            answers=signatures.answers_of(network),
            input_type=input_type,
            preprocess=prepare,
        )
    )
    return {name: value.numpy() for name, value in function(tf.constant(request)).items()}


def convert(folder, out, *options):
    command = [sys.executable, str(ROOT / "data_prep/create_coco_tfrecord.py")]
    command += [f"--image_dir={folder / 'images'}", f"--object_annotations_file={folder}/ann.json"]
    command += [f"--output_file_prefix={out / 'r'}", "--num_shards=1", "--num_processes=1"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def decoded(out):
    """Return the images of a record set by id, as training decodes them."""
    records = tf.data.TFRecordDataset(str(out / "r-00000-of-00001.tfrecord"))
    images = {}
    for record in records:
        example = decoder.decode(record, label_ids=(1,), include_masks=True)
        images[int(example[schema.SOURCE_ID].numpy())] = example[schema.IMAGE].numpy()
    return images


@pytest.mark.parametrize("input_type", one_quick(["image_bytes", "tf_example"]))
def test_served(folder, prepare, input_type):
    indices = range(len(CASES))
    expected = [tf.io.encode_png(upright(folder, k)).numpy() for k in indices]
    request = [(folder / "images" / f"{k}.img").read_bytes() for k in indices]
    if input_type == "tf_example":
        request = [preprocessing.encode_example(file) for file in request]
    answer = serve(prepare, input_type, request)
    for name, value in serve(prepare, "image_bytes", expected).items():
        np.testing.assert_array_equal(answer[name], value, err_msg=name)
    assert answer["detection_masks"].std() > 0.1  # it is the network input


def test_python_api(folder, prepare):
    detector = Detector(types.SimpleNamespace(), LABELS, prepare, "pixel_centres")
    detector.model = detect
    paths = [folder / "images" / f"{k}.img" for k in range(len(CASES))]
    from_files = detector(paths)
    from_arrays = detector([upright(folder, k) for k in range(len(CASES))])
    for k, (found, expected) in enumerate(zip(from_files, from_arrays, strict=True)):
        height, width = upright(folder, k).shape[:2]
        assert [d.mask for d in found] == [d.mask for d in expected]
        assert found[0].mask["size"] == [height, width]
        np.testing.assert_array_equal(found[0].box, [0, 0, height, width])


def test_arrays_are_not_encoded(prepare, monkeypatch):
    """Neither a file nor a decoder is in the way of an array; several sizes in one call."""
    for name in ("encode", "decode"):
        monkeypatch.setattr(reading, name, None)
    detector = Detector(types.SimpleNamespace(), LABELS, prepare, "pixel_centres")
    detector.model = detect
    images = [smooth(), smooth(40, 24), smooth()[::-1, ::-1], smooth(7, 5)]
    together = detector(images)
    expected = serve(prepare, "image_tensor", np.stack([images[0], images[2]]))
    for k, row in ((0, 0), (2, 1)):
        height, width = images[k].shape[:2]
        for found, mask in zip(together[k], expected["detection_masks"][row], strict=True):
            assert found.mask == paste.paste_to_rle(mask, found.box, height, width)
    for image, found in zip(images, together, strict=True):
        assert {tuple(d.mask["size"]) for d in found} == {image.shape[:2]}
        np.testing.assert_array_equal(found[0].box, [0, 0, *image.shape[:2]])


def test_converter(folder, prepare, tmp_path):
    done = convert(folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "28 images encoded again: EXIF orientation applied\n" in done.stdout
    images = decoded(tmp_path)
    for k, (kind, _, tag) in enumerate(CASES):
        expected = upright(folder, k).astype(int)
        # A turned JPEG is encoded again, with little loss; nothing else changes.
        tolerance = 6 if kind == "JPEG" and tag != 1 else 0
        assert np.abs(images[k] - expected).max() <= tolerance, CASES[k]


def test_predict(export, draw_rectangles, tmp_path):
    """The command: boxes, masks and drawings are those of the upright images."""
    (tmp_path / "in").mkdir()
    scene = draw_rectangles(100, 160, {RED: (20, 40, 60, 100)})
    for k, case in enumerate(CASES):
        save(tmp_path / "in" / f"{k:02d}", scene, *case)
    command = [sys.executable, "-m", "mrcnn_tf.predict", f"--saved_model={export('image_bytes')}"]
    command += [f"--input={tmp_path / 'in'}", f"--output_dir={tmp_path / 'out'}", "--batch_size=8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "28 turned upright as their EXIF orientation says" in done.stdout
    rows = json.loads((tmp_path / "out/detections.json").read_text())
    assert [row["image_id"] for row in rows] == [f"{k:02d}" for k in range(len(CASES))]
    for row in rows:
        with Image.open(tmp_path / "in" / row["image_id"]) as image:
            shown = np.asarray(ImageOps.exif_transpose(image)).astype(int)
        red = np.argwhere(shown[..., 0] - shown[..., 1] > 128)
        (y1, x1), (y2, x2) = red.min(0), red.max(0) + 1
        assert row["segmentation"]["size"] == list(shown.shape[:2])
        np.testing.assert_allclose(row["bbox"], [x1, y1, x2 - x1, y2 - y1], atol=1.6)
        with Image.open(tmp_path / "out/drawn" / f"{row['image_id']}.png") as drawn:
            assert drawn.size[0] * shown.shape[0] == drawn.size[1] * shown.shape[1]


@pytest.mark.slow
def test_the_converter_follows_the_set(tmp_path):
    """A square and an upside-down image go the way of the one whose size tells, or of the flag."""
    (tmp_path / "images").mkdir()
    rows = []
    for k, (side, tag) in enumerate([(None, 6), (20, 6), (None, 3)]):
        pixels = smooth()[:side, :side]
        save(tmp_path / "images" / f"{k}.png", pixels, "PNG", "<", tag)
        height, width = pixels.shape[:2]
        rows.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
    content = {"images": rows, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "ann.json").write_text(json.dumps(content))
    done = convert(tmp_path, tmp_path / "auto")
    assert done.returncode == 0, done.stderr
    assert "3 images kept as they are stored, which the annotations refer to" in done.stdout
    images = decoded(tmp_path / "auto")
    for k, side in ((0, None), (1, 20), (2, None)):
        np.testing.assert_array_equal(images[k], smooth()[:side, :side])
    done = convert(tmp_path, tmp_path / "apply", "--exif=apply", "--on_error=skip")
    assert done.returncode == 0, done.stderr
    assert "2 images encoded again: EXIF orientation applied" in done.stdout
    images = decoded(tmp_path / "apply")
    assert sorted(images) == [1, 2]
    np.testing.assert_array_equal(images[1], np.rot90(smooth()[:20, :20], -1))
    np.testing.assert_array_equal(images[2], smooth()[::-1, ::-1])
    report = (tmp_path / "apply/r.report.txt").read_text()
    assert "image 0 (0.png): 40 x 24 in the annotations, 40 x 24 in the file" in report
    assert "turns on its side; this contradicts --exif=apply" in report


def test_broken_and_dark_images_are_named_by_the_converter(tmp_path):
    (tmp_path / "images").mkdir()
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "PNG")
    (tmp_path / "images/cut.jpg").write_bytes(buffer.getvalue()[:-12])
    Image.fromarray(smooth().astype(np.uint16)[..., 0] * 16).save(tmp_path / "images/deep.png")
    Image.fromarray(smooth()).save(tmp_path / "images/good.png")
    rows = [
        {"id": k, "file_name": name, "height": 24, "width": 40}
        for k, name in enumerate(["cut.jpg", "deep.png", "good.png"])
    ]
    content = {"images": rows, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "ann.json").write_text(json.dumps(content))
    done = convert(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert "undecodable file: image 0 (cut.jpg): Invalid PNG data" in done.stderr
    assert "image 1 (deep.png): an image of 16 bits whose brightest is 9 of 255 is" in done.stderr
    assert "good.png" not in done.stderr
