r"""Convert a COCO folder to TFRecord files on many machines, by Apache Beam.

    python data_prep/beam_convert.py \
      --image_dir=gs://bucket/images --object_annotations_file=gs://bucket/instances.json \
      --output_file_prefix=gs://bucket/records/train --num_shards=2048 \
      -- --runner=DataflowRunner --project=... (Beam's own options stand behind --)

writes what create_coco_tfrecord.py writes, to the byte: records, label_map.json,
train.manifest.json and train.report.txt. The same flags mean the same, and the same things are
refused. This process reads the annotation file and checks it; the workers, on any runner of Beam's,
read the images and write the shards, one worker to a shard: --num_shards is how many can work at a
time. All of them have to reach images and records under the same names. Without options Beam runs
on this machine.

A shard is written under another name and gets its own when it is complete, so it does not matter
how often a runner tries. If the pipeline fails, the same command goes on where it stopped.
docs/beam.md says what a worker needs.
"""

import pathlib
import sys

if not __package__:  # run as a file: neither its package nor the project's is known yet
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    __package__ = "data_prep"

from mrcnn_tf.console import command_line
from mrcnn_tf.images import storage

from . import create_coco_tfrecord


def main(argv: list[str]) -> None:
    """Convert."""
    command_line.require("beam")
    job = create_coco_tfrecord.job_of_flags(num_processes=1)
    job = job._replace(  # workers have folders of their own to be in
        image_dir=storage.absolute(job.image_dir),
        annotations_file=storage.absolute(job.annotations_file),
        prefix=storage.absolute(job.prefix),
    )
    from . import beam_shards

    try:
        workers = beam_shards.BeamWorkers(job.prefix, argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    create_coco_tfrecord.run(job, workers)


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, create_coco_tfrecord.define_flags_of_records, main)


if __name__ == "__main__":
    run_main()
