"""Films in and out: pixels, times, sound, turned ones, broken ones."""

import itertools
import shutil
from fractions import Fraction

import numpy as np
import pytest

from mrcnn_tf.serving import film_source

av = pytest.importorskip("av", reason="films need PyAV: pip install 'mrcnn-tf[video]'")

from mrcnn_tf.serving import film_reader, film_writer  # noqa: E402
from tests.serving import films  # noqa: E402


def open_film(path, **options):
    return film_reader.FilmReader(film_source.find([str(path)]), **options)


def copy(path, stem, change=lambda pixels: pixels):
    """Read a film and write it again; return (reader, writer)."""
    reader = open_film(path)
    writer = None
    for frame in reader.frames():
        writer = writer or film_writer.FilmWriter(str(stem), reader, frame.pixels.shape[:2])
        writer.write(frame, change(frame.pixels))
    writer.copy(reader.rest)
    writer.complete()
    return reader, writer


def assert_alike(got, expected, tolerance):
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected)
    assert np.median(difference) <= tolerance
    assert difference.mean() <= 2 * tolerance


@pytest.mark.parametrize(
    ("name", "options", "written"),
    [
        ("a.mp4", {}, "a.mp4"),
        ("a.MOV", {"audio": "pcm_s16le"}, "a.MOV.mp4"),
        ("a.mkv", {"audio": "libopus"}, "a.mkv"),
        ("a.webm", {"audio": "libopus", "video": "libvpx"}, "a.webm.mkv"),
        ("a.avi", {"audio": "libmp3lame", "video": "mpeg4"}, "a.avi.mp4"),
        ("a.mp4", {"audio": None}, "a.mp4"),
    ],
)
def test_frames_times_and_sound_come_through(tmp_path, name, options, written):
    path = films.make(tmp_path / name, **options)
    reader, writer = copy(path, tmp_path / "out" / name)
    assert writer.path == str(tmp_path / "out" / written)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [written]
    assert (reader.num_damaged, reader.broke_off, reader.left_out) == (0, "", [])
    assert (writer.num_refused, writer.left_out) == (0, [])
    np.testing.assert_allclose(films.times(writer.path), films.times(path), atol=1e-3)
    for k, pixels in enumerate(films.pictures(writer.path)):
        assert_alike(pixels, films.moving(k), 3)
    if options.get("audio", "") is not None:
        sounds = films.sound(path), films.sound(writer.path)
        given, kept = ([content for _, content in packets] for packets in sounds)
        assert sum(map(len, given)) > 4000
        if name.endswith("MOV"):  # samples as they are, which every reader cuts as it likes
            given, kept = [b"".join(given)], [b"".join(kept)]
        else:
            np.testing.assert_allclose(*([t for t, _ in s] for s in sounds), atol=1e-3)
        assert kept == given


def test_frames_say_when_they_are_shown(tmp_path):
    """A variable frame rate: times are kept, in what is read and in what is written."""
    ticks = [0, 1, 2, 5, 6, 9, 20, 21, 22, 40]
    path = films.make(tmp_path / "a.mp4", count=10, ticks=ticks)
    reader = open_film(path)
    frames = list(reader.frames())
    assert [frame.number for frame in frames] == list(range(10))
    np.testing.assert_allclose([frame.time for frame in frames], np.array(ticks) / 10)
    assert_alike(frames[9].pixels, films.moving(9), 3)
    assert reader.num_frames == 10
    _, writer = copy(path, tmp_path / "out.mp4")
    np.testing.assert_allclose(films.times(writer.path), np.array(ticks) / 10)


def test_a_broadcast_begins_at_zero_and_loses_only_the_headers_of_its_sound(tmp_path):
    path = films.make(tmp_path / "a.ts")
    reader, writer = copy(path, tmp_path / "out.mp4")
    begin = min(films.times(path)[0], films.sound(path)[0][0])
    assert begin > 0.1
    np.testing.assert_allclose(
        films.times(writer.path), np.array(films.times(path)) - begin, atol=1e-3
    )
    # An ADTS header has 7 bytes without a check sum.
    expected = [(time - begin, content[7:]) for time, content in films.sound(path)]
    assert [content for _, content in films.sound(writer.path)] == [c for _, c in expected]
    np.testing.assert_allclose(
        [time for time, _ in films.sound(writer.path)], [time for time, _ in expected], atol=1e-3
    )
    assert reader.broke_off == ""


# {a display matrix's first five numbers: what becomes of [[1, 2, 3], [4, 5, 6]]}, by hand.
TURNS = {
    (1, 0, 0, 0, 1): [[1, 2, 3], [4, 5, 6]],
    (0, 1, 0, -1, 0): [[4, 1], [5, 2], [6, 3]],  # clockwise, as most telephones write
    (0, -1, 0, 1, 0): [[3, 6], [2, 5], [1, 4]],
    (-1, 0, 0, 0, -1): [[6, 5, 4], [3, 2, 1]],
    (-1, 0, 0, 0, 1): [[3, 2, 1], [6, 5, 4]],  # mirrored, as some front cameras are
    (1, 0, 0, 0, -1): [[4, 5, 6], [1, 2, 3]],
    (0, 1, 0, 1, 0): [[1, 4], [2, 5], [3, 6]],
    (0, -1, 0, -1, 0): [[6, 3], [5, 2], [4, 1]],
}


@pytest.mark.parametrize("matrix", TURNS)
def test_display_matrix(matrix):
    pixels = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[..., np.newaxis].repeat(3, 2)
    turned = film_reader.upright(pixels, np.array([*matrix, 0, 0, 0, 1 << 14]) * 65536)
    np.testing.assert_array_equal(turned[..., 0], TURNS[matrix])


@pytest.mark.parametrize(
    ("degrees", "mirrored"), itertools.product((0, 90, 180, -90), (False, True))
)
def test_a_turned_film_becomes_upright(tmp_path, degrees, mirrored):
    """`set_display_rotation` turns counterclockwise, then mirrors."""
    path = films.make(tmp_path / "a.mp4", count=3, audio=None, rotation=(degrees, mirrored))
    expected = np.rot90(films.moving(0), degrees // 90)
    expected = expected[:, ::-1] if mirrored else expected
    (first, *_) = open_film(path).frames()
    assert_alike(first.pixels, expected, 3)
    _, writer = copy(path, tmp_path / "out.mp4")
    assert_alike(films.pictures(writer.path)[0], expected, 3)
    with av.open(writer.path) as container:
        (frame, *_) = container.decode(video=0)
        assert frame.rotation == 0


def test_odd_sizes_are_filled_up(tmp_path):
    path = films.make(
        tmp_path / "a.mkv",
        lambda k: films.picture({films.RED: (0, 0, 49, 65)}, (49, 65)),
        count=3, audio=None, video="ffv1", pixel_format="bgr0",
    )  # fmt: skip
    (first, *_) = open_film(path).frames()
    np.testing.assert_array_equal(
        first.pixels, films.picture({films.RED: (0, 0, 49, 65)}, (49, 65))
    )
    _, writer = copy(path, tmp_path / "out")
    for pixels in films.pictures(writer.path):
        assert_alike(pixels, films.picture({films.RED: (0, 0, 50, 66)}, (50, 66)), 3)


@pytest.mark.parametrize(("rotation", "expected"), [(0, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_pixels_that_are_not_square(tmp_path, rotation, expected):
    path = films.make(tmp_path / "a.mp4", count=3, rotation=(rotation,), aspect=Fraction(4, 3))
    _, writer = copy(path, tmp_path / "out.mp4")
    with av.open(writer.path) as container:
        assert container.streams.video[0].sample_aspect_ratio == expected


def test_colours_of_large_films(tmp_path):
    """Written as BT.709 and said so; a large film that says nothing is read as BT.709."""
    shown = films.picture(
        {films.RED: (100, 100, 500, 900), films.GREEN: (500, 0, 700, 900)}, (720, 960)
    )
    path = films.make(tmp_path / "small.mp4", lambda k: shown[:480, :640], count=2, audio=None)
    reader, writer = copy(path, tmp_path / "a.mp4", lambda pixels: shown[:480, :640])
    with av.open(writer.path) as container:
        (frame, _) = container.decode(video=0)
        assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
    assert_alike(next(open_film(writer.path).frames()).pixels, shown[:480, :640], 2)

    def as_bt709(k):
        frame = av.VideoFrame.from_ndarray(shown, "rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace="ITU709")

    with av.open(str(tmp_path / "large.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 720, 960, "yuv420p"
        for k in range(2):
            frame = as_bt709(k)
            frame.colorspace = 2  # not said
            frame.pts, frame.time_base = k, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    first = next(open_film(tmp_path / "large.mp4").frames())
    np.testing.assert_allclose(first.pixels[300, 300], films.RED, atol=4)
    np.testing.assert_allclose(first.pixels[600, 300], films.GREEN, atol=4)


def test_what_was_written_can_be_played_before_the_end(tmp_path):
    """As if the machine went down: a copy of the unfinished file holds what was flushed."""
    path = films.make(tmp_path / "a.mp4", count=90)
    for name in ("b.mp4", "b.mkv"):
        reader = open_film(path)
        reader.is_matroska = name.endswith("mkv")
        writer = None
        for frame in reader.frames():
            writer = writer or film_writer.FilmWriter(str(tmp_path / name), reader, (96, 128))
            writer.write(frame, frame.pixels)
        assert not (tmp_path / name).exists()
        shutil.copy(writer.incomplete_path, tmp_path / f"copy-{name}")
        times = films.times(str(tmp_path / f"copy-{name}"))
        assert 20 <= len(times) <= 90
        # Matroska knows no times before 0, where AAC begins: all is 21 ms later there.
        np.testing.assert_allclose(times, np.arange(len(times)) / 10, atol=0.022)
        writer.complete()
        assert len(films.times(writer.path)) == 90
        writer.close()  # once more does no harm


@pytest.mark.parametrize(("name", "options"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})])
def test_a_film_that_breaks_off(tmp_path, name, options):
    noise = np.random.default_rng(0).integers(0, 60, (96, 128, 1), np.uint8)
    path = films.make(tmp_path / name, lambda k: films.moving(k) + noise, count=60, options=options)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 6 // 10])
    reader, writer = copy(path, tmp_path / "out.mp4")
    assert "the file says that there are 6.0 s" in reader.broke_off
    times = films.times(writer.path)
    assert 25 < len(times) < 50
    # Of the last ones some are gone that were to be shown before others.
    np.testing.assert_allclose(times[:25], np.arange(25) / 10, atol=1e-3)
    assert (np.diff(times) > 0.09).all()
    assert len(films.sound(writer.path)) > 80


def test_a_whole_film_does_not_break_off(tmp_path):
    """Its sound may be longer or shorter than its pictures."""
    path = films.make(tmp_path / "a.mp4", count=30)
    with av.open(str(tmp_path / "b.mp4"), "w") as container, av.open(path) as given:
        streams = {s.index: container.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.size and (packet.stream.type == "video" or packet.pts * packet.time_base < 1):
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    reader = open_film(tmp_path / "b.mp4")
    assert len(list(reader.frames())) == 30
    assert reader.broke_off == ""


def test_damaged_frames_are_counted_and_the_film_goes_on(tmp_path):
    noise = np.random.default_rng(0).integers(0, 60, (96, 128, 1), np.uint8)
    path = films.make(
        tmp_path / "a.mp4",
        lambda k: films.moving(k) + noise,
        count=60, options={"movflags": "faststart"}, video_options={"g": "10", "bf": "0"},
    )  # fmt: skip
    with av.open(path) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    for start, size in packets[20:23]:
        content[start : start + size] = b"\xff" * size
    (tmp_path / "a.mp4").write_bytes(content)
    reader, writer = copy(path, tmp_path / "out.mp4")
    assert 1 <= reader.num_damaged <= 12
    assert reader.broke_off == ""
    times = films.times(writer.path)
    assert len(times) >= 50
    assert times[-1] == pytest.approx(5.9, abs=1e-3)
    assert_alike(films.pictures(writer.path)[-1], films.moving(59) + noise, 8)
    assert len(films.sound(writer.path)) == len(films.sound(path))


def test_what_is_no_film(tmp_path):
    for name, content, why in (
        ("text.mp4", b"not a film", "text.mp4: cannot be read as a film: Invalid data found"),
        ("empty.mkv", b"", "empty.mkv: cannot be read as a film"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=why):
            open_film(tmp_path / name)
    films.make(tmp_path / "a.mp4", count=20)
    (tmp_path / "cut.mp4").write_bytes(
        (tmp_path / "a.mp4").read_bytes()[:2000]
    )  # its index is last
    with pytest.raises(ValueError, match=r"cut.mp4: cannot be read as a film: .*has no index"):
        open_film(tmp_path / "cut.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        tone = container.add_stream("aac", rate=films.SAMPLE_RATE)
        for k in range(5):
            container.mux(tone.encode(films._tone(k)))
        container.mux(tone.encode(None))
    with pytest.raises(ValueError, match=r"sound.mp4: the file holds no pictures"):
        open_film(tmp_path / "sound.mp4")
    with pytest.raises(OSError, match=r"/dev/video87: No such file"):
        open_film("87")


def test_streams_that_stay_behind_are_named(tmp_path):
    """A second film beside the first."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        for hw in ((96, 128), (48, 64)):
            stream = container.add_stream("libx264", rate=10)
            (stream.height, stream.width), stream.pix_fmt = hw, "yuv420p"
        for k in range(5):
            for stream in container.streams:
                pixels = np.full((stream.height, stream.width, 3), 99, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 10)
                container.mux(stream.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))
    reader, writer = copy(tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert reader.left_out == ["stream 1 (video, h264)"]
    assert films.pictures(writer.path)[0].shape == (96, 128, 3)


def test_a_frame_of_another_size_is_fitted_in(tmp_path):
    path = films.make(tmp_path / "a.mp4", count=4)
    _, writer = copy(path, tmp_path / "b.mp4")
    reader = open_film(path)
    writer = film_writer.FilmWriter(str(tmp_path / "c.mp4"), reader, (96, 128))
    for frame in reader.frames():
        half = frame.pixels[::2, ::2] if frame.number > 1 else frame.pixels
        writer.write(frame, half)
    writer.complete()
    assert [p.shape for p in films.pictures(writer.path)] == [(96, 128, 3)] * 4
    assert_alike(films.pictures(writer.path)[3], films.moving(3), 4)


def test_where_nothing_can_be_written(tmp_path):
    path = films.make(tmp_path / "a.mp4", count=2)
    (tmp_path / "out.incomplete.mp4").mkdir()
    with pytest.raises(OSError, match=r"out.incomplete.mp4: cannot be written: Is a directory"):
        copy(path, tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "sound"), [("a.mkv", "subrip", "libopus"), ("a.mp4", "mov_text", "aac")]
)
def test_subtitles_are_copied(tmp_path, name, codec, sound):
    plain = films.make(tmp_path / f"plain-{name}", audio=sound)
    with av.open(plain) as given, av.open(str(tmp_path / name), "w") as container:
        streams = {s.index: container.add_stream_from_template(s) for s in given.streams}
        words = container.add_mux_stream(codec)
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
        for k in range(3):
            text = b"line %d" % k
            packet = av.Packet(len(text).to_bytes(2, "big") + text if codec == "mov_text" else text)
            packet.stream, packet.time_base = words, Fraction(1, 1000)
            packet.pts = packet.dts = 100 + 600 * k
            packet.duration = 400
            container.mux(packet)
    reader, writer = copy(tmp_path / name, tmp_path / "out" / name)
    assert [stream.type for stream in reader.copied] == ["audio", "subtitle"]
    assert (writer.left_out, writer.num_refused) == ([], 0)

    def subtitles(path):
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(subtitles=0) if packet.size > 2]
            return [(round(float(p.pts * p.time_base), 3), bytes(p)) for p in packets]

    assert [text[-6:] for _, text in subtitles(writer.path)] == [b"line 0", b"line 1", b"line 2"]
    assert subtitles(writer.path) == subtitles(tmp_path / name)
    assert len(films.sound(writer.path)) == len(films.sound(tmp_path / name))
