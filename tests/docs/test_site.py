"""The site: all pages are in its navigation, links lead somewhere, and pictures are of tensors."""

import ast
import importlib.util
import subprocess
import sys
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
        for content in entry.values():
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
    assert len(named) > 35
    assert sorted(named) == sorted([*in_docs, *from_root, *hooks.API])


def test_what_lies_elsewhere_is_there():
    for path in hooks.FROM_ROOT.values():
        assert (ROOT / path).is_file()
    for place, (_, _, patterns) in hooks.API.items():
        found = hooks.modules(patterns)
        assert len(found) >= 4, place
        for module in found:
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
        text = hooks.api_page(place)
        assert text.count("\n::: ") == len(found)


@pytest.mark.parametrize(
    ("lies", "shown", "text", "expected"),
    [
        ("docs/a.md", "a.md", "[x](../README.md#y)", "[x](index.md#y)"),
        ("docs/a.md", "a.md", "[x](start.md#y) [z](#w)", "[x](start.md#y) [z](#w)"),
        ("README.md", "index.md", "![p](docs/demo.png)", "![p](demo.png)"),
        ("README.md", "index.md", "[r]: docs/start.md", "[r]: start.md"),
        ("README.md", "index.md", "[c](CITATION.cff)", "[c](CITATION.cff)"),
        ("CHANGELOG.md", "changelog.md", "[x](docs/runs.md)", "[x](runs.md)"),
        ("docs/a.md", "a.md", "[x](https://docs/start.md)", "[x](https://docs/start.md)"),
        ("docs/a.md", "a.md", "[x](there-is-none.md)", "[x](there-is-none.md)"),
    ],
)  # fmt: skip
def test_links_lead_where_things_are_on_the_site(lies, shown, text, expected):
    assert hooks.moved(text, lies, shown) == expected


def test_links_of_every_page_lead_to_what_the_site_has():
    shown = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*")}
    shown |= {*hooks.FROM_ROOT, *hooks.API}
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
    captions = [part.partition("<")[0] for part in html.split("<figcaption>")[1:]]
    assert captions == ["a &lt; b, 1", "a &lt; b, 2", "a &lt; b, 10"]
    assert hooks.pictures("anchors", tmp_path) == ""


def test_a_panel_has_what_was_put_there():
    pixels = np.array([[0, 255]], np.uint8)
    marks = [svg.picture(pixels, (1, 2, 4, 8)), svg.box((1, 2, 4, 8), "positive")]
    marks += [svg.dot((3, 5.005), 1), svg.text((0, 0), "<ring>", 7)]
    root = xml.etree.ElementTree.fromstring(svg.panel((10, 20), "title & more", marks))
    assert root.attrib["viewBox"] == "0 0 20 10"
    title, image, rectangle, dot, words = root
    assert (title.text, words.text) == ("title & more", "<ring>")
    for element in (image, rectangle):
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
    assert not SETTINGS.get("extra_javascript")
    assert all("://" not in name for name in SETTINGS["extra_css"])
    assert "://" not in (ROOT / "docs/site/style.css").read_text("utf-8")


@pytest.mark.slow
def test_an_image_is_followed(tmp_path):
    """Sizes are those of 128 x 128 pixels: 32 x 32 cells of 4 pixels on P2, three anchors each."""
    command = [sys.executable, str(FOLLOW), f"--output_dir={tmp_path}", "--train_steps=2"]
    subprocess.run(command, check=True, cwd=ROOT)
    titles = {}
    for path in tmp_path.glob("*.svg"):
        root = xml.etree.ElementTree.parse(path).getroot()
        titles[path.stem] = root[0].text
        assert len(root) > 1 or path.stem.startswith("detections"), path
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
    for name, of, at_most in (("anchor-targets", every, 128), ("rois", 204, 48)):
        positive, negative = (titles[f"{name}-{k}"].split() for k in (1, 2))
        assert 1 <= int(positive[0]) <= at_most // 2
        assert int(positive[0]) + int(negative[0]) == int(positive[4]) <= at_most
        assert f"of {of:,}" in titles[f"{name}-2"]
    assert titles["masks-2"] == "its target: 28 × 28, 0 or 1"
    assert "14 × 14 bins" in titles["roi-align-2"]
