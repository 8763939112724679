"""Small files with many pixels: told by their header at every door, and never many at once."""

import io
import json
import pathlib
import re
import struct
import threading
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep import conversion, shards
from mrcnn_tf import detector
from mrcnn_tf.data.coco_data import ImageEntry
from mrcnn_tf.images import depth, reading, record_image
from mrcnn_tf.inspection import photos
from tests.data_prep.in_process import InProcess

SIDE = 23_000


@pytest.fixture(scope="module")
def bomb():
    """A valid gray PNG of 23000 x 23000, half a megabyte."""
    packer = zlib.compressobj(9)
    row = bytes(SIDE + 1)
    packed = b"".join(packer.compress(row) for _ in range(SIDE)) + packer.flush()

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture
def folder(tmp_path, bomb):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(bomb)
    Image.new("RGB", (30, 20), (9, 9, 9)).save(tmp_path / "images/small.png")
    return tmp_path


def peak(begin=False):
    """The most memory that this process had since `begin`, bytes; 0 where Linux is not asked."""
    of_process = pathlib.Path("/proc/self")
    if not (of_process / "clear_refs").exists():
        return 0
    if begin:  # or what tests before this one took would hide what this one takes
        (of_process / "clear_refs").write_text("5")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", (of_process / "status").read_text())[1])


SAID = "529,000,000 pixels, larger than images usually are"


def test_the_header_is_enough_at_every_door(bomb, folder, monkeypatch):
    """Decoded, each would take 1.6 GB."""
    assert len(bomb) < 600_000
    path = folder / "images/a.png"
    entry = ImageEntry(1, "a.png", SIDE, SIDE)
    start = peak(begin=True)
    for door in (
        lambda: reading.read(path),
        lambda: reading.read_header(bomb),
        lambda: record_image.load(path, SIDE, SIDE, record_image.ExifRule()),
    ):
        with pytest.raises(reading.UnusableImageError, match=SAID):
            door()
    with pytest.raises(ValueError, match=f"a.png: {SAID}"):
        detector._pixels(path)
    exif = record_image.ExifRule()
    (found,) = photos.look_at([entry], str(folder / "images"), exif, 8, lambda: None)
    assert (found.kind, found.images) == ("too large", 1)
    assert SAID in str(found)

    rows = [("a.png", SIDE), ("small.png", 0), ("b.png", SIDE)]
    images = [
        {"id": k, "file_name": name, "height": side or 20, "width": side or 30}
        for k, (name, side) in enumerate(rows)
    ]
    box = {"category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    annotations = [{"id": k + 1, "image_id": k // 8, **box} for k in range(24)]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "x"}]
    (folder / "a.json").write_text(json.dumps(content))
    monkeypatch.setattr(shards, "WorkerPool", InProcess)
    prefix = str(folder / "out/train")
    job = conversion.Job(
        str(folder / "images"), str(folder / "a.json"), prefix, 1, None, 1, skip_problems=True
    )
    summary = conversion.convert(job)
    assert summary.counts["annotations"] == 8
    assert [f.annotations for f in summary.findings] == [8, 8]
    assert str(summary.findings[0]).endswith("image left out, and 8 annotations with it")
    assert peak() - start < 200e6


def test_large_images_take_turns(tmp_path, monkeypatch):
    """Whatever the number of threads, one of them decodes a large image at a time."""
    monkeypatch.setattr(reading, "LARGE_PIXELS", 500)
    decode, inside, most, lock = reading.decode, [0], [0], threading.Lock()

    def watched(raw, *more):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.005)
        decoded = decode(raw, *more)
        with lock:
            inside[0] -= 1
        return decoded

    monkeypatch.setattr(reading, "decode", watched)
    for side, expected in ((30, 1), (20, 8)):
        entries = [ImageEntry(k, f"{side}-{k}.png", side, side) for k in range(24)]
        for entry in entries:
            Image.fromarray(np.full([side, side, 3], entry.image_id, np.uint8)).save(
                tmp_path / entry.file_name
            )
        most[0] = 0
        looked = photos.look_at(entries, str(tmp_path), record_image.ExifRule(), 8, lambda: None)
        assert len(list(looked)) == 24
        assert most[0] == expected or (expected > 1 and most[0] > 1)


def test_a_large_image_is_left_to_who_has_others_in_flight(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGE_PIXELS", 500)
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    with pytest.raises(reading.LargeImageError):
        reading.read(tmp_path / "a.png", defer_large=True)
    assert reading.read(tmp_path / "a.png").pixels.shape == (20, 30, 3)


MODES = {
    "RGB": "TIFF", "RGBA": "TIFF", "CMYK": "TIFF", "L": "TIFF", "P": "GIF", "F": "TIFF",
    "I": "TIFF", "I;16": "TIFF", "I;16B": "TIFF", "16 bits in colour": "PNG",
}  # fmt: skip


def deep_or_not(mode, side):
    """A file of random pixels."""
    values = np.random.default_rng(0).integers(0, 2**16, (side, side, 3), np.uint16)
    if mode == "16 bits in colour":
        return tf.io.encode_png(values).numpy()
    gray = {
        "F": np.float32(values[..., 0] / 2**16),
        "I": np.int32(values[..., 0]),
        "I;16": values[..., 0],
        "I;16B": values[..., 0].astype(">u2"),
    }
    image = Image.fromarray((values >> 8).astype(np.uint8))
    image = Image.fromarray(gray[mode]) if mode in gray else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, MODES[mode])
    return buffer.getvalue()


@pytest.mark.parametrize("mode", MODES)
def test_large_images_are_converted_in_strips(mode, monkeypatch):
    """The same pixels, and never more arrays at a time than the result and strips."""
    content = deep_or_not(mode, 1000)
    _, whole = reading.decode(content)
    monkeypatch.setattr(depth, "_STRIP_PIXELS", 1000 * 7)
    peaks = []
    for _ in range(3):  # other threads of the test run take memory now and then
        tracemalloc.start()
        try:
            _, in_strips = reading.decode(content)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    np.testing.assert_array_equal(in_strips, whole)
    assert len(np.unique(whole)) > 5
    # The result, twice on its way to a tensor.
    assert min(peaks) < 2 * 3 * 1000 * 1000 + 500_000
