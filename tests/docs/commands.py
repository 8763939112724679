"""What the documentation has people type: found, taken apart, and the flags that there are."""

import ast
import dataclasses
import functools
import pathlib
import re
import shlex
import tomllib
from collections.abc import Iterator

from tests.docs import pages

ROOT = pages.ROOT
# What a command between backticks begins with.
_IN_PROSE = re.compile(
    r"(?:[A-Z_]+=\S* +)*"
    r"(?:(?:nice .* )?python3?(?:\.\d+)? (?!-c )|pip install|make [a-z]|pytest |mrcnn-[a-z-]+ )"
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]+=")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      where: page and line of what holds it.
      words: as the shell would split them, without assignments before the program.
    """

    where: str
    words: tuple[str, ...]

    @property
    def file(self) -> pathlib.Path | None:
        """The file of ours that it runs; None of another program."""
        if self.words[0].startswith("mrcnn-"):
            return _file_of_module(_scripts()[self.words[0]])
        program, *rest = self.words
        if not re.fullmatch(r"(?:\S*/)?python(?:3(?:\.\d+)?)?", program) or not rest:
            return None
        if rest[0] == "-m":
            return _file_of_module(rest[1])
        return ROOT / rest[0] if rest[0].endswith(".py") and "/" in rest[0] else None

    @property
    def is_a_name(self) -> bool:
        """Whether it is no more than a name: a command of ours that needs flags, without any."""
        needs_flags = self.file and self.file.parent.name in ("mrcnn_tf", "data_prep")
        return bool(needs_flags) and not self.flags and self.file.name != "env.py"

    @property
    def flags(self) -> list[str]:
        """Names of its flags, without those behind `--`, which are another program's."""
        words = self.words[: self.words.index("--")] if "--" in self.words else self.words
        return [word[2:].partition("=")[0] for word in words if word.startswith("--")]

    @property
    def key(self) -> str:
        """Under which it is listed: of our programs the name and the flags, of others all of it."""
        if not self.file:
            return " ".join(self.words)
        name = self.file.relative_to(ROOT).as_posix()
        return " ".join([name, *(f"--{flag}" for flag in sorted(set(self.flags)))])


def _file_of_module(name: str) -> pathlib.Path | None:
    path = ROOT / (name.removeprefix("mrcnn_tf.data_prep.").replace(".", "/") + ".py")
    inside = ROOT / "data_prep" / path.name
    if name.startswith("mrcnn_tf.data_prep."):
        return inside
    if name.startswith(("mrcnn_tf.", "benchmarks.", "tests.", "data_prep.")):
        return path
    return None


@functools.cache
def _scripts() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {name: door.partition(":")[0] for name, door in project["scripts"].items()}


def split(text: str) -> Iterator[tuple[int, list[str]]]:
    """Split the text of a shell into commands: which line each begins in, and its words."""
    lines, waiting, begins = text.splitlines(), "", 0
    for number, line in enumerate(lines):
        begins = begins if waiting else number
        waiting += line
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
            continue
        lexer = shlex.shlex(waiting, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quotation that the next line goes on with
            waiting += "\n"
            continue
        waiting = ""
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("|&;"):
                while command and _ASSIGNMENT.match(command[0]):
                    command.pop(0)
                if command[:1] == ["nice"]:
                    command = command[3:]
                if command:
                    yield begins, command
                command = []
            else:
                command.append(word)
    assert not waiting, f"it does not end: {waiting!r}"


def in_blocks() -> list[Command]:
    """Every command of a block `sh`."""
    return [
        Command(f"{block.page}:{block.line + line}", tuple(words))
        for block in pages.all_blocks("sh")
        for line, words in split(block.text)
    ]


def in_prose() -> list[Command]:
    """Every command between backticks that is one to type, with what it is given."""
    found = []
    for page in pages.all_pages():
        if page.path == "CHANGELOG.md":
            continue
        for line, span in page.spans():
            if _IN_PROSE.match(span):
                found += [Command(f"{page.path}:{line}", tuple(words)) for _, words in split(span)]
    return [command for command in found if not command.is_a_name]


@functools.cache
def flags_of(file: pathlib.Path) -> frozenset[str]:
    """Names of the flags that a program of ours defines, read from its text and not by running it.

    Functions `define_flag...` of modules that it imports count if it calls them. What `train` takes
    only to refuse it is defined in a loop, and does not.
    """
    tree = ast.parse(file.read_text("utf-8"))
    modules = dict(imported(tree, file))
    found = {"help", "helpfull"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("define_flag"):
            if isinstance(node.value, ast.Name) and (other := modules.get(node.value.id)):
                found |= flags_of(other)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.args[0].value if _begins_with_text(node) else ""
            if node.func.attr.startswith("DEFINE_") and first:
                boolean = node.func.attr in ("DEFINE_bool", "DEFINE_boolean")
                found |= {first, f"no{first}"} if boolean else {first}
            elif node.func.attr == "add_argument" and first.startswith("--"):
                found.add(first[2:])
                if "BooleanOptionalAction" in ast.unparse(node):
                    found.add(f"no-{first[2:]}")
    return frozenset(found)


def _begins_with_text(node: ast.Call) -> bool:
    return bool(node.args) and isinstance(getattr(node.args[0], "value", None), str)


def imported(tree: ast.AST, file: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Yield names and files of the modules of ours that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            candidates = [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = node.module or ""
            if node.level:
                above = ".".join([*file.relative_to(ROOT).parent.parts, *above.split(".")])
                above = above.rstrip(".")
            candidates = [(a.asname or a.name, f"{above}.{a.name}") for a in node.names]
        else:
            continue
        for name, module in candidates:
            for base in (ROOT, file.parent):  # benchmarks import each other as scripts do
                path = base / (module.replace(".", "/") + ".py")
                if path.is_file():
                    yield name, path
                    break
