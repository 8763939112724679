"""What a pickle is made of besides plain values, and how its texts may be used."""

import dataclasses
from collections.abc import Callable
from typing import Any

_MOST_PRINTED = 100


class RefusedError(ValueError):
    """A pickle asked for something that weights have no need for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Constructor:
    """What a global stands for that may be called.

    Attributes:
      make: takes the arguments, checks them and returns what the machine puts in their place.
    """

    make: Callable[..., Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Stands for something beside the weights; it can do nothing and holds nothing.

    Attributes:
      what: in words, "argparse.Namespace".
    """

    what: str


class Unbuilt:
    """What an instruction BUILD will complete, once.

    Attributes:
      memo_keys: under which the memo has it.
      is_built: whether that was done; what was pushed before still is this.
    """

    def __init__(self) -> None:
        self.memo_keys: list[int] = []
        self.is_built = False

    def build(self, state: Any) -> Any:
        """Return what it becomes.

        Raises:
          RefusedError: the state is not one that weights have.
        """
        raise NotImplementedError


def printable(text: Any) -> str:
    """Return a text of a file as it may stand in a message; of what is no text, only its type.

    What nests could be short in the file and endless in print.
    """
    if not isinstance(text, str | int | float):
        return type(text).__name__
    short = str(text)[:_MOST_PRINTED]
    return "".join(c if c.isprintable() else "?" for c in short)


def checked_key(key: Any) -> Any:
    """Return a key of a dict; others than these can be made to take forever to look up.

    Raises:
      RefusedError: it is no text and no number of at most 64 bits.
    """
    if isinstance(key, int):
        if key.bit_length() <= 64:
            return key
    elif key is None or isinstance(key, str | bytes | float):
        return key
    raise RefusedError(f"it has a dict with a {type(key).__name__} among its keys")
