r"""Make one COCO file out of what an annotation tool exported.

    python data_prep/to_coco.py --images=photos --annotations=export \
      --output_file=photos/annotations.json

reads COCO files (one, or several of one export), YOLO's label files with outlines or boxes,
labelme's JSON files, and Pascal VOC's masks of objects; the format is recognised by the files that
are there, and named. Everything is read that the folder holds: parts like train and valid become
one set, which data_prep/split_coco.py splits anew. docs/formats.md says what tools export.

What is odd is noted, repaired, left out or refused by the rule of docs/data.md, counted by kind,
and listed with file, line and value beside the output, in annotations.report.txt. More than 1 % of
the objects or images left out is refused, unless --on_error=skip is given; then nothing is written.
"""

import json
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

if not __package__:  # run as a file: neither its package nor the project's is known yet
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    __package__ = "data_prep"

from mrcnn_tf.console import command_line, start_tensorflow

if TYPE_CHECKING:
    from .formats.collected import Collected
    from .formats.recognition import Recognised


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("images", None, "Folder of the images.", required=True)
    flags.DEFINE_string(
        "annotations", None, "What the tool exported: a file, or its unpacked folder.",
        required=True,
    )  # fmt: skip
    flags.DEFINE_string("output_file", None, "COCO JSON to write.", required=True)
    flags.DEFINE_enum(
        "format", None, ["coco", "yolo", "labelme", "voc"],
        "Format of the annotations; recognised if not given.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "on_error", "fail", ["fail", "skip"],
        "What to do if more than 1 % of the objects or images cannot be used.",
    )  # fmt: skip


def main(_: list[str]) -> None:
    """Convert what the flags name."""
    values = flags.FLAGS
    if not os.path.exists(values.annotations):
        sys.exit(f"error: --annotations={values.annotations}: not found")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with start_tensorflow.quickly():
        import tensorflow  # noqa: F401
    convert(
        values.images,
        values.annotations,
        values.output_file,
        values.format,
        skip=values.on_error == "skip",
    )


def convert(
    images: str, annotations: str, output_file: str, format_name: str | None, skip: bool
) -> None:
    """Convert, and say what came of it.

    Args:
      images: folder of the images.
      annotations: file or folder.
      output_file: COCO JSON to write.
      format_name: one of `recognition.FORMATS`; None to find out.
      skip: leave out what cannot be used, however much it is.

    Raises:
      SystemExit: it was refused, or cannot be read; the reason is its text.
    """
    from mrcnn_tf.data.findings import RefusedError

    from . import report
    from .formats import recognition

    try:
        if os.path.realpath(output_file) == os.path.realpath(annotations):
            raise ValueError(f"--output_file={output_file} is what is to be read")
        recognised = recognition.recognise(annotations, format_name, written=output_file)
        print(f"{annotations}: format {recognised.name}, by {recognised.why}", flush=True)
        text, collected = _read(images, recognised)
        summary = _check(text, collected, images, recognised, skip)
    except RefusedError as error:
        report.print_examples(error.findings)
        more = ". --on_error=skip leaves out what cannot be used" if error.can_skip else ""
        sys.exit(f"error: {'; '.join(error.reasons)}: nothing was written{more}")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    _write(text, collected, images, output_file)
    path = os.path.splitext(output_file)[0] + ".report.txt"
    report.write(path, collected.findings, collected.notes, collected.warnings)
    print(f"{output_file}: {summary}")
    report.print_written(path, collected.findings, collected.notes, collected.warnings)
    command_line.print_next(
        "to split it:\n"
        f"  python data_prep/split_coco.py --images={images} --annotations={output_file} "
        f"--output_dir={os.path.dirname(output_file) or '.'}"
    )


def _read(images: str, recognised: "Recognised") -> "tuple[str, Collected]":
    """Return the text of the COCO file, and what was found on the way."""
    from .formats import coco, labelme, voc_masks, yolo
    from .formats.collected import Collected

    if recognised.name == "coco":
        if not os.path.isdir(images):
            raise ValueError(f"--images={images}: not found")
        return coco.read(images, recognised.paths), Collected()
    if recognised.name == "labelme":
        collected, names = labelme.read(images, recognised.paths)
    elif recognised.name == "yolo":
        collected, names = yolo.read(images, recognised.paths[0])
    else:
        collected, names = voc_masks.read(images, recognised.paths[0])
    return json.dumps(collected.to_json(names)), collected


def _check(
    text: str, collected: "Collected", images: str, recognised: "Recognised", skip: bool
) -> str:
    """Look at the result through the reader that all of the project reads COCO files by.

    Args:
      text: of the COCO file.
      collected: what is found is added.
      images: folder of the images.
      recognised: what was read.
      skip: leave out what cannot be used, however much it is.

    Returns:
      What there is, for the console.

    Raises:
      RefusedError: it cannot be used.
      ValueError: it is no COCO file.
    """
    from mrcnn_tf.data import coco_check, coco_json, findings
    from mrcnn_tf.data.findings import Finding, Level
    from mrcnn_tf.images.image_folder import ImageFolder

    folder = ImageFolder(images)
    source, is_ours = recognised.paths[0], recognised.name != "coco"
    coco = coco_check.check(
        coco_json.parse(text, source), True, source, None if is_ours else folder.size_of
    )
    if is_ours:  # what it lacks is known, and told by file and line
        coco.findings = [f for f in coco.findings if f.level == Level.REFUSED]
    else:
        folder.find_all(coco)
        collected.notes.update(coco.notes)
        collected.num_images, collected.num_objects = coco.num_images, coco.num_objects
    if not coco.num_images:
        coco.findings.append(Finding(Level.REFUSED, "no annotated image", source, "", ""))
    collected.findings += coco.findings
    collected.warnings += coco.warnings
    findings.check(
        collected.findings,
        num_objects=collected.num_objects,
        num_images=collected.num_images,
        skip=skip,
        name=source,
    )
    entries = [entry for of_image in coco.objects.values() for entry in of_image]
    num_masks = sum(entry.mask is not None for entry in entries)
    return (
        f"{len(coco.images):,} images, {len(entries):,} objects, {num_masks:,} of them with a "
        f"mask, {len(coco.label_map.ids)} classes ({', '.join(coco.label_map.names)})"
    )


def _write(text: str, collected: "Collected", images: str, output_file: str) -> None:
    """Write the COCO file, and the images that were in annotation files alone."""
    from . import manifest

    for name, raw in collected.embedded.items():
        os.makedirs(images, exist_ok=True)
        pathlib.Path(images, name).write_bytes(raw)
    manifest.write_text(output_file, text)


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
