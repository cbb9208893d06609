"""A real browser, driven as a person would: clicks where a button is, keys that are typed, and what is seen.

Chromium's DevTools protocol over a pipe: JSON messages that end with a zero byte, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

LIMIT_S = 60.0


@final
class Browser:
    """One tab."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest = read, write, b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.said: list[dict[str, Any]] = []  # events, in order
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give an order and return what came of it."""
        number = next(self._numbers)
        order: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            order["sessionId"] = self._session
        os.write(self._write, json.dumps(order).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.said.append(message)

    def open(self, url: str, size: tuple[int, int]) -> None:
        """Show a page on a screen of this size."""
        width, height = size
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.do("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def sees(self, expression: str) -> Any:
        """Evaluate an expression on the page."""
        told = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until something is so on the page."""
        deadline = time.monotonic() + LIMIT_S
        while not self.do("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get(
            "value"
        ):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Press the mouse where the thing is; whatever lies above it gets the click."""
        place = self.sees(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.do(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    def type(self, selector: str, text: str) -> None:
        """Click into a field and type."""
        self.click(selector)
        self.do("Input.insertText", text=text)

    def photograph(self, path: Path) -> None:
        """Save what is seen."""
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser held against the page: errors of scripts, and what the policy blocked."""
        self.sees("0")
        told = [
            m["params"] for m in self.said if m.get("method") in {"Log.entryAdded", "Runtime.exceptionThrown"}
        ]
        return [json.dumps(one) for one in told]

    def asked(self) -> list[str]:
        """Return the addresses that were asked for."""
        return [
            m["params"]["request"]["url"] for m in self.said if m.get("method") == "Network.requestWillBeSent"
        ]

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        whole, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(whole)
        return message


@contextmanager
def browsing(command: Sequence[str]) -> Iterator[Browser]:
    """Drive a browser while the context is open."""
    to_read, to_write = os.pipe(), os.pipe()

    def place() -> None:
        os.dup2(to_read[0], 30)  # out of the way first: 3 and 4 may be taken
        os.dup2(to_write[1], 31)
        os.dup2(30, 3)
        os.dup2(31, 4)

    process = subprocess.Popen(
        [*command, "--remote-debugging-pipe", "about:blank"],
        close_fds=False,
        preexec_fn=place,  # noqa: PLW1509 - the only way to given descriptors
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read[0])
    os.close(to_write[1])
    try:
        yield Browser(to_write[0], to_read[1])
    finally:
        process.terminate()
        process.wait(LIMIT_S)
        os.close(to_read[1])
        os.close(to_write[0])
