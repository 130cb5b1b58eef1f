"""A small Hub on the loopback: listing, files with ranges, and every way in which a real one fails.

It speaks the part of the protocol that huggingface_hub uses (``/api/models/…/revision/…?blobs=true``,
``/…/resolve/<commit>/…`` with a redirect to another host for large files) and counts every request.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """What the server holds and how it misbehaves."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Authorization) of each request."""
    gated: set[str] = field(default_factory=set)
    limits: list[tuple[int, str]] = field(default_factory=list)
    """Statuses (with Retry-After) that the next requests get."""
    cut: dict[str, list[int]] = field(default_factory=dict)
    """File -> after how many bytes each of its next answers breaks off."""
    slow: set[str] = field(default_factory=set)
    """Files that stop in the middle until the test is over."""
    wrong: dict[str, int] = field(default_factory=dict)
    """File -> how many of its next answers hold other bytes of the same length."""
    no_ranges: bool = False
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def add_folder(self, repo: str, folder: Path) -> None:
        """Every file below a folder."""
        files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        self.repos.setdefault(repo, {}).update(files)

    def received(self, name: str) -> list[str]:
        """The requests for a file, with their ranges."""
        return [r for r in self.requests if name in r]


def is_large(name: str) -> bool:
    """Kept by LFS: identified by SHA-256 and served by another host."""
    return name.endswith((".safetensors", ".npz", ".pt", ".pth"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None: ...

    def _plain(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        wanted = self.headers.get("Range") or ""
        hub.requests.append(f"{path} {wanted}".strip())
        hub.tokens.append((path, self.headers.get("Authorization")))
        if hub.limits:
            status, after = hub.limits.pop(0)
            self._plain(status, {"Retry-After": after} if after else {})
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._listing("/".join(parts[2:4]), parts[5])
        elif parts[0] == "cdn":
            self._file("/".join(parts[1:3]), "/".join(parts[3:]), wanted)
        else:
            repo, name = "/".join(parts[:2]), "/".join(parts[4:])
            if not self._allowed(repo):
                return
            if is_large(name):
                other = hub.url.replace("127.0.0.1", "localhost")  # another host: the token must not go there
                self._plain(302, {"Location": f"{other}/cdn/{repo}/{name}"})
            else:
                self._file(repo, name, wanted)

    def _allowed(self, repo: str) -> bool:
        if repo not in self.hub.repos:
            self._plain(401, {"X-Error-Code": "RepoNotFound"})
            return False
        if repo in self.hub.gated and self.headers.get("Authorization") != "Bearer hf_good":
            self._plain(403 if self.headers.get("Authorization") else 401, {"X-Error-Code": "GatedRepo"})
            return False
        return True

    def _listing(self, repo: str, revision: str) -> None:
        if repo not in self.hub.repos:
            self._plain(404, {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in ("main", COMMIT):
            self._plain(404, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for name, data in self.hub.repos[repo].items():
            item: dict[str, Any] = {"rfilename": name, "size": len(data)}
            item["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if is_large(name):
                item["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            siblings.append(item)
        self._plain(200, {}, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, repo: str, name: str, wanted: str) -> None:
        hub = self.hub
        data = hub.repos[repo].get(name)
        if data is None:
            self._plain(404, {"X-Error-Code": "EntryNotFound"})
            return
        if hub.wrong.get(name, 0) > 0:
            hub.wrong[name] -= 1
            data = bytes(len(data))
        start = 0
        if wanted.startswith("bytes=") and not hub.no_ranges:
            start = int(wanted[6:].split("-")[0])
        body = data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cuts = hub.cut.get(name)
        if cuts:
            self.wfile.write(body[: cuts.pop(0)])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        if name in hub.slow:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            hub.over.wait(60)
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def served() -> Iterator[Hub]:
    """A running hub; its threads end with the test."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
