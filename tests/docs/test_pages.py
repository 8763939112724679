"""Links, anchors, languages of blocks, and that nothing which is there is left unnamed."""

import re
import urllib.parse

import pytest

from tests.docs import pages

LANGUAGES = {"sh", "bash", "python", "text", "yaml", "json", "dockerfile", "bibtex"}
PAGES = pages.all_pages()


def test_all_pages_are_found():
    assert {"README.md", "CHANGELOG.md", "docs/architecture.md"} <= {page.path for page in PAGES}
    assert len(PAGES) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_every_link_inside_leads_somewhere(page):
    folder = (pages.ROOT / page.path).parent
    for line, target in page.links():
        parts = urllib.parse.urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("https", "http", "mailto"), f"{page.path}:{line}: {target}"
            continue
        path = (folder / urllib.parse.unquote(parts.path)).resolve() if parts.path else None
        where = f"{page.path}:{line}: {target}"
        assert path is None or path.exists(), f"{where}: there is no such file"
        assert path is None or path.is_relative_to(pages.ROOT), f"{where}: outside the project"
        if parts.fragment:
            other = pages.read(path.relative_to(pages.ROOT).as_posix()) if path else page
            assert parts.fragment in other.anchors(), f"{where}: there is no such heading"


def test_every_page_of_the_documentation_is_led_to_from_the_readme():
    """Directly or by the pages that it leads to."""
    waiting, seen = ["README.md"], set()
    while waiting:
        name = waiting.pop()
        if name in seen or not name.endswith(".md"):
            continue
        seen.add(name)
        for _, target in pages.read(name).links():
            parts = urllib.parse.urlsplit(target)
            if not parts.scheme and parts.path:
                path = ((pages.ROOT / name).parent / parts.path).resolve()
                waiting.append(path.relative_to(pages.ROOT).as_posix())
    assert {page.path for page in PAGES if not page.path.startswith(".github/")} <= seen


def test_every_block_says_its_language():
    for page in PAGES:
        for block in page.blocks:
            assert block.language in LANGUAGES, f"{block.where}: {block.language!r}"


def test_every_experiment_is_on_the_models_page():
    listed = {span for _, span in pages.read("docs/models.md").spans()}
    there = {path.stem for path in (pages.ROOT / "experiments").glob("*.yaml")}
    assert len(there) > 40
    assert there - listed == set(), "each stands in a row of docs/models.md, between backticks"
    of_experiments = r"(?:(?:cascade_)?maskrcnn|fasterrcnn|rpn|pointrend|maskscoring)_\w+"
    named = {name for name in listed if re.fullmatch(of_experiments, name)}
    assert named - there == set(), "there is no such file in experiments/"


def test_files_that_are_named_are_there():
    """Paths of code between backticks, as `mrcnn_tf/train.py`."""
    of_code = re.compile(
        r"(?:mrcnn_tf|data_prep|benchmarks|tests|experiments|docs|web)/[\w/.\-]*\.(?:py|yaml|md|html)"
    )
    for page in PAGES:
        if page.path == "CHANGELOG.md":  # it tells of what is gone, too
            continue
        for line, span in page.spans():
            for name in of_code.findall(span):
                assert (pages.ROOT / name).is_file(), f"{page.path}:{line}: {name}"


def test_every_room_and_every_command_is_on_the_page_of_files():
    """A room without a row of its own stands in that of the rooms that share one."""
    package = pages.ROOT / "mrcnn_tf"
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    files = {path.name for path in package.glob("*.py") if path.name != "__init__.py"}
    text = " ".join(span for _, span in pages.read("docs/files.md").spans())
    assert {name for name in rooms | files if name not in text} == set()


def test_a_page_is_taken_apart(tmp_path, monkeypatch):
    text = (
        "# A `b` (c), d!\n## Twice\n## Twice\n[x](y.md#z) ![p](<q.png>) `[no](link)` `a\nb`\n"
        "```sh\n[not](a-link) # not a heading\n```\n[r]: s.md\n"
    )
    (tmp_path / "page.md").write_text(text)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    page = pages.read.__wrapped__("page.md")
    assert page.anchors() == {"a-b-c-d", "twice", "twice-1"}
    assert page.links() == [(4, "y.md#z"), (4, "q.png"), (9, "s.md")]
    assert [span for _, span in page.spans()] == ["b", "[no](link)", "a b"]
    (block,) = page.blocks
    assert (block.line, block.language) == (7, "sh")
    assert block.text == "[not](a-link) # not a heading\n"
