"""Which numbers of the documentation are older than the code they measure.

    python -m tests.docs.stale_numbers

Every table of numbers says below it "Measured at `COMMIT` by `COMMAND`". The code that a command
measures are its file and all files of ours that it imports or names as a command. Listed is what
has changed in them since the commit, the oldest if there are several. That is no error: it says
what to measure again first, and leaves it to people whether a change can have mattered.
"""

import ast
import dataclasses
import functools
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

from tests.docs import commands, pages

ROOT = pages.ROOT
_MEASURED = re.compile(
    r"Measured at ((?:`[0-9a-f]{7,40}`(?:, | and )?)+) by ((?:.|\n)*?`)[.;,]?(?:\n|$)"
)
# Our modules and scripts where they stand in code as text: what another command runs.
_NAMED = re.compile(r"(?:-m )?(mrcnn_tf(?:\.\w+)+)|((?:data_prep/|peers/)?\w+\.py)")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One such sentence.

    Attributes:
      page: path from the root.
      line: where it stands.
      commits: short hashes.
      commands: as they are typed.
    """

    page: str
    line: int
    commits: tuple[str, ...]
    commands: tuple[str, ...]


def sentences(page: pages.Page) -> list[Measured]:
    """Every such sentence of a page."""
    text = "\n".join(page.prose)
    found = []
    for match in _MEASURED.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        spans = re.findall(r"`([^`]+)`", match[2])
        commits = tuple(re.findall(r"`([0-9a-f]+)`", match[1]))
        found.append(Measured(page.path, line, commits, tuple(" ".join(s.split()) for s in spans)))
    return found


def programs(command: str) -> list[pathlib.Path]:
    """The files that a command runs; of `make bench`, those of the groups that it chooses."""
    (words,) = [words for _, words in commands.split(command)]
    if words[:2] == ["make", "demo"]:
        return [ROOT / "mrcnn_tf/demo.py"]
    if words[:2] == ["make", "bench"]:
        flags = " ".join(word.removeprefix("BENCH=") for word in words[2:])
        only = re.search(r"--only=[\"']?([^\"']*)", flags)
        return _scripts_of_groups(only[1] if only else "")
    file = commands.Command("", tuple(words)).file
    return [file] if file else []


def _scripts_of_groups(only: str) -> list[pathlib.Path]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import run  # imports nothing but Python's own library

    chosen = [group for group in run.groups() if re.search(only, group.name)]
    scripts = {command[0] for group in chosen for command in group.commands.values()}
    return [ROOT / "benchmarks" / script for script in sorted(scripts)]


@functools.cache
def _neighbours(file: pathlib.Path) -> frozenset[pathlib.Path]:
    """Files of ours that a file imports, or names as commands."""
    tree = ast.parse(file.read_text("utf-8"))
    found = {path for _, path in commands.imported(tree, file)}
    bases = (ROOT, file.parent, ROOT / "data_prep")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if named := _NAMED.fullmatch(node.value):
            text = named[1].replace(".", "/") + ".py" if named[1] else named[2]
            found |= {base / text for base in bases if (base / text).is_file()}
    return frozenset(found)


def code_of(command: str) -> list[pathlib.Path]:
    """All files of ours that a command runs."""
    waiting, seen = programs(command), set()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _neighbours(file)
    return sorted(seen)


def changes(measured: Measured) -> list[str]:
    """The commits since that changed what is measured, the newest first, a line each."""
    files = {file for command in measured.commands for file in code_of(command)}
    names = sorted(file.relative_to(ROOT).as_posix() for file in files)
    since = _oldest(measured.commits)
    return _git("log", "--format=%h %s", f"{since}..HEAD", "--", *names).splitlines()


def _oldest(commits: tuple[str, ...]) -> str:
    """The one that all others stand on."""
    base = _git("merge-base", "--octopus", *commits).strip()
    return next(commit for commit in commits if base.startswith(commit))


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def report() -> Iterator[str]:
    """Yield a line per table, and below it what has changed."""
    for page in pages.all_pages():
        for measured in sentences(page):
            since = changes(measured)
            state = f"{len(since)} changes since {_oldest(measured.commits)}" if since else "of now"
            yield f"{measured.page}:{measured.line}: {state}: {'; '.join(measured.commands)}"
            yield from (f"    {line}" for line in since[:3])
            if len(since) > 3:
                yield f"    and {len(since) - 3} more"


if __name__ == "__main__":
    for line in report():
        print(line)
