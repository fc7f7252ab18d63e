"""A little of the Hugging Face hub: what huggingface_hub asks for when it uploads a folder.

The ways that the installed version goes: `whoami-v2`, `models/NAME`, `repos/create`,
`validate-yaml`, `preupload`, the batches of git-lfs, `commit`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_a-very-secret-token"
USER = "me"
LARGE = (".safetensors",)  # what belongs to git-lfs


def blob_id(content: bytes) -> str:
    """git's."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Hub:
    """What it has, what was asked, and how it fails.

    Attributes:
        failures: the next answers by a part of the path: a status, once for each.
    """

    address: str = ""
    role: str = "write"
    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    failures: list[tuple[str, int]] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, status: int, said: str, code: str = "", **more: str) -> None:
        self.status, self.code, self.body = status, code, {"error": said, **more}


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that listens as long as the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            path = urlsplit(self.path).path
            hub.asked.append(f"{self.command} {path}")
            headers: dict[str, str] = {}
            try:
                content, status = self._content(path, body), 200
            except _Refused as refused:
                content, status = refused.body, refused.status
                headers = {"X-Error-Message": content["error"], "X-Error-Code": refused.code}
            sent = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(sent))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        def _content(self, path: str, body: bytes) -> Any:
            for place, (part, status) in enumerate(hub.failures):
                if part in path:
                    del hub.failures[place]
                    raise _Refused(status, "as the test wants it")
            if path.startswith("/lfs/"):
                assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
                hub.lfs[path.removeprefix("/lfs/")] = body
                return {}
            if path == "/api/validate-yaml":
                return {"errors": [], "warnings": []}
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise _Refused(401, "Invalid credentials in Authorization header")
            if path == "/api/whoami-v2":
                return {"name": USER, "auth": {"accessToken": {"role": hub.role}}}
            if path == "/api/repos/create":
                return _created(hub, json.loads(body))
            for form, answer in _OF_A_REPO.items():
                if found := re.fullmatch(form, path):
                    if found[1] not in hub.repos:
                        raise _Refused(404, "Repository not found", "RepoNotFound")
                    return answer(hub, found[1], body)
            raise _Refused(404, f"nothing is at {path}")

        def log_message(self, format: str, *args: object) -> None:
            """Tests look at what was asked instead."""

    return Handler


def _created(hub: Hub, wanted: dict[str, Any]) -> dict[str, str]:
    if wanted["organization"] != USER:
        raise _Refused(403, "You don't have the rights to create a model under this namespace")
    name = f"{USER}/{wanted['name']}"
    if name in hub.repos:
        raise _Refused(409, "You already created this model repo", url=f"{hub.address}/{name}")
    private = wanted.get("private", wanted.get("visibility") == "private")
    hub.repos[name] = Repo(private, {".gitattributes": b"*.safetensors filter=lfs\n"})
    return {"url": f"{hub.address}/{name}"}


def _told(hub: Hub, name: str, _: bytes) -> dict[str, Any]:
    repo = hub.repos[name]
    siblings = []
    for path, content in repo.files.items():
        sibling: dict[str, Any] = {"rfilename": path, "size": len(content)}
        sibling["blobId"] = blob_id(content)
        if path.endswith(LARGE):
            sha256 = hashlib.sha256(content).hexdigest()
            sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        siblings.append(sibling)
    return {"id": name, "modelId": name, "private": repo.private, "siblings": siblings,
            "sha": "0" * 40, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip


def _modes(hub: Hub, name: str, body: bytes) -> dict[str, Any]:
    files = hub.repos[name].files
    found = []
    for file in json.loads(body)["files"]:
        path, large = file["path"], file["path"].endswith(LARGE)
        oid = None
        if path in files:
            oid = hashlib.sha256(files[path]).hexdigest() if large else blob_id(files[path])
        mode = "lfs" if large else "regular"
        found.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": found}


def _batch(hub: Hub, _: str, body: bytes) -> dict[str, Any]:
    objects = []
    for wanted in json.loads(body)["objects"]:
        upload = {"upload": {"href": f"{hub.address}/lfs/{wanted['oid']}", "header": {}}}
        known = wanted["oid"] in hub.lfs
        objects.append({**wanted, **({} if known else {"actions": upload})})
    return {"transfer": "basic", "objects": objects}


def _committed(hub: Hub, name: str, body: bytes) -> dict[str, Any]:
    lines = [json.loads(line) for line in body.splitlines()]
    for line in lines:
        value = line["value"]
        if line["key"] == "header":
            hub.commits.append(value["summary"])
        elif line["key"] == "file":
            hub.repos[name].files[value["path"]] = base64.b64decode(value["content"])
        else:
            assert line["key"] == "lfsFile", line["key"]
            hub.repos[name].files[value["path"]] = hub.lfs[value["oid"]]
    oid = f"{len(hub.commits):040x}"
    return {"success": True, "commitOid": oid, "commitUrl": f"{hub.address}/{name}/commit/{oid}"}


_NAME = r"(\w+/[\w.-]+)"
_OF_A_REPO = {
    f"/api/models/{_NAME}(?:/revision/main)?": _told,
    f"/api/models/{_NAME}/preupload/main": _modes,
    f"/{_NAME}.git/info/lfs/objects/batch": _batch,
    f"/api/models/{_NAME}/commit/main": _committed,
}
