"""A server on this machine that sends files as a hub or a mirror does, or badly in several ways."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """What a server sends and has been asked for.

    Attributes:
        files: path, such as ``data/a.bin`` -> content.
        behaviour: path -> what its next GET requests meet; ``good`` when used up: ``cut`` (half, then the
            connection ends), ``stall`` (half, then silence), ``altered`` (one byte other), ``longer`` (bytes
            behind the end), ``short`` (too small a Content-Length), ``no-range`` (the whole file whatever was
            asked), ``redirect`` (elsewhere on this server), ``loop`` (to itself), or a status.
        asked: (method, path, Range header or None) of every request.
        url: of the server.
    """

    files: Mapping[str, bytes]
    behaviour: dict[str, list[str | int]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def seen(self) -> list[str]:
        """The paths of the GET requests, in order."""
        return [name for method, name, _ in self.asked if method == "GET"]

    def gets(self, path: str) -> list[str | None]:
        """Return the Range headers of the GET requests of a path."""
        return [asked_for for method, name, asked_for in self.asked if method == "GET" and name == path]


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def do_HEAD(self) -> None:
        name = self._note()
        if name in self.served.files:
            self._head(200, len(self.served.files[name]), name)
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        name = self._note()
        steps = self.served.behaviour.get(name, [])
        step = steps.pop(0) if steps else "good"
        if isinstance(step, int) or name not in self.served.files:
            self.send_error(step if isinstance(step, int) else 404)
        elif step in ("redirect", "loop"):
            self.send_response(302)
            self.send_header("Location", f"/{name}" if step == "loop" else f"/moved/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            steps += ["loop"] if step == "loop" else []
        else:
            self._send(name, step)

    def _note(self) -> str:
        name = self.path.split("?")[0].removeprefix("/").removeprefix("moved/")
        self.served.asked.append((self.command, name, self.headers.get("Range")))
        return name

    def _head(self, status: int, length: int, name: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", f'"{hashlib.sha256(self.served.files[name]).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()

    def _send(self, name: str, step: str) -> None:
        content = self.served.files[name]
        if step == "altered":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if step == "longer":
            content += b"tail"
        asked, start = self.headers.get("Range"), 0
        if asked and step != "no-range":
            start = int(asked.removeprefix("bytes=").split("-")[0])
        rest = content[start:]
        self._head(206 if start else 200, len(rest) - 5 if step == "short" else len(rest), name)
        with contextlib.suppress(OSError):
            self.wfile.write(rest[: len(rest) // 2] if step in ("cut", "stall") else rest)
            self.wfile.flush()
            if step == "stall":
                self.served.ended.wait(20)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve(
    files: Mapping[str, bytes], behaviour: Mapping[str, list[str | int]] | None = None
) -> Iterator[Served]:
    """Serve ``files`` on the loopback interface."""
    served = Served(files, {name: list(steps) for name, steps in (behaviour or {}).items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": served}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        served.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
