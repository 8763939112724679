"""Pages of the documentation taken apart: headings, links, blocks, text between backticks."""

import dataclasses
import functools
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(\s*)(`{3,})(.*)$")


@dataclasses.dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
      page: path from the root.
      line: of the first line inside.
      language: what the fence says.
      text: the lines inside, without the fence's indent.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
      path: from the root.
      prose: its lines, with empty ones in the place of blocks.
      blocks: in order.
    """

    path: str
    prose: tuple[str, ...]
    blocks: tuple[Block, ...]

    def anchors(self) -> set[str]:
        """What a link may name behind `#`, as GitHub makes it of headings."""
        found: set[str] = set()
        for line in self.prose:
            if heading := re.match(r"#{1,6} +(.*?) *#*$", line):
                text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading[1])
                slug = re.sub(r"[^\w\- ]", "", text.lower().replace("`", "")).replace(" ", "-")
                number = 0
                while (unique := f"{slug}-{number}" if number else slug) in found:
                    number += 1
                found.add(unique)
            found |= set(re.findall(r'<a (?:id|name)="([^"]+)"', line))
        return found

    def links(self) -> list[tuple[int, str]]:
        """Line and target of every link and image."""
        text = "\n".join(re.sub(r"`[^`]*`", "", line) for line in self.prose)
        targets = re.finditer(r"\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
        of_references = re.finditer(r"^\[[^]]+\]:\s*(\S+)", text, re.MULTILINE)
        of_html = re.finditer(r"(?:src|href|srcset)=\"([^\"]+)\"", text)
        found = [*targets, *of_references, *of_html]
        return [(text.count("\n", 0, match.start()) + 1, match[1]) for match in found]

    def spans(self) -> list[tuple[int, str]]:
        """Line and text of everything between single backticks; it may go over a line's end."""
        text = "\n".join(self.prose)
        found = re.finditer(r"(?<!`)`([^`]+(?:\n[^`\n]+)?)`(?!`)", text)
        return [
            (text.count("\n", 0, match.start()) + 1, " ".join(match[1].split())) for match in found
        ]


@functools.cache
def read(path: str) -> Page:
    """Take a page apart; `path` is from the root."""
    prose, blocks, inside = [], [], None
    for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if inside is None and fence:
            inside = (number + 1, fence[1], fence[2], fence[3].strip(), [])
        elif inside is not None and fence and fence[2] == inside[2] and not fence[3]:
            start, _, _, language, lines = inside
            blocks.append(Block(path, start, language, "".join(f"{text}\n" for text in lines)))
            inside = None
        elif inside is not None:
            inside[4].append(line.removeprefix(inside[1]))
        prose.append(line if inside is None and not fence else "")
    assert inside is None, f"{path}: a block without an end"
    return Page(path, tuple(prose), tuple(blocks))


def all_pages() -> list[Page]:
    """Every page that a user is led to; notebooks run by themselves."""
    paths = [path for name in ("*.md", "docs/**/*.md", ".github/*.md") for path in ROOT.glob(name)]
    names = sorted(path.relative_to(ROOT).as_posix() for path in paths)
    return [read(name) for name in names if not name.startswith("docs/notebooks/")]


def all_blocks(*languages: str) -> list[Block]:
    """Blocks of these languages, of all pages."""
    found = [block for page in all_pages() for block in page.blocks]
    return [block for block in found if block.language in languages]
