"""One line now and then: how much has come, how fast, how long it will take."""

import sys
import time
from collections import deque

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_WINDOW_S, _INTERVAL_S = 30.0, 10.0


def show_size(n_bytes: float) -> str:
    """Bytes in decimal units: 4.53 GB, 12.0 MB, 312 B."""
    for unit, name in _UNITS:
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes:.0f} B"


def show_time(seconds: float) -> str:
    """Seconds as 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Call it with the bytes that are there and those that there will be; it prints to the screen and to the log of the
    job, not more often than every ten seconds. `name` begins the line.
    """

    def __init__(self, name: str):
        self.name = name
        self._points: deque[tuple[float, int]] = deque()
        self._next = time.monotonic() + 2.0

    def __call__(self, there: int, total: int | None) -> None:
        now = time.monotonic()
        if self._points and there < self._points[-1][1]:
            self._points.clear()  # it began again
        self._points.append((now, there))
        while len(self._points) > 2 and now - self._points[0][0] > _WINDOW_S:
            self._points.popleft()
        if now >= self._next:
            self._next = now + _INTERVAL_S
            say(self.line(total))

    def line(self, total: int | None) -> str:
        """The progress in words."""
        (begun, before), (now, there) = self._points[0], self._points[-1]
        rate = (there - before) / (now - begun) if now > begun else 0.0
        text = f"{self.name}: {show_size(there)}"
        if total:
            text += f" of {show_size(total)} ({100 * there / total:.0f}%)"
        if rate > 0:
            text += f", {show_size(rate)}/s"
            if total:
                text += f", {show_time((total - there) / rate)} left"
        return text


def say(line: str) -> None:
    """Print to the log of the job, and to the screen where that is another place."""
    print(line, flush=True)
    if sys.stdout is not sys.__stdout__ and sys.__stderr__ is not None:
        print(line, file=sys.__stderr__, flush=True)
