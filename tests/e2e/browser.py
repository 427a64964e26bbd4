"""A real browser, controlled by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_ANNOUNCED = b"DevTools listening on "


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. `complaints` are the errors of its console: exceptions and violations of the content security policy."""

    def __init__(self, socket: ClientConnection, numbers: Iterator[int] | None = None) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = numbers or itertools.count(1)
        self._session = ""

    async def attach(self, target_id: str | None = None) -> None:
        if target_id is None:
            target_id = (await self._call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self._call("Target.attachToTarget", targetId=target_id, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._call(f"{domain}.enable")

    async def popup(self) -> "Page | None":
        """The window that this page opened, if it has opened one."""
        targets = (await self._call("Target.getTargets"))["targetInfos"]
        opened = [each["targetId"] for each in targets if each["type"] == "page" and "openerId" in each]
        if not opened:
            return None
        page = Page(self._socket, self._numbers)
        await page.attach(opened[0])
        return page

    async def resize(self, width: int, height: int = 800) -> None:
        await self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def forbid_scripts(self) -> None:
        """Lets the page run no script of its own. `evaluate` works all the same."""
        await self._call("Emulation.setScriptExecutionDisabled", value=True)

    async def picture(self) -> bytes:
        """A PNG of what the tab shows."""
        return base64.b64decode((await self._call("Page.captureScreenshot", format="png"))["data"])

    async def open(self, url: str) -> None:
        await self._call("Page.navigate", url=url)
        while await self.evaluate("document.readyState") != "complete":
            pass

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def click(self, selector: str) -> None:
        """Clicks like a person: the browser determines which element is at that place."""
        await self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = await self.evaluate(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for event in ("mousePressed", "mouseReleased"):
            await self._call("Input.dispatchMouseEvent", type=event, **at)

    async def write(self, selector: str, text: str) -> None:
        """Replaces the text of the field."""
        await self.evaluate(f"document.querySelector({selector!r}).select()")
        await self._call("Input.insertText", text=text)

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        await self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        async with asyncio.timeout(30):
            while True:
                answer = json.loads(await self._socket.recv())
                self._listen(answer)
                if answer.get("id") == number:
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result

    def _listen(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(event["params"]["exceptionDetails"]))
        entry = event["params"]["entry"] if event.get("method") == "Log.entryAdded" else {}
        # A 4xx response is an entry too, but expected: tests check how the page shows it.
        if entry.get("level") == "error" and entry["source"] != "network":
            self.complaints.append(entry["text"])


@contextlib.asynccontextmanager
async def browsing(program: str, folder: Path) -> AsyncIterator[Page]:
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={folder}")
    process = await asyncio.create_subprocess_exec(program, *options, stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while not (line := await process.stderr.readline()).startswith(_ANNOUNCED):
                assert line, "the browser exited"
        async with connect(line.removeprefix(_ANNOUNCED).decode().strip(), max_size=None) as socket:
            page = Page(socket)
            await page.attach()
            yield page
    finally:
        process.kill()
        await process.wait()
