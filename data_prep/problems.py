"""How the reader of image files names what is wrong with one."""


class BadInputError(Exception):
    """One image cannot be used; whoever knows where it is makes a `Finding`."""

    def __init__(self, kind: str, value: str) -> None:
        super().__init__(f"{kind}: {value}")
        self.kind, self.value = kind, value
