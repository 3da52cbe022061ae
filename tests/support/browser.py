"""A real headless Chromium, told what to do through its DevTools protocol.

Guarantees: the browser ends with its context.
What a page asks for, logs or throws is kept: a test can say that there was nothing.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_LISTENING = re.compile(r"DevTools listening on (ws://\S+)")
_SECONDS = 60.0


def find_browser() -> str:
    """The program. A test without one is skipped, or fails where REQUIRE_BROWSER=1 says that there must be one."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is not None:
        return found
    why = f"no browser: none of {', '.join(PROGRAMS)} is installed (Debian: apt-get install chromium)"
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(why)
    pytest.skip(why)


class Page:
    """One page in the browser. `asked`: URLs that it requested; `said`: what it logged, and exceptions."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self._socket = socket
        self._session: str | None = None
        self._numbers = itertools.count(1)
        self._loaded = asyncio.Event()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def open(self, path: Path, *, width: int = 1280, height: int = 900) -> None:
        """Show a file, and wait until it is loaded."""
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self._load("Page.navigate", url=path.as_uri())

    async def reload(self) -> None:
        """Show the same file anew, with the settings of now."""
        await self._load("Page.reload")

    async def _load(self, command: str, **parameters: Any) -> None:
        self._loaded.clear()
        await self.send(command, **parameters)
        async with asyncio.timeout(_SECONDS):
            await self._loaded.wait()

    async def value(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def choose(self, select: str, value: str) -> None:
        """Choose an option, as a user would."""
        await self.value(
            f"(() => {{ const it = document.querySelector({select!r}); it.value = {value!r};"
            " if (it.selectedIndex < 0) throw new Error('no such option');"
            " it.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    async def texts(self, selector: str) -> list[str]:
        """The texts of the elements that can be seen."""
        found: list[str] = await self.value(
            f"[...document.querySelectorAll({selector!r})]"
            # What is outside the window may not be rendered yet, and has no innerText then.
            ".filter(element => element.checkVisibility()).map(element => element.textContent.trim())"
        )
        return found

    async def box(self, selector: str) -> dict[str, float]:
        """Where the first such element is on the page."""
        found: dict[str, float] = await self.value(
            f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
            " return {left: b.left, right: b.right, top: b.top, width: b.width, height: b.height}; })()"
        )
        return found

    async def print(self) -> bytes:
        """The page as a printer gets it: a PDF."""
        return base64.b64decode((await self.send("Page.printToPDF", printBackground=True))["data"])

    async def shoot(self) -> bytes:
        """A picture of the whole page: a PNG."""
        # In a window of its height: what is outside the window is not painted.
        width, height = await self.value("[innerWidth, document.documentElement.scrollHeight]")
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return base64.b64decode((await self.send("Page.captureScreenshot", captureBeyondViewport=True))["data"])

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol; its result."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        place = {"sessionId": self._session} if self._session is not None else {}
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **place})
        async with asyncio.timeout(_SECONDS):
            found = await answer
        assert "error" not in found, (method, found["error"])
        result: dict[str, Any] = found["result"]
        return result

    async def listen(self) -> None:
        """Take in what the browser sends, until it ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            match said["method"]:
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Network.requestWillBeSent":
                    self.asked.append(said["params"]["request"]["url"])
                case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded":
                    self.said.append(str(said["params"]))


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Page]:
    """A page in a browser of its own. `profile`: an empty folder for what the browser writes."""
    process = await asyncio.create_subprocess_exec(
        find_browser(),
        "--headless=new",
        "--no-sandbox",  # tests run as root in CI, where Chromium's own sandbox cannot
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(await _address(process), max_msg_size=0) as ws,
        ):
            page = Page(ws)
            listening = asyncio.create_task(page.listen())
            try:
                yield page
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        process.terminate()
        await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(_SECONDS):
        async for line in process.stderr:
            said += line
            if found := _LISTENING.search(line.decode(errors="replace")):
                return found[1]
    raise AssertionError(f"the browser did not start: {said.decode(errors='replace')[-2000:]}")
