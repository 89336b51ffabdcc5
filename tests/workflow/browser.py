"""Headless Chromium, driven through chromedriver with the W3C WebDriver protocol: plain HTTP and JSON."""

import base64
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import requests

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Nothing is looked up: a page that needs the network shows it.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1500,1000",
]
# The key under which WebDriver names an element; fixed by the standard.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing_programs() -> list[str]:
    """The programs that are needed and not installed."""
    return [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser:
    """A browser with one window and a profile of its own; use it in a `with` block."""

    def __enter__(self) -> "Browser":
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        ready = (re.search(r"successfully on port (\d+)", line) for line in self.driver.stdout)
        self.session = requests.Session()
        self.session.trust_env = False
        self.address = f"http://127.0.0.1:{next(filter(None, ready))[1]}/session"
        options = {
            "binary": shutil.which("chromium"),
            "args": [*FLAGS, f"--user-data-dir={self.profile.name}"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("POST", "", capabilities={"alwaysMatch": wanted})
        self.address += f"/{session['sessionId']}"
        return self

    def __exit__(self, *error) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.driver.stdout.close()
            self.profile.cleanup()

    def _call(self, method: str, path: str, **body: object) -> object:
        answer = self.session.request(
            method, self.address + path, json=body if method == "POST" else None, timeout=60
        ).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{path}: {answer['error']}: {answer['message'].splitlines()[0]}")
        return answer

    def open(self, path: Path) -> None:
        self._call("POST", "/url", url=path.resolve().as_uri())

    def click(self, xpath: str) -> None:
        """Click on the element as a user would: it must be there, in sight and not covered."""
        element = self._call("POST", "/element", using="xpath", value=xpath)[ELEMENT]
        self._call("POST", f"/element/{element}/click")

    def evaluate(self, script: str, *arguments: object) -> object:
        """The value of a JavaScript expression; arguments are arguments[0], ..."""
        return self._call("POST", "/execute/sync", script=f"return {script}", args=arguments)

    def wait_for(self, script: str, *arguments: object, seconds: float = 20) -> object:
        """The value of a JavaScript expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script, *arguments)):
            assert time.monotonic() < end, f"never came true: {script} {arguments}"
            time.sleep(0.05)
        return value

    def errors(self) -> list[str]:
        """Messages of level SEVERE on the console: failed scripts, failed loads."""
        entries = self._call("POST", "/se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))
