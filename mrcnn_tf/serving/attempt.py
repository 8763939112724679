"""Try, in a graph: an element on which an operation fails is left out, and the others go on.

Graphs know no exceptions: a decoder that refuses a file ends the call for all that were sent with
it. A tf.data pipeline inside the graph does know them, `ignore_errors` drops the element whose
function failed. So the decoder itself says what it can decode, not a second reading of the format
that could be of another opinion. The operations are stock ones, which run where there is no Python.
"""

from collections.abc import Callable

import tensorflow as tf


def each(
    function: Callable[..., tuple[tf.Tensor, ...]], elements: tuple[tf.Tensor, ...], parallel: int
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Apply a function to each element, and leave out those on which it fails.

    Every error counts as a failure, short memory too; a call that is cancelled is cancelled.

    Args:
      function: takes one element of each of `elements`, and returns tensors.
      elements: [n, ...] each.
      parallel: so many elements at a time.

    Returns:
      index: int64 [m], ascending: those on which it did not fail.
      results: [m, ...] each, padded with zeros to the largest; where m is 0, dimensions that only
        running tells are 0 too.
    """
    count = tf.shape(elements[0], out_type=tf.int64)[0]
    numbered = tf.data.Dataset.from_tensor_slices((tf.range(count), *elements))
    applied = numbered.map(
        lambda index, *element: (index, *function(*element)),
        num_parallel_calls=parallel,
        deterministic=True,
    )
    together = applied.ignore_errors().padded_batch(tf.maximum(count, 1))
    nothing = tuple(
        tf.zeros([0, *(side or 0 for side in spec.shape[1:])], spec.dtype)
        for spec in together.element_spec
    )
    # A batch, if there is one, or else nothing; `reduce` would say it in a line and take 6 ms more.
    either = together.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
    index, *results = either.with_options(_options()).get_single_element()
    return index, tuple(results)


def _options() -> tf.data.Options:
    """Nothing is tuned or rewritten: the pipeline lives for one call."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
