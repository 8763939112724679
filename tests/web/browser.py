"""A headless Chromium, driven over two pipes by its DevTools protocol: messages of JSON.

`--remote-debugging-pipe` reads commands from file descriptor 3 and answers on 4, each message
ending with a zero byte, so that the standard library is enough.
Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root is refused
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    # No name is resolved and no other address reached: what needs a network fails.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)
# The descriptors come above 9, so that neither overwrites the other on its way to 3 and 4.
_WITH_PIPES = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); "
_WITH_PIPES += "os.execv(sys.argv[3], sys.argv[3:])"


def find() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser of its own, which ends with the `with` block."""

    def __init__(self, program: str, profile: pathlib.Path):
        reads, self._commands = os.pipe()
        self._answers, writes = os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]
        profile.mkdir(parents=True, exist_ok=True)
        self._log = open(profile / "stderr.txt", "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WITH_PIPES, *map(str, theirs), program, *_FLAGS]
            + [f"--user-data-dir={profile}", "about:blank"],
            pass_fds=theirs,
            stdout=self._log,
            stderr=self._log,
        )
        for end in (reads, writes, *theirs):
            os.close(end)
        self._buffer = b""
        self._sent = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []  # all that came, oldest first
        (target,) = (
            one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page"
        )
        self._session = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        try:
            self("Browser.close")
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._log.close()

    def __call__(self, method: str, timeout: float = 60, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
          RuntimeError: the browser refuses it.
          TimeoutError: no answer within `timeout` seconds.
        """
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError(f"{method}: the browser does not answer")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, expression: str, timeout: float = 60) -> Any:
        """Return the value of a JavaScript expression, awaited.

        Raises:
          RuntimeError: it throws.
        """
        found = self(
            "Runtime.evaluate",
            timeout,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait_for(self, expression: str, timeout: float = 60) -> Any:
        """Evaluate until the value is true, and return it."""
        deadline = time.monotonic() + timeout
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} is still {value!r}")
            time.sleep(0.05)
        return value

    def open(self, url: str, width: int = 1000, height: int = 900) -> None:
        """Load a page into a window of this size, in CSS pixels."""
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self("Page.navigate", url=url)
        self.wait_for(f"location.href == {json.dumps(url)} && document.readyState == 'complete'")

    def choose(self, selector: str, path: pathlib.Path | str) -> None:
        """Choose a file in an `<input type=file>`."""
        document = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self, path: pathlib.Path | str) -> None:
        """Write what the window shows, as PNG."""
        picture = self("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(picture))

    def requested(self) -> list[str]:
        """Return the addresses that the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
