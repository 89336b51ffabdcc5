"""A local HTTP server for downloads that can be told, request by request, how to misbehave."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

WEB_PAGE = b"<!DOCTYPE html><html><body>please sign in</body></html>"


class MisbehavingServer(ThreadingHTTPServer):
    """Serves `files` (path without slash -> bytes); `faults` says what goes wrong.

    `faults` maps a path to one word for each GET, the last of which holds for ever ("" under a path that is not there):

        ok              the file, or the stretch asked for
        404, 500, ...   that status
        429 after N     too many requests, asks to wait N seconds
        429 at a date   the same, as a date one second ahead
        html            a web page, and says so
        disguised html  a web page that calls itself data
        break           half of what is asked for, then the connection is cut
        silent break    the same, but no length was announced: nothing tells that something is missing
        stall           half of the file, then nothing, and nothing to those who ask for the rest
        trickle         the same, but one byte at a time instead of nothing
        no ranges       the whole file, whatever is asked for
        other stretch   a stretch that was not asked for
        short stretch   of a stretch 1,000 bytes at most, as servers do that cap them
        any version     the stretch asked for, whichever version If-Range names
        no length       a stretch, of a file of which it does not say how long it is
        packed          compressed on the way, though nobody asked for that
        no validator    the file without ETag and date

    Attributes:
        requests: (path, headers) of each GET, in their order.
        rate: bytes a second; None does not slow down.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes] | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files or {})
        self.faults: dict[str, list[str]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.rate: float | None = None
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def asked(self, path: str) -> list[dict[str, str]]:
        """Headers of the requests for one file."""
        return [headers for name, headers in list(self.requests) if name == path]

    def starts(self, path: str) -> list[int]:
        """First byte that each request for a file asked for."""
        ranges = [headers.get("Range", "bytes=0-") for headers in self.asked(path)]
        return [int(text.removeprefix("bytes=").partition("-")[0]) for text in ranges]

    def next_fault(self, path: str, headers: dict[str, str]) -> str:
        with self.lock:
            words = self.faults.get(path, ["ok"])
            word = words[min(len(self.asked(path)), len(words) - 1)]
            self.requests.append((path, headers))
            return word

    def handle_error(self, request, client_address):
        """Connections that the other side cuts are what the tests are about."""


@contextmanager
def serving(files: dict[str, bytes] | None = None) -> Iterator[MisbehavingServer]:
    """A running server; it is gone at the end of the block."""
    with MisbehavingServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        body = self.server.files.get(self._path())
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self):
        server = self.server
        with server.lock:
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            self.close_connection = True
            self._answer(server.next_fault(self._path(), dict(self.headers)))
        finally:
            with server.lock:
                server.busy -= 1

    def _path(self) -> str:
        return urlsplit(self.path).path.lstrip("/")

    def _answer(self, fault: str) -> None:
        body = self.server.files.get(self._path())
        if fault.isdigit() or (body is None and fault == "ok"):
            self.send_error(int(fault) if fault.isdigit() else 404)
        elif fault.startswith("429"):
            self.send_response(429)
            wait = fault.removeprefix("429 after ")
            self.send_header("Retry-After", formatdate(time.time() + 1.5, usegmt=True) if wait == fault else wait)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif "html" in fault:
            self._send(WEB_PAGE, 0, len(WEB_PAGE), 200, fault)
        else:
            self._send_file(body, fault)

    def _send_file(self, body: bytes, fault: str) -> None:
        first, last, status = 0, len(body) - 1, 200
        wanted = self.headers.get("Range")
        fresh = self.headers.get("If-Range") in (None, etag(body)) or fault == "any version"
        if wanted and fresh and fault != "no ranges":
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last, status = int(begin), min(int(end or last), last), 206
            if first > last:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "other stretch":
                first = 0
            if fault == "short stretch":
                last = min(last, first + 999)
        self._send(body, first, last + 1, status, fault)

    def _send(self, body: bytes, first: int, end: int, status: int, fault: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if fault == "html" else "application/octet-stream")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{'*' if fault == 'no length' else len(body)}")
        if fault == "packed":
            self.send_header("Content-Encoding", "gzip")
        if fault != "silent break":
            self.send_header("Content-Length", str(end - first))
        if fault != "no validator":
            self.send_header("ETag", etag(body))
        self.send_header("Connection", "close")
        self.end_headers()
        until = end
        if fault in ("break", "silent break"):
            until = first + (end - first) // 2
        elif fault in ("stall", "trickle"):
            until = max(first, end // 2)
        self._write(body[first:until])
        if fault == "trickle":
            for byte in body[until:end]:
                if self.server.closing.wait(0.05):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        elif fault == "stall":
            self.server.closing.wait(30)

    def _write(self, data: bytes) -> None:
        rate = self.server.rate
        if rate is None:
            self.wfile.write(data)
            return
        step = max(1, int(rate / 100))
        for i in range(0, len(data), step):
            self.wfile.write(data[i : i + step])
            if self.server.closing.wait(0.01):
                return


def etag(body: bytes) -> str:
    """What the server calls this version of a file."""
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'
