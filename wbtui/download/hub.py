"""Questions to the Hub and their answers in plain words: listing a repository, opening a file at an offset.

``HF_ENDPOINT`` names another server, ``HF_TOKEN`` (or the file that ``hf auth login`` writes) the user's own token,
which is sent to that server alone and never to where it redirects. ``HF_HUB_OFFLINE`` and the setting ``offline``
forbid every request. The protocol is the one that huggingface_hub speaks.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from wbtui import __version__, settings
from wbtui.errors import TimedOut, UsageError, WbtuiError, WeightsError, WorkError

MAX_LISTING_BYTES = 100_000_000
TIMEOUT = 20.0
"""Seconds without a byte until a connection counts as dead."""
TRIES = 6
"""Attempts without progress until a download gives up."""
MAX_WAIT = 300.0
"""Seconds that a rate limit may ask us to wait, all together."""
_NETWORK = {
    errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ENETDOWN,
}  # fmt: skip
_YES = {"1", "true", "yes", "on"}

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository."""

    name: str
    size: int
    etag: str
    """The name of its blob in the cache: SHA-256 of large files, Git's SHA-1 of others."""
    sha256: bool


@dataclass(frozen=True)
class Repository:
    """What a repository holds at one commit."""

    name: str
    commit: str
    files: dict[str, RemoteFile]


def offline() -> str:
    """What forbids requests: a variable's name, ``offline`` for the setting; empty where they are allowed."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").strip().casefold() in _YES:
            return name
    return "the setting offline" if settings.get("offline") else ""


def endpoint() -> str:
    """The Hub's address."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token() -> str | None:
    """The user's own Hub token, where huggingface_hub would look for it."""
    value = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if not value:
        home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
        place = Path(os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")).expanduser()
        try:
            value = place.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
    return value.strip() or None


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects; a token stays with the server that it is for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(urljoin(req.full_url, newurl)).netloc != urlsplit(req.full_url).netloc:
            new.headers.pop("Authorization", None)
        return new


_OPENER = urllib.request.build_opener(_Redirect)


def ask(url: str, headers: dict[str, str] | None = None, timeout: float = TIMEOUT) -> HTTPResponse:
    """One GET request.

    Raises:
        UsageError: requests are forbidden.
        urllib.error.HTTPError, OSError: what the network says.
    """
    reason = offline()
    if reason:
        raise UsageError(
            f"offline: {reason} forbids every request", "what is in the local Hub cache", "unset it to download"
        )
    request = urllib.request.Request(url, headers={"User-Agent": f"wbtui/{__version__}", **(headers or {})})
    key = token()
    if key and urlsplit(url).netloc == urlsplit(endpoint()).netloc:
        request.add_header("Authorization", f"Bearer {key}")
    response = _OPENER.open(request, timeout=timeout)
    assert isinstance(response, HTTPResponse)
    return response


def listing(repo: str, revision: str, say: Say) -> Repository:
    """What a repository holds, with sizes and checksums.

    Args:
        repo: ``org/name``.
        revision: a branch, tag or commit.
        say: told of waits.

    Raises:
        WbtuiError: no such repository or revision, not allowed, rate limit, no network: in words.
    """
    url = f"{endpoint()}/api/models/{quote(repo)}/revision/{quote(revision, safe='')}?blobs=true"

    def read() -> dict[str, Any]:
        with ask(url) as response:
            raw = response.read(MAX_LISTING_BYTES + 1)
        if len(raw) > MAX_LISTING_BYTES:
            raise WorkError(f"{repo}: a listing of more than {MAX_LISTING_BYTES} bytes", "a repository's listing")
        data = json.loads(raw)
        if not isinstance(data, dict):
            raise ValueError("not an object")
        return data

    data = patient(read, repo, say)
    files: dict[str, RemoteFile] = {}
    for item in data.get("siblings") or []:
        name, lfs = item.get("rfilename"), item.get("lfs") or {}
        if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/"):
            continue
        etag = str(lfs.get("sha256") or item.get("blobId") or "")
        size = lfs.get("size", item.get("size"))
        if etag and all(c in "0123456789abcdef" for c in etag) and isinstance(size, int) and size >= 0:
            files[name] = RemoteFile(name, size, etag, "sha256" in lfs)
    commit = str(data.get("sha") or "")
    if not commit or not all(c in "0123456789abcdef" for c in commit):
        raise WorkError(f"{repo}: an answer without a commit", "the Hub's listing of a repository")
    return Repository(repo, commit, files)


def patient(work: Callable[[], Any], repo: str, say: Say, progressed: Callable[[], bool] = lambda: False) -> Any:
    """Do something over the network, again after what passes: dropped connections, overload, rate limits.

    Args:
        work: may raise what urllib raises.
        repo: for errors.
        say: told of each wait: ``{"event": "waiting", "seconds", "why"}``.
        progressed: whether the last attempt got further; then the count of attempts starts anew.

    Raises:
        WbtuiError: in words, when it will not pass or has not.
    """
    failures, waited = 0, 0.0
    while True:
        try:
            return work()
        except WbtuiError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            pause = _pause(error, failures)
            if pause is None:
                raise refusal(error.code, dict(error.headers.items()), repo) from None
            why = "the Hub limits requests" if error.code == 429 else f"the Hub answers {error.code}"
            failure: WbtuiError = refusal(error.code, dict(error.headers.items()), repo)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, OSError) and not _of_network(error):
                raise
            pause, why = min(2.0**failures, 30.0) * _scale(), _words(error)
            kind = TimedOut if isinstance(error, TimeoutError) else WorkError
            failure = kind(
                f"{repo}: no connection to {endpoint()} that lasts ({why})", "the Hub",
                "what has arrived is kept: run the same command again to go on",
            )  # fmt: skip
        failures = 0 if progressed() else failures + 1
        waited += pause
        if failures >= TRIES or waited > MAX_WAIT:
            raise failure
        say({"event": "waiting", "seconds": round(pause, 1), "why": why})
        time.sleep(pause)


def _words(error: Exception) -> str:
    """What went wrong with a connection, as a person would say it; socket errors hide inside urllib's."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if type(inner).__module__ == "ssl":
        return f"no secure connection: {getattr(inner, 'reason', None) or inner}"
    if isinstance(inner, socket.gaierror):
        return "the name of the Hub cannot be looked up"
    if isinstance(inner, (ConnectionResetError, BrokenPipeError, IncompleteRead, RemoteDisconnected)):
        return "the connection broke off"
    said = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return said[:1].lower() + said[1:] or type(error).__name__


def _scale() -> float:
    """Tests shorten the waits between attempts."""
    return float(os.environ.get("WBTUI_DOWNLOAD_PAUSE", "1"))


def _of_network(error: OSError) -> bool:
    """A failure of the connection, not of the disk."""
    if type(error).__module__ == "ssl":
        return True
    return isinstance(error, (urllib.error.URLError, ConnectionError, TimeoutError)) or (
        error.filename is None and (error.errno is None or error.errno in _NETWORK)
    )


def _pause(error: urllib.error.HTTPError, failures: int) -> float | None:
    """Seconds to wait before another attempt; None where none would help."""
    if error.code not in (408, 425, 429, 500, 502, 503, 504):
        return None
    try:
        return max(0.0, float(error.headers.get("Retry-After", "")))
    except ValueError:
        return min(2.0**failures, 30.0) * _scale()


def refusal(code: int, headers: Mapping[str, str], repo: str) -> WbtuiError:
    """What an HTTP status of the Hub means, and what to do."""
    kind = {name.casefold(): value for name, value in headers.items()}.get("x-error-code", "")
    page = f"{endpoint()}/{repo}"
    if kind == "GatedRepo" or (code in (401, 403) and kind != "RepoNotFound"):
        known = "this account has not been let in" if token() else "no Hub token is set"
        return WeightsError(
            f"{repo} is gated: {known}", "access to it",
            f"accept its terms at {page}, then `hf auth login` (or set HF_TOKEN)",
        )  # fmt: skip
    if kind == "EntryNotFound":
        return WeightsError(f"{repo}: the file is not there any more", "the file that the listing names", "try again")
    if kind == "RevisionNotFound":
        return UsageError(f"{repo} has no such revision", "a branch, tag or commit of it")
    if code in (401, 404) or kind == "RepoNotFound":
        return UsageError(
            f"no repository {repo} on {endpoint()}", "the name of a model repository, as on its page",
            "a private one needs `hf auth login` (or HF_TOKEN)",
        )  # fmt: skip
    if code == 429:
        return WorkError(
            f"{repo}: the Hub limits requests (429), and asks for a longer wait than {MAX_WAIT:.0f} s", "",
            "try again later, or log in (`hf auth login`) for a higher limit",
        )  # fmt: skip
    return WorkError(f"{repo}: the Hub answers {code}", "a file", "try again later")
