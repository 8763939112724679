"""A conversion without worker processes, for speed and for file systems in memory."""

from data_prep import shards


class InProcess:
    """Stands in for `shards.WorkerPool`."""

    def __init__(self, num_processes):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write_shards(self, tasks, show):
        for task in tasks:
            yield task, shards.write_shard(task, lambda: show(1))
