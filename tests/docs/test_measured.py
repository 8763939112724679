"""Tables of numbers say which command printed them, and at which commit."""

import re
import subprocess

import pytest

from tests.docs import commands, pages, stale_numbers

ROOT = pages.ROOT
PAGES = ("docs/results.md", "docs/performance.md")
SENTENCES = [sentence for name in PAGES for sentence in stale_numbers.sentences(pages.read(name))]


def tables(page: pages.Page) -> list[tuple[int, list[str], str]]:
    """Line, rows and the first line behind each table that has numbers in it."""
    found, start = [], None
    lines = [*page.prose, ""]
    for k, line in enumerate(lines):
        if line.startswith("|") and start is None:
            start = k
        elif not line.startswith("|") and start is not None:
            behind = next((text for text in lines[k:] if text), "")
            if any(re.search(r"\d", row) for row in lines[start:k]):
                found.append((start + 1, lines[start:k], behind))
            start = None
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_table_of_numbers_says_command_and_commit(name):
    page = pages.read(name)
    assert len(tables(page)) >= 5
    for line, _, behind in tables(page):
        assert behind.startswith("Measured at "), (
            f"{name}:{line}: below the table has to stand: Measured at `COMMIT` by `COMMAND`."
        )
    said = "\n".join(page.prose).count("Measured at ")
    assert len(stale_numbers.sentences(page)) == said, "one is not in the usual form"


@pytest.mark.parametrize("name", PAGES)
def test_every_section_of_numbers_says_where_they_come_from(name):
    """Numbers between tables too: the section has a commit and a command, or tests hold them."""
    prose = "\n".join(pages.read(name).prose)
    _, *sections = re.split(r"^## ", prose, flags=re.MULTILINE)
    assert len(sections) >= 5
    for section in sections:
        title, text = section.split("\n", 1)
        if re.search(r"\d\.\d", text):
            assert re.search("Measured at `[0-9a-f]{7}|`pytest ", text), f"{name}: {title}"


def test_the_commands_are_ones_whose_code_is_known():
    for sentence in SENTENCES:
        for command in sentence.commands:
            if not command.startswith("--"):
                where = f"{sentence.page}:{sentence.line}"
                assert stale_numbers.programs(command), f"{where}: {command}"


def test_the_commits_are_in_the_history():
    git = ["git", "-C", str(ROOT)]
    whole = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True)
    if whole.returncode or whole.stdout.strip() != b"false":
        pytest.skip("no checkout with its history")
    for sentence in SENTENCES:
        for commit in sentence.commits:
            done = subprocess.run(
                [*git, "merge-base", "--is-ancestor", commit, "HEAD"], capture_output=True
            )
            assert done.returncode == 0, f"{sentence.page}:{sentence.line}: no commit {commit}"


def test_the_code_of_a_command_is_what_it_imports_and_starts():
    names = {
        command: {file.relative_to(ROOT).as_posix() for file in stale_numbers.code_of(command)}
        for command in ("python benchmarks/roi_align.py", "make bench BENCH=--only=predict")
    }
    of_roi_align, of_predict = names.values()
    assert {"benchmarks/roi_align.py", "mrcnn_tf/ops/roi_align.py"} <= of_roi_align
    assert not [
        name for name in of_roi_align if name.startswith(("data_prep/", "mrcnn_tf/staged/"))
    ]
    assert "benchmarks/predict.py" in of_predict
    assert "benchmarks/train_step.py" not in of_predict
    demo = [file.name for file in stale_numbers.programs("make demo")]
    assert demo == ["demo.py"]
    started = stale_numbers._neighbours(ROOT / "mrcnn_tf/demo.py")
    assert ROOT / "mrcnn_tf/train.py" in started


def test_the_list_is_made(tmp_path, monkeypatch):
    """In a repository of two commits: a table before and one behind the change of its code."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]

    def commit(text: str) -> str:
        (tmp_path / "benchmarks" / "a.py").write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", text], check=True)
        done = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "benchmarks").mkdir()
    subprocess.run([*git, "init", "-q"], check=True)
    first, second = commit("x = 1"), commit("x = 2")
    text = "Measured at `{}`{} by `python benchmarks/a.py`.\n"
    (tmp_path / "page.md").write_text(
        text.format(first, "") + text.format(second, "") + text.format(second, f" and `{first}`")
    )
    for module in (stale_numbers, commands, pages):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    page = pages.read.__wrapped__("page.md")
    monkeypatch.setattr(pages, "all_pages", lambda: [page])
    since = [f"page.md:1: 1 changes since {first}: python benchmarks/a.py", f"    {second} x = 2"]
    none = ["page.md:2: of now: python benchmarks/a.py"]
    both = [since[0].replace(":1:", ":3:"), since[1]]
    assert list(stale_numbers.report()) == since + none + both
