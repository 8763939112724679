"""Images are found by their content, under any name, in any folder, on any file system."""

import os
import uuid

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.images import finding


@pytest.fixture
def folder(tmp_path):
    """A folder with brackets and a blank in its name."""
    folder = tmp_path / "a [1]"
    nested = folder / "Über füße"
    nested.mkdir(parents=True)
    pixels = Image.fromarray(np.zeros([3, 4, 3], np.uint8))
    pixels.save(folder / "b.webp")
    pixels.save(folder / "jpeg without suffix", "JPEG")
    pixels.save(folder / "photo.orig", "PNG")
    pixels.save(nested / "ein Bild [1].png")
    pixels.save(folder / ".hidden.png")
    (folder / ".thumbnails").mkdir()
    pixels.save(folder / ".thumbnails" / "c.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing behind it")
    (folder / "empty.png").write_bytes(b"")
    (folder / "d.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("no image")
    (folder / "numbers.csv").write_text("BM,1\n")
    return folder


def names(*patterns, written=()):
    return [name for name, _ in finding.find_images([str(p) for p in patterns], written).images]


NESTED = "Über füße/ein Bild [1].png"
ALL = ["b.webp", "broken.jpg", "d.heic", "empty.png", "jpeg without suffix", "photo.orig", NESTED]


def test_a_folder(folder):
    found = finding.find_images([str(folder)])
    assert [name for name, _ in found.images] == ALL
    assert [name for name, _ in found.others] == ["notes.txt", "numbers.csv"]
    assert all(os.path.samefile(folder / name, path) for name, path in found.images)
    assert names(f"{folder}/") == ALL


def test_patterns(folder):
    assert names(folder / "*") == [name for name in ALL if name != NESTED]
    assert names(folder / "**/*.png") == ["empty.png", NESTED]
    assert names(folder / "Ü*/*") == [NESTED]
    assert names(folder / "*.jpg", folder / "*.webp") == ["b.webp", "broken.jpg"]
    assert names(folder / "*.webp", folder / "b.*") == ["b.webp"]


def test_files_are_taken_as_the_user_names_them(folder):
    assert names(folder / NESTED) == ["ein Bild [1].png"]
    assert names(folder / ".hidden.png") == [".hidden.png"]


def test_what_the_caller_writes_is_left_out(folder):
    (folder / "out/drawn").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(folder / "out/drawn/old.png")
    (folder / "out/detections.json").write_text("[]")
    written = (str(folder / "out/drawn"), str(folder / "out/detections.json"))
    found = finding.find_images([str(folder)], written)
    assert [name for name, _ in found.images] == ALL
    assert [name for name, _ in found.others] == ["notes.txt", "numbers.csv"]


def test_nothing(folder, tmp_path):
    for pattern in (folder / "absent.jpg", folder / "*.gif", tmp_path / "absent", "x" * 300):
        with pytest.raises(FileNotFoundError, match="there is no such file, or nothing in it"):
            names(pattern)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    with pytest.raises(FileNotFoundError, match="there are no images, only a.txt"):
        names(tmp_path / "texts")


def test_two_of_a_name(folder, tmp_path):
    (tmp_path / "other").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "other/b.webp")
    with pytest.raises(ValueError, match="two images are called b.webp: "):
        names(folder, tmp_path / "other")


def test_links(folder):
    """Linked folders are gone through once, circles included; a dead link counts as an image."""
    (folder / "again").symlink_to(folder)
    (folder / "Über füße/up").symlink_to(folder.parent)
    (folder / "dead.png").symlink_to(folder / "absent")
    found = names(folder)
    assert sorted(found) == sorted([*ALL, "dead.png"])


def test_names_that_are_not_utf8(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.path.join(os.fsencode(tmp_path), b"f\xfc\xdfe.png"))
    assert names(tmp_path) == ["f\udcfc\udcdfe.png"]
    assert names(tmp_path / "*.png") == ["f\udcfc\udcdfe.png"]


def test_another_file_system():
    root = f"ram://{uuid.uuid4().hex}"
    png = tf.io.encode_png(np.zeros([2, 2, 3], np.uint8)).numpy()
    files = {"a.png": png, "sub dir/b": png, "c.txt": b"text", ".hidden/d.png": png}
    for name, content in files.items():
        tf.io.gfile.makedirs(os.path.dirname(f"{root}/{name}"))
        with tf.io.gfile.GFile(f"{root}/{name}", "wb") as file:
            file.write(content)
    found = finding.find_images([root])
    assert [name for name, _ in found.images] == ["a.png", "sub dir/b"]
    assert [name for name, _ in found.others] == ["c.txt"]
    assert names(f"{root}/a.png") == ["a.png"]
    assert names(f"{root}/*.png") == ["a.png"]


def test_a_list_of_images(folder, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    listed = lists / "val.txt"
    listed.write_text(f"../a [1]/b.webp\n\n{folder}/{NESTED}\n../a [1]/photo.orig\n")
    found = finding.find_images([str(listed)])
    assert [name for name, _ in found.images] == ["b.webp", "photo.orig", NESTED]
    assert all(os.path.samefile(folder / name, path) for name, path in found.images)
    listed.write_text("\ufeff../a [1]/b.webp\r\n", encoding="utf-8")
    assert names(listed) == ["b.webp"]  # beside nothing, its own folder is left out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a [1]/b.webp\nc.png\n", r"val\.txt, line 2: c\.png: there is no such file"),
        (b"\xff\xfe\x00", r"val\.txt: a list of images has to be text in UTF-8"),
        (b"\n", r"val\.txt: there is no such file, or nothing in it"),
    ],
)
def test_a_list_that_is_none(folder, tmp_path, content, message):
    (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        finding.find_images([str(tmp_path / "val.txt")])
