import io

from mrcnn_tf.console.labelled_lines import LabelledLines


def test_every_line_gets_the_label_and_is_written_as_a_whole():
    stream = io.StringIO()
    lines = LabelledLines(stream, "worker 1: ")
    print("one", 1, file=lines)
    assert stream.getvalue() == "worker 1: one 1\n"
    print("two\n\nthree", file=lines)
    assert stream.getvalue().splitlines()[1:] == ["worker 1: two", "worker 1: ", "worker 1: three"]
    lines.write("half")
    assert stream.getvalue().endswith("three\n")  # a line is never torn by another process's
    lines.flush()
    lines.write(" and half\n")
    assert stream.getvalue().endswith("worker 1: half and half\n")


def test_what_overwrites_itself_stays_one_line():
    stream = io.StringIO()
    lines = LabelledLines(stream, "w: ")
    lines.write("\r10 %")
    lines.flush()
    lines.write("\r20 %\n")
    assert stream.getvalue() == "w: \rw: 10 %\rw: 20 %\n"
    assert lines.isatty() is False
