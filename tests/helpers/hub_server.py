"""A server on this machine that answers as the hub does, and can be told to fail.

HubServer   .put(name, folder), .fail(...), .cut(...), .requests; a context manager
snapshot    where the cache keeps the tests' model
hub_at      let huggingface_hub talk to it: the environment of a user, and the library imported anew under it

It speaks what `huggingface_hub` asks for when a snapshot is downloaded: the model's record, its tree, HEAD and GET of
files, weights by a redirect to another host with ranges, as the hub's storage does it.
"""

import hashlib
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

NAME = "org/tiny"  # what tests call their model
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".gguf", ".h5", ".msgpack")  # kept in the storage, not in the repository
# What lies beside a model on the hub, and is never to be asked for.
UNWANTED_FILES = (
    "pytorch_model.bin", "model.pt", "model.pth", "model.gguf", "model.msgpack", "model.h5", "consolidated.safetensors",
    "adapter_model.safetensors", "onnx/model.onnx", "onnx/model.safetensors", "modeling_tiny.py", "training_args.bin",
)  # fmt: skip
_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
ROUTES = {
    "info": re.compile(rf"/api/models/{_NAME}(?:/revision/(?P<revision>[^/]+))?"),
    "tree": re.compile(rf"/api/models/{_NAME}/tree/(?P<revision>[^/]+)"),
    "file": re.compile(rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)"),
    "storage": re.compile(rf"/storage/{_NAME}/(?P<file>.+)"),
}


class Request(NamedTuple):
    """What was asked for: the kind is a key of `ROUTES`."""

    method: str
    kind: str
    file: str
    range: str
    token: str


@dataclass
class Failure:
    """An answer instead of the right one, to so many requests of a kind."""

    kind: str
    file: str
    status: int
    code: str
    times: int


class HubServer:
    """Models by name, the failures to come, and all requests so far."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.revisions = {"main", "v1", COMMIT}
        self.requests: list[Request] = []
        self.failures: list[Failure] = []
        self.cuts: dict[str, list[int]] = {}
        self.token = ""  # when set, files are given to those who send it
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def put(self, name: str, folder: Path) -> None:
        """Publish the files of a folder, those below it too, under a name."""
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        self.models[name] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def fail(self, kind: str, status: int, *, file: str = "", code: str = "", times: int = 10**6) -> None:
        """Answer requests of a kind (for one file, or for any) with a status; code: the hub's X-Error-Code."""
        self.failures.append(Failure(kind, file, status, code, times))

    def cut(self, file: str, *sizes: int) -> None:
        """Close the connection after so many bytes, at the first request for a file's bytes, at the second, ..."""
        self.cuts[file] = list(sizes)

    def asked(self, kind: str, method: str = "GET") -> list[Request]:
        return [request for request in self.requests if (request.kind, request.method) == (kind, method)]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self) -> "HubServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer()

    def do_GET(self) -> None:  # noqa: N802
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0].replace("%2F", "/")
        matches = ((kind, route.fullmatch(path)) for kind, route in ROUTES.items())
        kind, found = next(((kind, found) for kind, found in matches if found), ("", None))
        if found is None:
            return self._send(404)
        parts = {"revision": "main", "file": ""} | {k: v for k, v in found.groupdict().items() if v}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        ranges = self.headers.get("Range", "")
        self.hub.requests.append(Request(self.command, kind, parts["file"], ranges, token))
        for failure in self.hub.failures:
            if failure.times and failure.kind == kind and failure.file in ("", parts["file"]):
                failure.times -= 1
                return self._send(failure.status, code=failure.code)
        if parts["name"] not in self.hub.models:
            return self._send(404, code="RepoNotFound")
        if parts["revision"] not in self.hub.revisions:
            return self._send(404, code="RevisionNotFound")
        if kind == "file" and self.hub.token not in ("", token):
            return self._send(403 if token else 401, code="GatedRepo")
        getattr(self, f"_{kind}")(self.hub.models[parts["name"]], **parts)

    def _info(self, files: dict[str, bytes], *, name: str, **_: str) -> None:
        siblings = [{"rfilename": file} for file in files]
        count = {"downloads": 0, "likes": 0, "private": False, "tags": [], "siblings": siblings}
        self._json({"id": name, "modelId": name, "sha": COMMIT} | count)

    def _tree(self, files: dict[str, bytes], **_: str) -> None:
        entries = ({"type": "file", "path": f, "size": len(b), "oid": etag(b)} for f, b in files.items())
        self._json(list(entries))

    def _file(self, files: dict[str, bytes], *, name: str, file: str, **_: str) -> None:
        if file not in files:
            return self._send(404, code="EntryNotFound")
        data, headers = files[file], {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(files[file])}"'}
        if not file.endswith(LARGE):
            return self._send(200, data, headers)
        headers["Location"] = f"http://localhost:{self.hub.port}/storage/{name}/{file}"  # another host
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{etag(data)}"'}
        return self._send(302, b"", headers)

    def _storage(self, files: dict[str, bytes], *, file: str, **_: str) -> None:
        data, wanted = files[file], re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{etag(data)}"'}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cuts = self.hub.cuts.get(file)
        self._send(206 if wanted else 200, data[start:], headers, limit=cuts.pop(0) if cuts else None)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self,
        status: int,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        code: str = "",
        limit: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:limit])
        if limit is not None:  # fewer bytes than were promised, and no more
            self.wfile.flush()
            self.close_connection = True


def etag(data: bytes) -> str:
    """Return the name under which the cache keeps these bytes."""
    return hashlib.sha256(data).hexdigest()


def snapshot(home: Path) -> Path:
    """Return the folder in which the cache below home keeps the tests' model."""
    return home / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / COMMIT


def _forget_library() -> dict[str, Any]:
    """Take huggingface_hub out of the imported modules, so that the next import reads the environment."""
    logging.getLogger(
        "huggingface_hub"
    ).handlers.clear()  # it would write to the standard error of an earlier test
    names = [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def hub_at(monkeypatch: Any, server: HubServer, home: Path, **environment: str) -> Iterator[None]:
    """Let huggingface_hub use this server and a cache below home, for as long as the context lasts."""
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("HF_HOME", str(home))
    for name in (
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "TRANSFORMERS_OFFLINE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"NO_PROXY": "*", "no_proxy": "*"} | environment).items():
        monkeypatch.setenv(name, value)
    before = _forget_library()
    try:
        yield
    finally:
        library = sys.modules.get("huggingface_hub")
        if library is not None:
            close = getattr(library, "close_session", None) or getattr(library.utils, "reset_sessions", None)
            if close:
                close()
        _forget_library()
        sys.modules.update(before)
