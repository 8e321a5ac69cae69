"""A real browser without a window, driven by its own protocol over two pipes: no port is opened for it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--window-size=1600,1200",
    "--remote-debugging-pipe",
)  # fmt: skip

NOTICE = "ResizeObserver loop completed"
"""The browser's own word on a layout that took a second pass; no fault of a page."""


def program() -> str | None:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


LEFT = ("navigated or closed", "context was destroyed", "Cannot find context")
"""What the browser answers where a page goes to another while it is asked."""


class LeftError(RuntimeError):
    """The page that was asked is not there any more."""


class Page:
    """One tab.

    Attributes:
        login: User and password for a server that asks by HTTP, as a person types them into its dialog.
        problems: Since `open`: errors on the console, exceptions, answers from 400 on, requests that failed.
        hosts: Hosts that were asked for anything, since `open`.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._write, self._read, self._buffer = to_browser, from_browser, b""
        self._number, self._answers, self._session = 0, {}, ""  # type: int, dict[int, Any], str
        self.login: tuple[str, str] | None = None
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Fetch.enable", handleAuthRequests=True)

    def open(self, url: str) -> None:
        """Go to a page; what happened before is forgotten."""
        self._call("Page.navigate", url="about:blank")
        self.problems, self.hosts = [], set()
        self._call("Page.navigate", url=url)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page a window of other pixels, a phone's among them."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def text(self) -> str:
        """What a person reads on the page."""
        try:
            return str(self.evaluate("document.body ? document.body.innerText : ''"))
        except LeftError:
            return ""  # between two pages

    def evaluate(self, script: str) -> Any:
        """The value of a piece of JavaScript."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, *texts: str, seconds: float = 180) -> None:
        """Wait until the page shows every text, and then until it has asked for nothing for two seconds."""
        deadline = time.monotonic() + seconds
        while missing := [text for text in texts if text not in self.text()]:
            assert time.monotonic() < deadline, f"no {missing} on the page: {self.text()}\n{self.problems}"
            self._listen(0.5)
        while self._listen(2) and time.monotonic() < deadline:
            pass

    def enter(self, text: str) -> None:
        """Type into the field that has the focus, and press Enter."""
        self._call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    def picture(self) -> str:
        """The page as a PNG, in base64."""
        return str(self._call("Page.captureScreenshot")["data"])

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._number

    def _call(self, method: str, **parameters: Any) -> Any:
        number = self._send(method, parameters)
        deadline = time.monotonic() + 180
        while number not in self._answers:
            assert time.monotonic() < deadline, f"the browser does not answer {method}"
            self._listen(1)
        answer = self._answers.pop(number)
        if any(word in str(answer.get("error")) for word in LEFT):
            raise LeftError(method)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _listen(self, seconds: float) -> bool:
        """Take what the browser says within `seconds`; whether it said anything."""
        if not select.select([self._read], [], [], seconds)[0]:
            return False
        received = os.read(self._read, 2**20)
        assert received, "the browser has ended"
        *messages, self._buffer = (self._buffer + received).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._hear(message["method"], message["params"])
        return True

    def _hear(self, event: str, said: dict[str, Any]) -> None:
        if event == "Fetch.requestPaused":
            self._send("Fetch.continueRequest", {"requestId": said["requestId"]})
        elif event == "Fetch.authRequired":
            user, password = self.login or ("", "")
            answer = {"response": "ProvideCredentials", "username": user, "password": password}
            self._send(
                "Fetch.continueWithAuth",
                {
                    "requestId": said["requestId"],
                    "authChallengeResponse": answer if self.login else {"response": "CancelAuth"},
                },
            )
        elif event == "Network.requestWillBeSent":
            if urlsplit(said["request"]["url"]).scheme in ("http", "https"):
                self.hosts.add(str(urlsplit(said["request"]["url"]).hostname))
        elif problem := fault(event, said):
            self.problems += [problem[:1000]] if NOTICE not in problem else []


def fault(event: str, said: dict[str, Any]) -> str | None:
    """What is wrong by an event of the browser; None if nothing is."""
    match event:
        case "Network.responseReceived" if said["response"]["status"] >= 400:
            return f"{said['response']['status']} {said['response']['url']}"
        case "Network.loadingFailed" if not said.get("canceled"):
            return f"{said['type']} failed: {said['errorText']}"
        case "Runtime.exceptionThrown":
            return json.dumps(said["exceptionDetails"])
        case "Runtime.consoleAPICalled" if said["type"] in ("error", "assert"):
            return " ".join(str(part.get("value", part.get("description"))) for part in said["args"])
        case "Log.entryAdded" if said["entry"]["level"] == "error":
            return f"{said['entry']['text']} {said['entry'].get('url', '')}"
    return None


@contextmanager
def page(profile: Path, options: Sequence[str] = ()) -> Iterator[Page]:
    """A tab of a fresh browser, which ends with it."""
    (commands, to_browser), (from_browser, answers) = os.pipe(), os.pipe()
    redirected = f'exec "$@" 3<&{commands} 4>&{answers}'  # the numbers that the browser expects
    chosen = [str(program()), *OPTIONS, f"--user-data-dir={profile}", *options]
    process = subprocess.Popen(
        ["bash", "-c", redirected, "-", *chosen], pass_fds=(commands, answers),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )  # fmt: skip
    os.close(commands)
    os.close(answers)
    try:
        yield Page(to_browser, from_browser)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to_browser)
        os.close(from_browser)
