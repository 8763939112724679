"""What the site has beside the pages of `docs/`: MkDocs calls the functions that begin with `on_`.

* Pages that lie in the root, where GitHub looks for them: README (the site's first page) and more.
* The API, a page per room or two, of the docstrings of the files that are there.
* The notebooks, as they are written, and a page that leads to them.
* The pictures of `follow_an_image.py`, where a page has `<!-- figure: STOP -->`.
* Links: in the files they lead where GitHub looks, on the site where the page is; and files of code
  that a page names, as `mrcnn_tf/train.py`, lead to their place in the API.

Nothing but MkDocs is imported, and that where it is needed: `tests/docs/test_site.py` reads this.
"""

import logging
import pathlib
import posixpath
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIGURES = ROOT / "runs/figures"
FIGURE = re.compile(r"<!-- figure: ([\w-]+) -->")

# {where it is on the site: where it lies}.
FROM_ROOT = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "LICENSE": "LICENSE",
    "CITATION.cff": "CITATION.cff",
}

# {where it is on the site: (title, what stands there, modules)}; "room.*" stands for all modules of
# a room that are not named elsewhere.
API = {
    "api/python.md": (
        "Python API",
        "What a program imports: networks, an experiment with its checkpoint, a served model.",
        (
            "mrcnn_tf.models",
            "mrcnn_tf.detector",
            "mrcnn_tf.checkpoints",
            "mrcnn_tf.client",
            "mrcnn_tf.sahi_model",
        ),
    ),
    "api/commands.md": (
        "Commands",
        "What a person types. `--help` lists a command's flags, `--helpfull` its libraries' too.",
        ("mrcnn_tf.*",),
    ),
    "api/modeling.md": (
        "Networks",
        "Backbones, pyramid, RPN, heads, targets and losses, and the networks made of them.",
        ("mrcnn_tf.modeling.*",),
    ),
    "api/ops.md": (
        "Operations",
        "Pure functions: boxes, anchors, matching, sampling, NMS, RoIAlign, masks.",
        ("mrcnn_tf.ops.*",),
    ),
    "api/data.md": (
        "Data",
        "From records to batches, and COCO files.",
        ("mrcnn_tf.data.*",),
    ),
    "api/images.md": (
        "Image files",
        "Finding, reading and drawing them.",
        ("mrcnn_tf.images.*",),
    ),
    "api/data_prep.md": (
        "Preparing data",
        "From other formats to COCO, from COCO to records, and the synthetic shapes.",
        ("data_prep.*", "data_prep.formats.*", "data_prep.tfds.*", "data_prep.tfds.coco_folder.*"),
    ),
    "api/experiment.md": (
        "Experiments",
        "What an experiment may say, and putting one together.",
        ("mrcnn_tf.experiment.*",),
    ),
    "api/training.md": (
        "Training",
        "The step, the loop around it, what is checked, logged and saved; and training in stages.",
        ("mrcnn_tf.training.*", "mrcnn_tf.staged.*"),
    ),
    "api/evaluation.md": (
        "Evaluation and analysis",
        "From detections to COCO's numbers, and what else can be read from them.",
        ("mrcnn_tf.evaluation.*", "mrcnn_tf.analysis.*"),
    ),
    "api/reports.md": (
        "Reports",
        "Of annotated photos, of a run, and the pages that show them.",
        ("mrcnn_tf.inspection.*", "mrcnn_tf.reporting.*", "mrcnn_tf.pages.*"),
    ),
    "api/serving.md": (
        "Exports",
        "What goes around the network in an export, and running it over images and films.",
        ("mrcnn_tf.serving.*", "mrcnn_tf.beam.*"),
    ),
    "api/edge.md": (
        "Edge",
        "The network as a LiteRT or ONNX file.",
        ("mrcnn_tf.edge.*",),
    ),
    "api/results.md": (
        "Results and served models",
        "What was found, the forms of other tools, and asking a server; without TensorFlow.",
        ("mrcnn_tf.results.*", "mrcnn_tf.remote.*"),
    ),
    "api/weights.md": (
        "Weights of other projects",
        "Reading and writing them.",
        ("mrcnn_tf.weights.*",),
    ),
    "api/console.md": (
        "Console",
        "What commands share: flags, progress, durations, where files are.",
        ("mrcnn_tf.console.*",),
    ),
}

NOTEBOOKS = "notebooks/index.md"

_LINK = re.compile(r"(\]\(<?|^\[[^]]+\]:\s*)([^)>\s#]+)", re.MULTILINE)
# A file of code by itself between backticks, but in a link or above its own source.
_NAMED_FILE = re.compile(r"(?<!Source code in )<code>((?:[a-z]\w*/)*\w+\.py)</code>(?!</a>)")
_SOURCE = '<details class="mkdocstrings-source">'
_log = logging.getLogger("mkdocs.hooks")


def modules(place: str) -> list[str]:
    """Names of a page's modules, those of a room in the order of the alphabet."""
    named = {name for _, _, patterns in API.values() for name in patterns}
    found = []
    for pattern in API[place][2]:
        if not pattern.endswith(".*"):
            found.append(pattern)
            continue
        room = pattern.removesuffix(".*")
        files = sorted((ROOT / room.replace(".", "/")).glob("*.py"))
        names = [f"{room}.{file.stem}" for file in files if file.stem != "__init__"]
        found += [name for name in names if name not in named]
    return found


def api_page(place: str) -> str:
    """The Markdown of a page of the API, which mkdocstrings fills."""
    title, what, _ = API[place]
    sections = [f"## `{module}`\n\n::: {module}" for module in modules(place)]
    return "\n\n".join([f"# {title}", what, *sections]) + "\n"


def notebook_pages() -> dict[str, str]:
    """{where it is on the site: the Markdown of a notebook, or of the page that leads to them}."""
    pages, titles = {}, []
    for path in sorted((ROOT / "docs/notebooks").glob("*.py")):
        page = f"notebooks/{path.stem}.md"
        pages[page] = notebook_page(path.read_text("utf-8"), f"{path.stem}.ipynb")
        titles.append(f"* [{pages[page].partition(chr(10))[0].lstrip('# ')}]({path.stem}.md)")
    what = "They need no downloads and take minutes on two cores; each says how it is run."
    return {NOTEBOOKS: "\n".join(["# Notebooks", "", what, "", *titles, ""]), **pages}


def notebook_page(text: str, notebook: str) -> str:
    """The Markdown of a notebook that is written as a script, in the form "py:percent".

    Args:
      text: of the script.
      notebook: the name of the same as a notebook, beside the page.
    """
    parts = []
    for cell in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:  # before the first: its settings
        kind, _, content = cell.partition("\n")
        if "[markdown]" in kind:
            parts.append(re.sub(r"^# ?", "", content, flags=re.MULTILINE).strip())
        elif content.strip():
            parts.append(f"```python\n{content.strip()}\n```")
    parts.insert(1, f'<a href="{notebook}">The notebook itself</a>')
    return "\n\n".join(parts) + "\n"


def api_places() -> dict[str, str]:
    """{a file of code, as pages name it: its place in the API, as PAGE.md#HEADING}.

    A file is named from the root, from the package, or by its own name if no other file has it.
    """
    places: dict[str, set[str]] = {}
    for place in API:
        for module in modules(place):
            file, address = f"{module.replace('.', '/')}.py", f"{place}#{slug(module, '-')}"
            for name in (file, file.removeprefix("mrcnn_tf/"), posixpath.basename(file)):
                places.setdefault(name, set()).add(address)
    return {name: one.pop() for name, one in places.items() if len(one) == 1}


def with_links_to_code(html: str, places: dict[str, str]) -> str:
    """Have files of code that are named lead to the API.

    Args:
      html: of a page.
      places: {file, as pages name it: address, from the page}.
    """

    def linked(match: re.Match[str]) -> str:
        address = places.get(match[1])
        return f'<a href="{address}">{match[0]}</a>' if address else match[0]

    return _NAMED_FILE.sub(linked, html)


def slug(text: str, separator: str) -> str:
    """Name of a heading as GitHub makes it."""
    del separator
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def moved(markdown: str, lies: str, shown: str) -> str:
    """Have relative links lead to where things are on the site.

    Args:
      markdown: a page.
      lies: its file, from the root.
      shown: where it is on the site.
    """
    on_site = {there: here for here, there in FROM_ROOT.items()} | {"docs/notebooks": NOTEBOOKS}
    for path in (ROOT / "docs/notebooks").glob("*.ipynb"):
        on_site[f"docs/notebooks/{path.name}"] = f"notebooks/{path.stem}.md"

    def other(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(lies), match[2]))
        if ":" in match[2] or not (target in on_site or (ROOT / target).is_file()):
            return match[0]
        place = on_site.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(place, posixpath.dirname(shown) or ".")

    return _LINK.sub(other, markdown)


def pictures(stop: str, folder: pathlib.Path) -> str:
    """The HTML of a stop's pictures, each with its title below; empty if there is none."""
    figures = []
    of_stop = [path for path in folder.glob("*.svg") if path.stem.rpartition("-")[0] == stop]
    for path in sorted(of_stop, key=lambda path: int(path.stem.rpartition("-")[2])):
        content = path.read_text("utf-8").strip()
        title = content[content.index("<title>") + len("<title>") : content.index("</title>")]
        # What the picture is called need not be read out twice.
        caption = f'<figcaption aria-hidden="true">{title}</figcaption>'
        figures.append(f"<figure>{content}{caption}</figure>")
    return f'<div class="stop" data-search-exclude>{"".join(figures)}</div>' if figures else ""


def on_config(config: Any) -> Any:
    """Name headings as GitHub does, for links into pages."""
    config["mdx_configs"].setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that do not lie in `docs/`."""
    from mkdocs.structure.files import File

    for place, path in FROM_ROOT.items():
        files.append(File.generated(config, place, content=(ROOT / path).read_text("utf-8")))
    for place in API:
        files.append(File.generated(config, place, content=api_page(place)))
    for place, content in notebook_pages().items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Have links lead where they lead on GitHub."""
    shown = page.file.src_uri
    return moved(markdown, FROM_ROOT.get(shown, f"docs/{shown}"), shown)


def on_page_content(html: str, page: Any, files: Any, **_: Any) -> str:
    """Put the pictures in their places, and have code that is named lead to the API."""

    def drawn(match: re.Match[str]) -> str:
        content = pictures(match[1], FIGURES)
        if not content:
            _log.warning(
                "%s: no picture of %r in %s: run docs/site/follow_an_image.py",
                page.file.src_uri,
                match[1],
                FIGURES,
            )
        return content

    html = html.replace(_SOURCE, f"{_SOURCE[:-1]} data-search-exclude>")
    addresses = {}
    for file, place in api_places().items():
        of_page, _, heading = place.partition("#")
        url = files.get_file_from_path(of_page).url_relative_to(page.file)
        addresses[file] = f"{url}#{heading}"
    return with_links_to_code(FIGURE.sub(drawn, html), addresses)
