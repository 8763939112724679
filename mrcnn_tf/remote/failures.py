"""What can go wrong between a client and a server."""


class ServerError(RuntimeError):
    """A server did not answer, or refused; the text says why, without the picture's name.

    Attributes:
      is_temporary: the same request may succeed in a moment: nobody listens, or the server is busy.
      is_timeout: there was no answer in time.
    """

    def __init__(self, why: str, is_temporary: bool = False, is_timeout: bool = False) -> None:
        super().__init__(why)
        self.is_temporary = is_temporary
        self.is_timeout = is_timeout

    def about(self, what: str) -> "ServerError":
        """Return the same failure with what it is about in front."""
        return ServerError(f"{what}: {self}", self.is_temporary, self.is_timeout)


def first_line(text: str) -> str:
    """Return what a server says in one line: TensorFlow names graph nodes on those behind it."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line.rpartition("}} ")[2][:300]
