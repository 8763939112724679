"""How the converter names what is wrong with its input."""

from typing import NamedTuple


class Problem(NamedTuple):
    """Something wrong with the input.

    Attributes:
      kind: a few words that are the same for all problems of its kind.
      where: which image (id and file), annotation or category.
      value: the offending value, and what was expected.
      remedy: what `--on_error=skip` does about it.
    """

    kind: str
    where: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.value}"


class BadInputError(Exception):
    """One annotation or image cannot be used; whoever knows where it is makes a `Problem`."""

    def __init__(self, kind: str, value: str) -> None:
        super().__init__(f"{kind}: {value}")
        self.kind, self.value = kind, value
