"""JSON lines that can be read while they are written."""

import json
import os


class LinesFile:
    """A file of JSON, one value a line, that gets its name when it is complete; a context manager.

    Every line is there at once for whoever reads along.
    """

    def __init__(self, path: str):
        self._path = path

    def __enter__(self) -> "LinesFile":
        self._file = open(self.incomplete(self._path), "w", encoding="utf-8")  # noqa: SIM115
        return self

    def add(self, value: dict) -> None:
        """Append a line."""
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._file.flush()

    def __exit__(self, error_type: type | None, *unused: object) -> None:
        self._file.close()
        if error_type is None:
            os.replace(self.incomplete(self._path), self._path)

    @staticmethod
    def incomplete(path: str) -> str:
        """Return the name that a file has until it is complete."""
        return path + ".incomplete"
