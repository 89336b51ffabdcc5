"""Headless Chromium with what tests ask of it. Both programs are the system's own: selenium looks for none and fetches
none.
"""

import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Nothing is looked up: a page that needs the network shows it.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1500,1000",
]


def missing_programs() -> list[str]:
    """The programs that are needed and not installed."""
    return [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser(webdriver.Chrome):
    """A browser with one window and a profile of its own; use it in a `with` block."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        super().__init__(options, webdriver.ChromeService(shutil.which("chromedriver")))

    def open(self, path: Path) -> None:
        self.get(path.resolve().as_uri())

    def click(self, xpath: str) -> None:
        """Click on the element as a user would: it must be there, in sight and not covered."""
        self.find_element("xpath", xpath).click()

    def evaluate(self, script: str, *arguments: object) -> object:
        """The value of a JavaScript expression; arguments are arguments[0], ..."""
        return self.execute_script(f"return {script}", *arguments)

    def wait_for(self, script: str, *arguments: object, seconds: float = 20) -> object:
        """The value of a JavaScript expression as soon as it is true."""
        wait = WebDriverWait(self, seconds, poll_frequency=0.05)
        return wait.until(lambda _: self.evaluate(script, *arguments), f"never came true: {script} {arguments}")

    def errors(self) -> list[str]:
        """Messages of level SEVERE on the console: failed scripts, failed loads."""
        return [entry["message"] for entry in self.get_log("browser") if entry["level"] == "SEVERE"]
