"""The site: all pages are in its navigation, links lead somewhere, and pictures are of tensors."""

import ast
import html.parser
import importlib.util
import re
import shutil
import subprocess
import sys
import urllib.parse
import xml.etree.ElementTree

import numpy as np
import pytest
import yaml

from tests.docs import pages

ROOT = pages.ROOT
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
FOLLOW = ROOT / "docs/site/follow_an_image.py"


def load(name):
    spec = importlib.util.spec_from_file_location(
        f"docs_site_{name}", ROOT / f"docs/site/{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks, svg = load("hooks"), load("svg")


def entries(of_navigation):
    for entry in of_navigation:
        for content in entry.values() if isinstance(entry, dict) else [entry]:
            yield from entries(content) if isinstance(content, list) else [content]


def stops():
    """What `follow_an_image.py` draws, as its text says: it takes TensorFlow to run."""
    for node in ast.parse(FOLLOW.read_text("utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "FIGURES":
            return [key.value for key in node.value.keys]
    raise AssertionError("it has no FIGURES")


def test_every_page_is_in_the_navigation_once_and_nothing_else_is():
    in_docs = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
    from_root = [place for place in hooks.FROM_ROOT if place.endswith(".md")]
    named = list(entries(SETTINGS["nav"]))
    assert len(named) > 45
    assert sorted(named) == sorted([*in_docs, *from_root, *hooks.API, *hooks.notebook_pages()])


def test_what_lies_elsewhere_is_there():
    for path in hooks.FROM_ROOT.values():
        assert (ROOT / path).is_file()


def test_every_module_is_on_one_page_of_the_api():
    named = [name for place in hooks.API for name in hooks.modules(place)]
    files = [*ROOT.glob("mrcnn_tf/**/*.py"), *ROOT.glob("data_prep/**/*.py")]
    there = [path.relative_to(ROOT).with_suffix("") for path in files if path.stem != "__init__"]
    assert len(there) > 250
    assert sorted(named) == sorted(".".join(path.parts) for path in there)
    text = hooks.api_page("api/python.md")
    assert "\n::: mrcnn_tf.detector\n" in text
    assert "mrcnn_tf.train" not in text


@pytest.mark.parametrize(
    ("lies", "shown", "text", "expected"),
    [
        ("docs/a.md", "a.md", "[x](../README.md#y)", "[x](index.md#y)"),
        ("docs/a.md", "a.md", "[x](start.md#y) [z](#w)", "[x](start.md#y) [z](#w)"),
        ("README.md", "index.md", "![p](docs/demo.png)", "![p](demo.png)"),
        ("README.md", "index.md", "[r]: docs/start.md", "[r]: start.md"),
        ("README.md", "index.md", "[c](CITATION.cff)", "[c](CITATION.cff)"),
        ("CHANGELOG.md", "changelog.md", "[x](docs/runs.md)", "[x](runs.md)"),
        ("CHANGELOG.md", "changelog.md", "[n](docs/notebooks)", "[n](notebooks/index.md)"),
        ("README.md", "index.md", "](docs/notebooks/inside_a_step.ipynb)",
         "](notebooks/inside_a_step.md)"),
        ("docs/a.md", "a.md", "[x](https://docs/start.md)", "[x](https://docs/start.md)"),
        ("docs/a.md", "a.md", "[x](there-is-none.md)", "[x](there-is-none.md)"),
    ],
)  # fmt: skip
def test_links_lead_where_things_are_on_the_site(lies, shown, text, expected):
    assert hooks.moved(text, lies, shown) == expected


def test_links_of_every_page_lead_to_what_the_site_has():
    shown = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*")}
    shown |= {*hooks.FROM_ROOT, *hooks.API, *hooks.notebook_pages()}
    places = {f"docs/{place}": place for place in shown if place.endswith(".md")}
    places |= {there: here for here, there in hooks.FROM_ROOT.items() if here.endswith(".md")}
    count = 0
    for lies, place in places.items():
        if not (ROOT / lies).is_file():
            continue
        for target in hooks._LINK.findall(
            hooks.moved((ROOT / lies).read_text("utf-8"), lies, place)
        ):
            if target[1].endswith((".md", ".png")) and ":" not in target[1]:
                assert target[1] in shown, f"{lies}: {target[1]}"
                count += 1
    assert count > 100


def test_a_notebook_is_a_page():
    text = (
        "# ---\n# jupyter:\n# ---\n\n# %% [markdown]\n# # Title\n#\n# Text\n"
        "# ```text\n# x\n# ```\n\n# %%\n# why\na = 1\n\n# %%\n\n"
    )
    assert hooks.notebook_page(text, "t.ipynb") == (
        '# Title\n\nText\n```text\nx\n```\n\n<a href="t.ipynb">The notebook itself</a>\n\n'
        "```python\n# why\na = 1\n```\n"
    )


def test_code_that_is_named_leads_to_the_api():
    places = hooks.api_places()
    for name in ("mrcnn_tf/ops/nms.py", "ops/nms.py", "nms.py"):
        assert places[name] == "api/ops.md#mrcnn_tfopsnms"
    assert places["train.py"] == "api/commands.md#mrcnn_tftrain"
    assert "report.py" not in places  # there are three
    places = {"ops/nms.py": "o#nms", "mrcnn_tf/ops/nms.py": "o#nms"}
    linked = '<a href="o#nms"><code>{}</code></a>'
    for text, expected in (
        ("<code>mrcnn_tf/ops/nms.py</code>, ", linked.format("mrcnn_tf/ops/nms.py") + ", "),
        ("<code>ops/nms.py</code>", linked.format("ops/nms.py")),
        ("<code>ops/none.py</code>", "<code>ops/none.py</code>"),
        ('<a href="x"><code>ops/nms.py</code></a>', '<a href="x"><code>ops/nms.py</code></a>'),
    ):
        assert hooks.with_links_to_code(text, places) == expected


def test_headings_are_named_as_on_github():
    for page in pages.all_pages():
        found = set()
        for line in page.prose:
            if line.startswith("#") and "](" not in line:
                found.add(hooks.slug(line.lstrip("#").replace("`", ""), "-"))
        assert found <= page.anchors(), page.path


def test_pages_ask_for_pictures_that_are_drawn_and_for_all_of_them():
    asked = [
        name
        for path in sorted(ROOT.glob("docs/*.md"))
        for name in hooks.FIGURE.findall(path.read_text("utf-8"))
    ]
    assert asked == stops()


def test_pictures_stand_in_the_page_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10):
        content = svg.panel((2, 3), f"a < b, {number}", [])
        (tmp_path / f"rois-{number}.svg").write_text(content)
    (tmp_path / "rois-align-1.svg").write_text(svg.panel((2, 3), "another stop's", []))
    html = hooks.pictures("rois", tmp_path)
    captions = re.findall("<figcaption[^>]*>(.*?)<", html)
    assert captions == ["a &lt; b, 1", "a &lt; b, 2", "a &lt; b, 10"]
    assert hooks.pictures("anchors", tmp_path) == ""


def test_a_panel_has_what_was_put_there():
    pixels = np.array([[0, 255]], np.uint8)
    marks = [svg.picture(pixels, (1, 2, 4, 8)), svg.box((1, 2, 4, 8), "positive")]
    marks += [svg.dot((3, 5.005), 1), svg.text((0, 0), "<ring>", 7)]
    root = xml.etree.ElementTree.fromstring(svg.panel((10, 20), "title & more", marks, "a < b"))
    assert root.attrib["viewBox"] == "0 0 20 10"
    title, details, image, rectangle, dot, words = root
    assert [part.text for part in (title, details, words)] == ["title & more", "a < b", "<ring>"]
    lower, upper = rectangle
    assert upper.attrib["stroke"] != lower.attrib["stroke"]
    for element in (image, lower, upper):
        place = [element.attrib[name] for name in ("x", "y", "width", "height")]
        assert place == ["2", "1", "6", "3"]
    assert (dot.attrib["cx"], dot.attrib["cy"]) in {("5", "3"), ("5.01", "3")}
    with pytest.raises(ValueError, match="not float64"):
        svg.picture(pixels / 255.0, (0, 0, 1, 1))


def test_heat_is_brighter_where_more_is():
    np.testing.assert_array_equal(
        svg.heat(np.array([[0.0, 2.0, 4.0], [6.0, 6.0, 0.0]])),
        [[[0, 0, 0], [92, 26, 120], [222, 92, 46]], [[255, 255, 235]] * 2 + [[0, 0, 0]]],
    )
    assert svg.heat(np.full([2, 2], 7.0)).max() == 0
    np.testing.assert_array_equal(svg.tinted(np.array([[0.5, 2.0]]))[..., 3], [[128, 255]])


def test_the_experiment_that_is_quoted_is_the_file():
    first, _ = (b for b in pages.read("docs/how-to-add.md").blocks if b.language == "yaml")
    text = (ROOT / "experiments/maskrcnn_r50_fpn_mask56.yaml").read_text("utf-8")
    assert "".join(line for line in text.splitlines(True) if line[0] != "#") == first.text


def test_nothing_is_asked_of_another_server():
    assert SETTINGS["theme"]["font"] is False
    assert "analytics" not in SETTINGS.get("extra", {})
    for name in (*SETTINGS["extra_css"], *SETTINGS["extra_javascript"]):
        assert "://" not in name
        assert "://" not in (ROOT / "docs" / name).read_text("utf-8")


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Pictures of a network that has learnt for two steps."""
    folder = tmp_path_factory.mktemp("figures")
    command = [sys.executable, str(FOLLOW), f"--output_dir={folder}", "--train_steps=2"]
    subprocess.run(command, check=True, cwd=ROOT)
    return folder


@pytest.mark.slow
def test_an_image_is_followed(figures):
    """Sizes are those of 128 x 128 pixels: 32 x 32 cells of 4 pixels on P2, three anchors each."""
    titles = {}
    for path in figures.glob("*.svg"):
        root = xml.etree.ElementTree.parse(path).getroot()
        title, details = root[0], root[1]
        assert (title.tag[-5:], details.tag[-4:]) == ("title", "desc"), path
        titles[path.stem] = title.text
        assert len(root) > 2, path
    assert {name.rpartition("-")[0] for name in titles} == set(stops())
    assert titles["image-2"].startswith("its objects: ")
    objects = titles["image-2"].removeprefix("its objects: ").split(", ")
    assert sorted(objects) == ["ellipse", "ellipse", "ring", "star"]
    sides = [32, 16, 8, 4, 2]
    for number, side in enumerate(sides, start=1):
        level = f"P{number + 1}"
        assert titles[f"levels-{number}"].startswith(f"{level}: {side} × {side} cells")
        assert titles[f"anchors-{number}"].startswith(f"{level}: {3 * side**2:,} anchors, 3 in")
    every = 3 * sum(side**2 for side in sides)
    assert every == 4092
    for name, at_most in (("anchor-targets", 128), ("rois", 48)):
        positive, negative = (titles[f"{name}-{k}"].split() for k in (1, 2))
        assert 1 <= int(positive[0]) <= at_most // 2
        assert int(positive[0]) + int(negative[0]) == int(positive[4]) <= at_most
    assert titles["anchor-targets-2"].endswith("of 4,092")
    num_candidates = int(titles["rois-2"].split()[-1])
    assert 48 <= num_candidates <= 200 + 4  # proposals and objects
    assert titles["masks-2"] == "its target: 28 × 28, 0 or 1"
    assert "14 × 14 bins" in titles["roi-align-2"]


class BuiltPage(html.parser.HTMLParser):
    """What a page of the site has and asks for.

    Attributes:
      ids: of its elements.
      links: where a reader may go.
      loads: what the browser asks for by itself.
      levels: of its headings, in order.
      unnamed: pictures without a name.
      prose: text of its paragraphs.
    """

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.levels, self.unnamed, self.prose = [], [], []
        self._open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("img", "input", "link", "meta", "br", "hr"):
            self._open.append(tag)
        self.ids |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        elif tag == "link" and attrs["rel"] not in ("prev", "next"):
            self.loads.append(attrs["href"])
        if attrs.get("src"):
            self.loads.append(attrs["src"])
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img" and not attrs.get("alt"):
            self.unnamed.append(attrs["src"])

    def handle_endtag(self, tag):
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] == "p":
            self.prose.append(data)


@pytest.mark.slow
def test_the_site_is_built_and_every_link_in_it_leads_somewhere(figures, tmp_path):
    pytest.importorskip("mkdocs", reason="what builds the site is not installed: make docs")
    for name in ("docs", "mrcnn_tf", "data_prep"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", *hooks.FROM_ROOT.values()):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(figures, tmp_path / "runs/figures")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict"], check=True, cwd=tmp_path)
    site = tmp_path / "runs/site"
    built = {path: BuiltPage(path.read_text("utf-8")) for path in site.rglob("*.html")}
    del built[site / "404.html"]  # its links are from the root, wherever it is shown
    assert len(built) == len(list(entries(SETTINGS["nav"])))
    for path, page in built.items():
        assert page.levels[0] == 1, path
        assert page.levels.count(1) == 1, path
        assert not page.unnamed, path
        for text in page.prose:
            assert not re.search(r"\n(\* |- |\d+\. |\|)", text), f"{path}: a list or table: {text}"
        for target in page.loads:
            assert not urllib.parse.urlsplit(target).netloc, f"{path} asks for {target}"
        for target in (*page.links, *page.loads):
            parts = urllib.parse.urlsplit(target)
            if parts.scheme:
                continue
            other = (path.parent / urllib.parse.unquote(parts.path)).resolve()
            other = path if not parts.path else other
            assert other.exists(), f"{path}: {target}"
            if parts.fragment and other in built:
                assert urllib.parse.unquote(parts.fragment) in built[other].ids, f"{path}: {target}"
    followed = (site / "how-it-works.html").read_text("utf-8")
    assert followed.count("<desc>") == len(list(figures.glob("*.svg")))
    assert "api/modeling.html#mrcnn_tfmodelingmask_rcnn" in followed
