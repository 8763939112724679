"""Files without detections are named: the first ones on the console, all in a file."""

import json

from mrcnn_tf.serving import unread


def test_every_file_is_named(tmp_path, capsys):
    others = []
    for k in range(25):
        path = tmp_path / f"{k:02d}.bin"
        path.write_bytes(b"%PDF-1.4" if k == 3 else b"?")
        others.append((path.name, str(path)))
    listed = unread.list_all(others, {"ü.jpg": "the file is empty"})
    unread.tell(listed, str(tmp_path / "unread.json"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "PASSED OVER 00.bin: not an image"
    assert printed[3] == "PASSED OVER 03.bin: not an image but a PDF: save its pages as PNG"
    assert printed[20:] == [
        "PASSED OVER 5 more files that are no images: unread.json",
        "FAILED ü.jpg: the file is empty",
    ]
    rows = json.loads((tmp_path / "unread.json").read_text("utf-8"))
    assert len(rows) == 26
    assert rows[24] == {"file": "24.bin", "status": "no image", "why": "not an image"}
    assert rows[25] == {"file": "ü.jpg", "status": "failed", "why": "the file is empty"}


def test_nothing_to_tell(tmp_path, capsys):
    unread.tell(unread.list_all([], {}), str(tmp_path / "unread.json"))
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())
