"""What counts as a film or a camera."""

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf.serving import film_source

HEADS = {
    "mp4": b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41",
    "mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
    "old mov": b"\0\x01\x02\x03moov\0\0\0\x6cmvhd",
    "mkv": b"\x1a\x45\xdf\xa3\x01\0\0\0",
    "avi": b"RIFF\x10\x20\x30\0AVI LIST",
    "ts": (b"\x47" + bytes(187)) * 2,
    "m2ts": (bytes(4) + b"\x47" + bytes(187)) * 2,
    "mpg": b"\0\0\x01\xba\x44\0",
    "wmv": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9",
    "flv": b"FLV\x01\x05",
}


@pytest.mark.parametrize("kind", HEADS)
def test_films_are_told_by_their_first_bytes(tmp_path, kind):
    path = tmp_path / "no suffix"
    path.write_bytes(HEADS[kind] + bytes(64))
    assert film_source.find([str(path)]) == ("no suffix", str(path), False)


def test_images_are_none_whatever_they_are_called(tmp_path):
    pixels = Image.fromarray(np.zeros([9, 9, 3], np.uint8))
    pixels.save(tmp_path / "a.png")
    pixels.save(tmp_path / "b.mp4", "PNG")
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "d.avif").write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0mif1")
    (tmp_path / "e.webp").write_bytes(b"RIFF\x10\x20\x30\0WEBPVP8 ")
    (tmp_path / "f.txt").write_text("a.png\n")
    for path in tmp_path.iterdir():
        assert film_source.find([str(path)]) is None, path
    assert film_source.find([str(tmp_path), str(tmp_path / "*.png"), "absent.mp4"]) is None


def test_broken_films_count_by_their_name(tmp_path):
    (tmp_path / "a.MP4").write_bytes(b"")
    assert film_source.find([str(tmp_path / "a.MP4")]).name == "a.MP4"


def test_cameras_are_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert film_source.find(["0"]) == ("camera0", "/dev/video0", True)
    assert film_source.find(["12"]) == ("camera12", "/dev/video12", True)
    assert film_source.find(["-1"]) is None
    (tmp_path / "0").mkdir()
    assert film_source.find(["0"]) is None


def test_a_film_comes_alone(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.mp4: a film or a camera has to be the only --input"):
        film_source.find([str(tmp_path), str(tmp_path / "a.mp4")])
