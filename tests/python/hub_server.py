"""A Hugging Face hub on loopback with the endpoints that huggingface_hub uses, and a counter of requests."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"

_API = re.compile(r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)/(?P<what>revision|tree)/(?P<revision>[^/]+)/?")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Repo:
    """A repository: file names to contents, at COMMIT, which the branch main points to."""

    files: Mapping[str, bytes]
    gated_status: int | None = None  # 401 or 403 for every file while no token is sent
    broken_status: int | None = None  # for every request
    cut: set[str] = field(default_factory=set)  # files whose every answer breaks off half way


class HubServer:
    """``with HubServer({"owner/repo": Repo(...)}) as hub`` serves at ``hub.url``."""

    def __init__(self, repos: Mapping[str, Repo]) -> None:
        self.repos = repos
        self.requests: list[str] = []  # "METHOD path", in order of arrival
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def fetched(self) -> set[str]:
        """The names of the files that were asked for."""
        matches = (_RESOLVE.fullmatch(request.partition(" ")[2]) for request in self.requests)
        return {match["file"] for match in matches if match}

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        match = _API.fullmatch(path) or _RESOLVE.fullmatch(path)
        repo = self.hub.repos.get(match["repo"]) if match else None
        if match is None:
            self._send(404, b"{}")
        elif repo is None:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repo.broken_status:
            self._send(repo.broken_status, b"{}")
        elif match["revision"] not in ("main", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif match.re is _API:
            self._send(200, json.dumps(_tree(repo) if match["what"] == "tree" else _info(repo, match["repo"])).encode())
        else:
            self._send_file(repo, match["file"], with_body)

    def _send_file(self, repo: Repo, name: str, with_body: bool) -> None:
        if repo.gated_status and "Authorization" not in self.headers:
            self._send(repo.gated_status, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        if name not in repo.files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        data = repo.files[name]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        sent = data[start:]
        if with_body and name in repo.cut:
            self.close_connection = True
            sent = sent[: len(sent) // 2]
        self._send(206 if start else 200, sent, headers, length=len(data) - start)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int = -1) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _info(repo: Repo, name: str) -> dict[str, object]:
    return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in repo.files]}


def _tree(repo: Repo) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in repo.files.items()
    ]
