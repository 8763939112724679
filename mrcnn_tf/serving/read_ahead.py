"""Work that goes on beside the network: threads whose results come in a known order.

The network runs in the main thread. Images are read before it needs them (`ahead`; `in_thread` if
one can only be read behind the other), put together by canvas (`by_canvas`), and what it answers is
pasted, drawn and written behind it (`InOrder`). All four hold a bounded number of images, however
many there are.
"""

import collections
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

Element = TypeVar("Element")
Result = TypeVar("Result")

_SECONDS_TO_STOP = 2.0  # that a camera without pictures may take to be left


@contextlib.contextmanager
def threads(count: int, *, wait: bool = False) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Provide threads; what waits for one when the block is left is dropped.

    Args:
      count: of threads.
      wait: whether the block is left only once what runs has ended.
    """
    pool = concurrent.futures.ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def ahead(
    pool: concurrent.futures.Executor,
    function: Callable[[Element], Result],
    elements: Iterable[Element],
    depth: int,
) -> Iterator[Result]:
    """Apply a function to elements in threads, up to `depth` of them ahead of the caller.

    Yields:
      Its results, in the order of the elements; what it raises is raised here.
    """
    running: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    for element in elements:
        running.append(pool.submit(function, element))
        if len(running) > depth:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def by_canvas(
    elements: Iterable[Element],
    canvas_of: Callable[[Element], Hashable],
    batch_size: int,
    window: int,
) -> Iterator[list[Element]]:
    """Make batches of elements that share a canvas.

    The oldest element goes first, with others of its canvas. It waits for them until `window`
    elements are there; then it goes with those it has.

    Args:
      elements: in the order in which they are wanted.
      canvas_of: of an element.
      batch_size: at most.
      window: elements that are looked at together; the latest that an element can go is behind
        the next `window - 1`.

    Yields:
      Lists of 1 to `batch_size` elements, each in the order given.
    """
    waiting: list[Element] = []

    def oldest_with_others() -> list[int]:
        canvas = canvas_of(waiting[0])
        return [k for k, one in enumerate(waiting) if canvas_of(one) == canvas][:batch_size]

    def take(places: list[int]) -> list[Element]:
        batch = [waiting[k] for k in places]
        for k in reversed(places):
            del waiting[k]
        return batch

    for element in elements:
        waiting.append(element)
        while waiting:
            places = oldest_with_others()
            if len(places) < batch_size and len(waiting) < window:
                break
            yield take(places)
    while waiting:
        yield take(oldest_with_others())


class InOrder(Generic[Result]):
    """Jobs in threads, given in any order of their numbers; results in the order 0, 1, 2, ...

    Args:
      pool: the threads.
      max_unfinished: jobs that may wait or run at a time; `put` waits for one to end.
    """

    def __init__(self, pool: concurrent.futures.Executor, max_unfinished: int):
        self._pool = pool
        self._max_unfinished = max_unfinished
        self._jobs: dict[int, concurrent.futures.Future[Result]] = {}
        self._next = 0

    def put(self, number: int, job: Callable[..., Result], *arguments: Any) -> None:
        """Start a job."""
        while True:
            unfinished = [future for future in self._jobs.values() if not future.done()]
            if len(unfinished) < self._max_unfinished:
                break
            concurrent.futures.wait(unfinished, return_when=concurrent.futures.FIRST_COMPLETED)
        self._jobs[number] = self._pool.submit(job, *arguments)

    def ready(self) -> Iterator[Result]:
        """Yield what can be had without waiting; what a job raised is raised here."""
        while self._next in self._jobs and self._jobs[self._next].done():
            yield self._take()

    def rest(self) -> Iterator[Result]:
        """Yield all that is left."""
        while self._jobs:
            yield self._take()

    def _take(self) -> Result:
        result = self._jobs.pop(self._next).result()
        self._next += 1
        return result


def in_thread(
    elements: Iterable[Element], depth: int, *, newest_only: bool = False
) -> Generator[Element, None, None]:
    """Go through elements in a thread of its own, up to `depth` of them ahead of the caller.

    Args:
      elements: gone through until the caller closes this generator; it may be a little longer.
      depth: elements that wait.
      newest_only: elements do not wait for a place; the oldest that waits is dropped.

    Yields:
      The elements; what going through them raises is raised here, behind them.
    """
    waiting: collections.deque[Element] = collections.deque()
    changed = threading.Condition()
    is_closed = False
    ended: list[BaseException | None] = []  # once they are all there: what went wrong

    def go_through() -> None:
        error = None
        try:
            for element in elements:
                with changed:
                    while len(waiting) >= depth and not is_closed and not newest_only:
                        changed.wait()
                    if is_closed:
                        break
                    if len(waiting) >= depth:
                        waiting.popleft()
                    waiting.append(element)
                    changed.notify_all()
        except BaseException as raised:  # it is the caller's
            error = raised
        with changed:
            ended.append(error)
            changed.notify_all()

    thread = threading.Thread(target=go_through, daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                while not waiting and not ended:
                    changed.wait()
                if not waiting:
                    break
                element = waiting.popleft()
                changed.notify_all()
            yield element
        if ended[0] is not None:
            raise ended[0]
    finally:
        with changed:
            is_closed = True
            changed.notify_all()
        thread.join(_SECONDS_TO_STOP)
