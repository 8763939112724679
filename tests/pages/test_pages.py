"""Pages: what stands on them, that nothing gets out of its text, and that nothing is fetched."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.images import drawing
from mrcnn_tf.pages import charts
from mrcnn_tf.pages.markup import Html, escape, plain
from mrcnn_tf.pages.page import Badge, Page, Picture
from mrcnn_tf.pages.thumbnails import data_uri, small_drawing

HOSTILE = "<script>alert(1)</script>\"'&</svg><img src=x onerror=alert(2)>\udc80\u202e\x00"
VOID = {"meta", "img", "line", "rect", "circle", "path"}


class Reader(html.parser.HTMLParser):
    """What a browser would see: elements, their attributes, the text; and whether they nest."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements, self.attributes, self.words, self._open = [], [], [], []
        self.feed(markup)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.attributes += attributes
        if tag not in {"meta", "img"}:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def full_page(name: str) -> Page:
    """A page with one of everything, `name` wherever a name can be."""
    page = Page(name, name)
    section = page.section(name, name)
    section.heading(name)
    section.text(name, "warning")
    section.points([name])
    section.key_numbers([(name, 1234567), ("word", name)])
    section.table((name, "n"), [(name, 1), (Badge(name, "error"), None)], folded=name, stacked=True)
    section.color_keys([(name, (255, 0, 128))])
    section.charts([
        charts.histogram([1.0, 2.0], name, name, marks=[(1.5, name)], caption=name),
        charts.histogram({name: [1.0], "b": [8.0]}, name, name, log=True),
        charts.bars([name], [3], name, name),
        charts.bars([name], {name: [3], "b": [0]}, name),
        charts.lines({name: ([0, 1], [1, 2]), "b": ([0], [1])}, name, name, name, points=True),
        charts.scatter({name: ([0, 1], [1, 2])}, name, name, name),
        charts.heat_map([[1, 2], [3, 4]], [name, "b"], [name, "b"], name, name, name),
    ])  # fmt: skip
    uri = data_uri(np.zeros((4, 4, 3), np.uint8))
    section.pictures([Picture(uri, name, name)], folded=name, wide=True)
    return page


def test_a_page_of_hostile_names_has_the_elements_of_one_of_harmless_names():
    harmless, hostile = (Reader(full_page(name).html()) for name in ("a" * len(HOSTILE), HOSTILE))
    assert hostile.elements == harmless.elements
    assert [key for key, _ in hostile.attributes] == [key for key, _ in harmless.attributes]
    assert "script" not in hostile.elements
    assert "img" in hostile.elements
    assert "<script>alert(1)</script>\"'&" in hostile.text  # as text, unchanged


def test_a_page_asks_nobody_for_anything():
    page = full_page("a").html()
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<iframe", page.replace(
        data_uri(np.zeros((4, 4, 3), np.uint8)), "")), page  # fmt: skip


def test_characters_that_cannot_be_shown_are_spelt_out():
    assert escape("a\udc80\x00\u202eb") == r"a\udc80\x00\u202eb"
    assert escape("न\u200dि émile 气球 🎈\n") == "न\u200dि émile 气球 🎈\n"
    assert escape(Html("<b>")) == "<b>"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.12345, "0.123"), (1234.5, "1,234"), (None, "–"), (True, "yes")],
)
def test_numbers_are_written_for_people(value, text):
    assert plain(value) == text


def test_a_page_is_replaced_at_once(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    Page("new \udc80").save(path)
    assert "<title>new \\udc80</title>" in path.read_text(encoding="utf-8")
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]


def test_what_a_page_refuses():
    section = Page("a").section("b")
    with pytest.raises(ValueError, match="needs 2 cells"):
        section.table(("a", "b"), [(1,)])
    with pytest.raises(ValueError, match="data URI"):
        section.pictures([Picture("https://example.org/a.jpg", "")])
    with pytest.raises(TypeError, match="charts.py"):
        section.charts(["<svg>"])
    with pytest.raises(ValueError, match="tone must be one of"):
        section.text("a", "shrill")


def hints(svg: str) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", svg)


def test_a_histogram_counts():
    drawn = hints(charts.histogram([0, 1, 1, 9, 10], "t", "x", bins=2))
    assert drawn == ["0 to 5: 3", "5 to 10: 2"]
    drawn = hints(charts.histogram({"a": [1, 2], "b": [100]}, "t", "x", bins=2, log=True))
    assert drawn == ["a: 1 to 10: 2", "b: 10 to 100: 1"]


def test_bars_are_as_long_as_their_values():
    chart = charts.bars(["a", "b", "c"], [10, 5, 0], "t")
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" fill', chart)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert widths[2] == 0
    assert hints(chart) == ["a: 10", "b: 5", "c: 0"]
    with pytest.raises(ValueError, match="2 labels"):
        charts.bars(["a", "b"], [1], "t")


def test_lines_lie_where_their_values_do():
    chart = charts.lines({"a": ([0, 10, 20], [0, 1, 0])}, "t", "x", "y")
    (path,) = re.findall(r'<path d="(.*?)"', chart)
    points = [tuple(map(float, part[1:].split())) for part in re.findall(r"[ML][\d. ]+", path)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y0 == y2 > y1


def test_lines_have_gaps_where_values_are_missing_and_keep_their_peaks():
    chart = charts.lines({"a": ([0, 1, 2, 3], [0, np.nan, 1, 2])}, "t", "x", "y")
    assert re.findall(r'<path d="(.*?)"', chart)[0].count("M") == 2
    y = np.zeros(100_000)
    y[77_777] = 5
    chart = charts.lines({"a": (range(100_000), y)}, "t", "x", "y")
    (path,) = re.findall(r'<path d="(.*?)"', chart)
    heights = [float(part.split()[1]) for part in re.findall(r"[ML][\d. ]+", path)]
    assert len(heights) < 1000
    assert min(heights) < min(heights[:10])


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [1e-9, 1e9], [-5, 5], [np.nan]])
@pytest.mark.parametrize("log", [False, True])
def test_axes_take_any_values(values, log):
    for chart in (
        charts.lines({"a": (values, values)}, "t", "x", "y", x_log=log),
        charts.scatter({"a": (values, values)}, "t", "x", "y"),
    ):
        Reader(chart)
        assert "nan" not in chart
        assert "inf" not in chart
        assert 1 <= len(re.findall(r'class="grid"', chart)) <= 8


def test_heat_maps_write_numbers_where_they_fit():
    chart = charts.heat_map([[12, 0], [3, 40]], ["a", "b"], ["a", "b"], "t", "truth", "prediction")
    assert hints(chart) == ["a / a: 12", "a / b: 0", "b / a: 3", "b / b: 40"]
    assert ">12</text>" in chart
    assert ">0</text>" not in chart
    assert re.findall(r'fill-opacity="([\d.]+)"', chart) == ["0.34", "0.06", "0.13", "1.00"]
    large = charts.heat_map(np.ones((80, 80)), [f"n{k}" for k in range(80)], [], "t")
    assert ">1</text>" not in large
    with pytest.raises(ValueError, match="names"):
        charts.heat_map([[1]], ["a", "b"], ["a"], "t")


def pixels_of(uri: str) -> np.ndarray:
    kind, content = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)


def thumbnail(*args, **kwargs) -> str:
    return data_uri(small_drawing(*args, **kwargs))


def test_a_thumbnail_shows_the_mask_in_its_classes_colour_where_it_is():
    image = np.zeros((1000, 2000, 3), np.uint8)
    mask = np.zeros((1000, 2000), np.uint8)
    mask[200:800, 400:1200] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    uri = thumbnail(image, [[200, 400, 800, 1200]], [rle], color_ids=[4], long_edge=200)
    pixels = pixels_of(uri)
    assert pixels.shape == (100, 200, 3)  # a tenth: the mask is [20:80, 40:120]
    color = drawing.colors_of([4])[0].astype(int)
    assert np.abs(pixels[50, 80] - 0.45 * color).max() < 12  # within: tinted
    assert np.abs(pixels[21, 80] - color).max() < 30  # its outline
    assert pixels[10, 80].max() < 20
    assert pixels[50, 130].max() < 20


def test_a_thumbnail_of_an_image_that_was_made_smaller_already():
    image = np.zeros((100, 200, 3), np.uint8)
    mask = np.zeros((1000, 2000), bool)
    mask[200:800, 400:1200] = True
    args = ([[200, 400, 800, 1200]], [mask])
    small = thumbnail(image, *args, frame_hw=(1000, 2000), long_edge=200)
    whole = thumbnail(np.zeros((1000, 2000, 3), np.uint8), *args, long_edge=200)
    assert small == whole
    with pytest.raises(ValueError, match="frame"):
        thumbnail(image, *args)


def test_thin_parts_of_masks_stay_visible():
    mask = np.zeros((1000, 1000), bool)
    mask[500:503] = True  # 3 of 10 rows of a small pixel
    pixels = pixels_of(thumbnail(np.zeros((1000, 1000, 3), np.uint8), [[500, 0, 503, 1000]],
                                 [mask], long_edge=100))  # fmt: skip
    assert pixels[50].max(axis=1).min() > 60


def test_ranges_of_axes():
    drawn = hints(charts.histogram([0.2, 0.9], "t", "x", bins=2, x_range=(0, 1)))
    assert drawn == ["0 to 0.5: 1", "0.5 to 1: 1"]
    chart = charts.scatter({"a": ([0, 1], [0, 1])}, "t", "x", "y")
    xs = [float(x) for x in re.findall(r'cx="([\d.]+)"', chart)]
    assert 46 < xs[0] < xs[1] < 346  # not on the ends of the axis
