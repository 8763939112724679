"""A page: title, sections, and in them text, numbers, tables, charts and images; see `pages`."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mrcnn_tf.console import whole_file
from mrcnn_tf.pages import markup
from mrcnn_tf.pages.markup import Html, escape

TONES = ("plain", "good", "note", "warning", "error")
_COLORS = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d4d9df; --panel: #f5f7f9;
  --link: #0b5cad;
  --good: #1a7f37; --note: #0b5cad; --warning: #8a5a00; --error: #b3261e;
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #a8427f;
  --s4: #8a6d00; --s5: #3f8fc4; --s6: #882255; --s7: #4b5563;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e6e9ed; --soft: #9aa4af; --line: #353c45; --panel: #1d2228;
    --link: #7cb7f2;
    --good: #5fce7e; --note: #7cb7f2; --warning: #e6b450; --error: #ff8a80;
    --s0: #56b4e9; --s1: #f28a3d; --s2: #2fc79a; --s3: #e08fc0;
    --s4: #e0c341; --s5: #9cc9f0; --s6: #d877a5; --s7: #a6b0bb;
  }
}
"""
_STYLE = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.25rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.subtitle, .intro, figcaption, .more { color: var(--soft); }
nav { margin: .75rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
ul { margin: .4rem 0; padding-left: 1.25rem; max-width: 46rem; overflow-wrap: anywhere; }
.numbers { display: grid; gap: .6rem; margin: .75rem 0;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.numbers div { background: var(--panel); border-radius: .5rem; padding: .6rem .75rem; }
.numbers b { display: block; font-size: 1.35rem; line-height: 1.25; overflow-wrap: anywhere; }
.numbers span { color: var(--soft); font-size: .875rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; max-width: 40rem; }
th { color: var(--soft); font-weight: 600; }
table.stack td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 1rem;
  padding: 0 .55rem; font-size: .8rem; font-weight: 600; white-space: nowrap; }
.good { color: var(--good); } .note { color: var(--note); }
.warning { color: var(--warning); } .error { color: var(--error); } .plain { color: var(--soft); }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--link); padding: .25rem 0; overflow-wrap: anywhere; }
.charts { display: grid; gap: 1.25rem; margin: .75rem 0; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.pictures { display: grid; gap: .9rem; margin: .75rem 0; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 14rem), 1fr)); }
.pictures.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure.chart { max-width: 30rem; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .35rem;
  background: var(--panel); }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .3rem; overflow-wrap: anywhere; }
.chart-title { color: var(--ink); font-weight: 600; font-size: .95rem; margin: 0 0 .25rem; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin: .4rem 0; padding: 0;
  list-style: none; font-size: .85rem; max-width: none; }
.keys i { display: inline-block; width: .8em; height: .8em; border-radius: .2em;
  margin-right: .35em; border: 1px solid var(--line); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 11px; font-family: inherit; }
svg text.soft { fill: var(--soft); }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .grid { stroke: var(--line); stroke-width: 1; }
@media (max-width: 40rem) {
  .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .6rem; }
  .pictures.wide { grid-template-columns: minmax(0, 1fr); }
  table.stack, table.stack tbody, table.stack tr, table.stack td { display: block; }
  table.stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  table.stack tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  table.stack td { border: 0; padding: .1rem 0; text-align: left; white-space: normal; }
  table.stack td[data-label]:not([data-label=""])::before { content: attr(data-label) ": ";
    color: var(--soft); }
}
@media print { details > * { display: block; } figure, tr { break-inside: avoid; } }
"""
# Nothing but what stands in the file: browsers then run no script and ask no server, whatever a
# text that was not escaped might say.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Badge(NamedTuple):
    """A short word with a colour, for a cell of a table.

    Attributes:
      text: the word.
      tone: one of `TONES`.
    """

    text: str
    tone: str = "plain"


class Picture(NamedTuple):
    """An image of a page.

    Attributes:
      uri: `data:` URI of the image, from `thumbnails`.
      caption: below it.
      alt: what it shows, for people who cannot see it.
    """

    uri: str
    caption: str
    alt: str = ""


Cell = str | int | float | Badge | None


class Section:
    """One part of a page; its methods add below what is there."""

    def __init__(self, title: str, intro: str = "") -> None:
        self.title = title
        self._parts: list[str] = [f'<p class="intro">{escape(intro)}</p>'] if intro else []

    def heading(self, text: str) -> None:
        """Add a heading below the section's own."""
        self._parts.append(f"<h3>{escape(text)}</h3>")

    def text(self, text: str, tone: str = "") -> None:
        """Add a paragraph.

        Args:
          text: of it.
          tone: one of `TONES`, or "" for the page's own colour.

        Raises:
          ValueError: an unknown tone.
        """
        self._parts.append(f'<p class="{_tone(tone) if tone else ""}">{escape(text)}</p>')

    def points(self, texts: Iterable[str]) -> None:
        """Add a list of points."""
        self._parts.append("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>")

    def key_numbers(self, numbers: Iterable[tuple[str, Cell]]) -> None:
        """Add tiles, each a large number (or word) above what it counts.

        Args:
          numbers: pairs (what, number).
        """
        tiles = [f"<div><b>{_cell(number)}</b><span>{escape(what)}</span></div>"
                 for what, number in numbers]  # fmt: skip
        self._parts.append(f'<div class="numbers">{"".join(tiles)}</div>')

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        folded: str = "",
        stacked: bool = False,
    ) -> None:
        """Add a table. Columns that hold numbers only are set flush right.

        Args:
          columns: their titles.
          rows: cells of each row, as many as there are columns.
          folded: if given, the table is hidden behind this line until somebody opens it.
          stacked: on narrow screens, write the cells of a row below each other, which long texts
            need, instead of letting the table scroll sideways.

        Raises:
          ValueError: a row of another length.
        """
        cells = [list(row) for row in rows]
        if any(len(row) != len(columns) for row in cells):
            raise ValueError(f"every row needs {len(columns)} cells, one for each of {columns}")
        numeric = [bool(cells) and all(_is_number(row[k]) for row in cells)
                   for k in range(len(columns))]  # fmt: skip
        kinds = [' class="number"' if flag else "" for flag in numeric]
        head = "".join(f'<th scope="col"{kind}>{escape(column)}</th>'
                       for column, kind in zip(columns, kinds, strict=True))  # fmt: skip
        body = "".join(
            "<tr>" + "".join(f'<td{kind} data-label="{escape(column)}">{_cell(cell)}</td>'
                for cell, column, kind in zip(row, columns, kinds, strict=True)) + "</tr>\n"
            for row in cells
        )  # fmt: skip
        table = (
            f'<div class="scroll"><table{" class=stack" if stacked else ""}><thead><tr>{head}</tr>'
            f"</thead>\n<tbody>{body}</tbody></table></div>"
        )
        self._parts.append(_folded(table, folded))

    def charts(self, charts: Iterable[Html], *, folded: str = "") -> None:
        """Add charts side by side, as many as fit.

        Args:
          charts: from `charts.py`.
          folded: if given, they are hidden behind this line until somebody opens it.

        Raises:
          TypeError: one is text, not markup.
        """
        parts = list(charts)
        for part in parts:
            if not isinstance(part, Html):
                raise TypeError(f"a chart comes from charts.py, this is {type(part).__name__}")
        self._parts.append(_folded(f'<div class="charts">{"".join(parts)}</div>', folded))

    def pictures(
        self, pictures: Iterable[Picture], *, folded: str = "", wide: bool = False
    ) -> None:
        """Add images in a grid, each above its caption.

        Args:
          pictures: the images.
          folded: if given, they are hidden behind this line until somebody opens it.
          wide: fewer, larger ones side by side, as for pairs of images.

        Raises:
          ValueError: an image that is not within the page.
        """
        figures = []
        for picture in pictures:
            if not picture.uri.startswith("data:image/"):
                raise ValueError(f"an image of a page is a data URI, not {picture.uri[:40]!r}")
            figures.append(
                f'<figure><img src="{escape(picture.uri)}" alt="{escape(picture.alt)}">'
                f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
            )
        kind = "pictures wide" if wide else "pictures"
        self._parts.append(_folded(f'<div class="{kind}">{"".join(figures)}</div>', folded))

    def color_keys(self, keys: Iterable[tuple[str, Sequence[int]]]) -> None:
        """Add a line that says what colours mean.

        Args:
          keys: pairs (name, (r, g, b)), the latter 0..255.
        """
        self._parts.append(color_keys(
            (name, "#" + "".join(f"{int(value):02x}" for value in rgb)) for name, rgb in keys
        ))  # fmt: skip

    def html(self, anchor: str) -> Html:
        """Return the section's markup; `anchor` is the name links find it by."""
        body = "\n".join(self._parts)
        return Html(f'<section id="{anchor}"><h2>{escape(self.title)}</h2>\n{body}\n</section>')


class Page:
    """One HTML file.

    Attributes:
      title: of the window and above the page.
      subtitle: below the title.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[Section] = []

    def section(self, title: str, intro: str = "") -> Section:
        """Add a section and return it, to be filled.

        Args:
          title: its heading, and its name in the list of sections.
          intro: a sentence or two below it.
        """
        self._sections.append(Section(title, intro))
        return self._sections[-1]

    def html(self) -> str:
        """Return the whole file."""
        anchors = [f"s{k}" for k in range(len(self._sections))]
        links = "".join(
            f'<a href="#{anchor}">{escape(section.title)}</a>'
            for anchor, section in zip(anchors, self._sections, strict=True)
        )
        body = "\n".join(
            section.html(anchor)
            for anchor, section in zip(anchors, self._sections, strict=True)
        )  # fmt: skip
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_COLORS}{_STYLE}</style>\n</head>\n"
            f"<body>\n<header><h1>{escape(self.title)}</h1>\n"
            f'<p class="subtitle">{escape(self.subtitle)}</p>\n<nav>{links}</nav></header>\n'
            f"<main>\n{body}\n</main>\n</body>\n</html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page; a page of that name is replaced at once, never half written."""
        whole_file.write(path, self.html())


def color_keys(keys: Iterable[tuple[str, str]]) -> Html:
    """Return a list of colours and what they mean; colours are CSS colours of our own."""
    return Html('<ul class="keys">' + "".join(
        f'<li><i style="background:{color}"></i>{escape(name)}</li>' for name, color in keys
    ) + "</ul>")  # fmt: skip


def _is_number(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool))


def _cell(cell: Cell) -> str:
    if isinstance(cell, Badge):
        return f'<span class="badge {_tone(cell.tone)}">{escape(cell.text)}</span>'
    return escape(markup.plain(cell))


def _tone(tone: str) -> str:
    if tone not in TONES:
        raise ValueError(f"tone must be one of {', '.join(TONES)}, not {tone!r}")
    return tone


def _folded(html: str, line: str) -> str:
    return f"<details><summary>{escape(line)}</summary>{html}</details>" if line else html
