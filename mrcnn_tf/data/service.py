"""Batches from tf.data service: other machines read and decode, this one trains.

The workers of the service share the images out among them as they ask for them, a block of an epoch
at a time, so every image is seen once an epoch however many workers there are. Which worker has
which block, and whose batch comes first, depends on who is faster: the order of images is another
one in every run. What a worker that is lost had of its blocks is not seen in this epoch.

With several replicas all batches of a step come from the same worker (coordinated reads), which has
grouped them by canvas.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

PROTOCOL = "grpc"
_BLOCKS = 100  # of an epoch: all workers get to its end at about the same time


class Service(NamedTuple):
    """A tf.data service, and what of it this pipeline reads.

    Attributes:
      address: of its dispatcher, "grpc://host:port" or "host:port".
      job_name: that all pipelines of this start give, and no other start.
      num_consumers: replicas of all pipelines.
      first_consumer: the number of this pipeline's first replica among them.
      num_here: this pipeline's replicas.
    """

    address: str
    job_name: str
    num_consumers: int
    first_consumer: int
    num_here: int


def blocks(
    num_images: int, first_position: int, rows_of: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
) -> tf.data.Dataset:
    """Return the images of all epochs from a position on, in blocks that workers share out.

    Args:
      num_images: of an epoch, about; `rows_of` knows each one's.
      first_position: what lies in blocks before it was seen.
      rows_of: an epoch's images, a tuple of columns.
    """
    num_blocks = min(_BLOCKS, num_images)

    @tf.autograph.experimental.do_not_convert
    def rows(block: tf.Tensor) -> tf.data.Dataset:
        number = block % num_blocks
        columns = rows_of(block // num_blocks)
        count = tf.size(columns[0], tf.int64)
        start = number * count // num_blocks
        end = (number + 1) * count // num_blocks
        return tf.data.Dataset.from_tensor_slices(
            tf.nest.map_structure(lambda column: column[start:end], columns)
        )

    first = first_position * num_blocks // num_images
    # What is shared out are the elements of the source: the numbers of blocks.
    return tf.data.Dataset.range(first, tf.int64.max).flat_map(rows)


def read(dataset: tf.data.Dataset, service: Service) -> tf.data.Dataset:
    """Have a service make the batches of a data set; return those of this pipeline's replicas.

    Args:
      dataset: batches, of which every run of `num_consumers` makes a step.
      service: see there.
    """
    mode = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    # Coordinated reads want to be sure that there is no end.
    dataset = dataset.repeat()
    # Under a name that all pipelines give, whoever is the first.
    dataset_id = tf.data.experimental.service.register_dataset(
        service.address, dataset, dataset_id=service.job_name
    )

    def batches(**coordinated: tf.Tensor | int) -> tf.data.Dataset:
        return tf.data.experimental.service.from_dataset_id(
            mode,
            service.address,
            dataset_id,
            dataset.element_spec,
            job_name=service.job_name,
            **coordinated,
        )

    if service.num_consumers == 1:
        return batches()
    consumers = tf.data.Dataset.range(
        service.first_consumer, service.first_consumer + service.num_here
    )
    return consumers.interleave(
        lambda number: batches(consumer_index=number, num_consumers=service.num_consumers),
        cycle_length=service.num_here,
        num_parallel_calls=service.num_here,
        deterministic=True,
    )


def absolute(files: Sequence[str]) -> list[str]:
    """Return names of files that mean the same in a process that was started in another folder."""
    return [file if "://" in file else os.path.abspath(file) for file in files]
