"""Progress: a line now and then in files, a bar on terminals."""

import io

from mrcnn_tf.console import progress_bar
from mrcnn_tf.console.progress_bar import ProgressBar


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 1e9)
    stream = io.StringIO()
    bar = ProgressBar("writing", 11, "images", done=3, stream=stream)
    for _ in range(8):
        bar.add()
    bar.close()
    first, last = stream.getvalue().splitlines()  # nothing in between: no second has passed
    assert first.startswith("writing 3/11 images, ")
    assert last.startswith("writing 11/11 images, ")
    assert "images/s" in last
    assert "\r" not in stream.getvalue()


def test_a_line_for_each_drawing_that_is_due(monkeypatch):
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    bar = ProgressBar("writing", 3, "images", stream=stream)
    bar.add(2)
    bar.add()
    bar.close()
    counts = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert counts[0] == "0/3"
    assert counts[-1] == "3/3"
    assert "2/3" in counts


def test_a_bar_on_a_terminal():
    stream = _Terminal()
    bar = ProgressBar("writing", 4, "images", stream=stream)
    bar.add(4)
    bar.close()
    assert "\rwriting: 100%" in stream.getvalue()
    assert "4/4 images" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_nothing_to_do():
    stream = io.StringIO()
    ProgressBar("writing", 0, "images", stream=stream).close()
    assert stream.getvalue().startswith("writing 0/0 images")
