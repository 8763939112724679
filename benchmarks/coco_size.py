"""Time and memory of the converter as the data set grows to COCO's size.

python benchmarks/coco_size.py [--images 1000 10000 118000] [--num_processes=2]

writes, for each number, a synthetic COCO folder of small pictures with 7.3 objects per image
(`synthetic_coco.py`; 118,000 have 860,000) and converts it with the command that a user types.
Prints one JSON line per number. `first_record`: seconds until there is one, annotations read and
checked; `peak_mib`: of the largest process, and of all of them together at any one time.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import synthetic_coco
import timing

ROOT = pathlib.Path(__file__).resolve().parents[1]


def memory_of(parent: int) -> dict[int, float]:
    """Resident MiB of a process and all below it, by id."""
    parents, sizes = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # The name may hold spaces and brackets; fields count from behind it.
                fields = pathlib.Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
            sizes[int(entry)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    found = {parent}
    while more := {p for p, above in parents.items() if above in found} - found:
        found |= more
    return {process: sizes[process] for process in found if process in sizes}


def command(folder: pathlib.Path, num_shards: int, num_processes: int | None = None) -> list[str]:
    """What converts a folder of `synthetic_coco.write` into `folder`/records."""
    words = [
        *(sys.executable, str(ROOT / "data_prep" / "create_coco_tfrecord.py")),
        f"--image_dir={folder / 'images'}",
        f"--object_annotations_file={folder / 'annotations.json'}",
        f"--output_file_prefix={folder / 'records' / 'train'}",
        f"--num_shards={num_shards}",
    ]
    return words + ([f"--num_processes={num_processes}"] if num_processes else [])


def convert(folder: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the command; return what it took."""
    output = folder / "records"
    words = command(folder, args.num_shards, args.num_processes)
    start, peaks, first = time.perf_counter(), {"largest": 0.0, "together": 0.0}, [0.0]
    with open(folder / "output.txt", "w+", encoding="utf-8") as text:
        process = subprocess.Popen(words, stdout=text, stderr=subprocess.STDOUT)
        done = threading.Event()

        def watch():
            while not done.wait(0.2):
                sizes = memory_of(process.pid).values()
                peaks["largest"] = max(peaks["largest"], *sizes, 0.0)
                peaks["together"] = max(peaks["together"], sum(sizes))
                if not first[0] and any(p.stat().st_size for p in output.glob("*tfrecord*")):
                    first[0] = time.perf_counter() - start

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
        seconds = time.perf_counter() - start
        text.seek(0)
        if code:
            sys.exit(text.read())
    return {
        "seconds": {"whole": round(seconds, 1), "first_record": round(first[0], 1)},
        "peak_mib": {name: round(size, 1) for name, size in peaks.items()},
        "record_mib": round(sum(p.stat().st_size for p in output.glob("*tfrecord*")) / 2**20, 1),
    }


def main() -> None:
    """Print a JSON line per number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 118_000])
    parser.add_argument("--num_shards", type=int, default=32)
    parser.add_argument("--num_processes", type=int, help="of the converter; default as it has it")
    parser.add_argument("--folder", type=pathlib.Path, help="for the data; default a temporary one")
    args = parser.parse_args()
    for images in args.images:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="coco_size_", dir=args.folder))
        try:
            objects = synthetic_coco.write(folder, images)
            found = convert(folder, args)
            timing.print_line(
                benchmark="coco_size",
                contestant="ours",
                args={"images": images, "num_shards": args.num_shards}
                | {"num_processes": args.num_processes},
                objects=objects,
                annotation_mib=round((folder / "annotations.json").stat().st_size / 2**20, 1),
                ms_per_image=round(1e3 * found["seconds"]["whole"] / images, 3),
                images_per_s=round(images / found["seconds"]["whole"], 1),
                **found,
            )
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
