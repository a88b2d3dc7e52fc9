"""A small Hub: a real HTTP server on this machine that speaks the Hub's protocol, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.hub_store import Blob, Commit, Repo

DATE = "2026-11-01T12:00:00.000Z"
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".tar")
TYPES = {"model": "models", "dataset": "datasets", "space": "spaces"}


@dataclass
class Fault:
    """What happens to the next `times` requests that match: see `HubServer.fail`."""

    pattern: re.Pattern[str]
    kind: int | str
    times: int
    headers: dict[str, str]


class ApiError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class HubServer:
    """The Hub at `endpoint`; use it as a context manager.

    Args:
        users (`dict[str, str]`): Token -> user name; every user may write to their own namespace and to `orgs`.
        orgs (`tuple[str]`): Organisations all users are in.
    """

    def __init__(self, users: dict[str, str] | None = None, orgs: tuple[str, ...] = ()) -> None:
        self.users, self.orgs = users or {"hf_test": "tester"}, orgs
        self.repos: dict[str, dict[str, Repo]] = {kind: {} for kind in TYPES.values()}
        self.private_by_rule = False
        """What an organisation rules for new repositories that nobody says anything about."""
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        """`METHOD /path` of every request, in order."""
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self._faults: list[Fault] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, token: str | None = "hf_test") -> dict[str, str]:
        """Variables that send a process of its own to this Hub."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1"} | ({"HF_TOKEN": token} if token else {})

    def model(self, repo_id: str) -> Repo:
        """The model repository `repo_id`."""
        return self.repos["models"][repo_id]

    def fail(self, pattern: str, kind: int | str, times: int = 1, **headers: str) -> None:
        """Lets the next `times` requests whose `METHOD /path` matches `pattern` fail.

        Args:
            pattern (`str`): Regular expression, searched for.
            kind (`int` or `str`): A status to answer with (as a gateway does: in HTML); `"cut"`: do what was asked
                and hang up halfway through the answer; `"hang_up"`: hang up in the middle of the request;
                `"silence"`: never answer.
            times (`int`): How many requests fail.
            **headers (`str`): Headers of the answer, `_` for `-`, such as `Retry_After="1"`.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._faults.append(Fault(re.compile(pattern), kind, times, named))

    def heal(self) -> None:
        """Lets every request succeed again."""
        self._faults.clear()

    def take_fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self._faults:
                if fault.times > 0 and fault.pattern.search(request):
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        request = f"{self.command} {self.route}"
        with self.hub.lock:
            self.hub.requests.append(request)
        fault = self.hub.take_fault(request)
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "hang_up":
            self.rfile.read(length // 2)
            return self._hang_up()
        self.body = self._read_chunks() if self.headers.get("Transfer-Encoding") else self.rfile.read(length)
        if fault and fault.kind == "silence":
            self.hub.closing.wait()
            return self._hang_up()
        if fault and isinstance(fault.kind, int):
            return self._send(fault.kind, b"<html>Out of order</html>", {"Content-Type": "text/html", **fault.headers})
        try:
            with self.hub.lock:
                status, data, headers = self._answer()
        except ApiError as error:
            status, data = error.status, json.dumps({"error": error.message or error.code}).encode()
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message or error.code}
        self._send(status, data, headers, cut=fault is not None)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, data: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    @property
    def user(self) -> str | None:
        return self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _answer(self) -> tuple[int, bytes, dict[str, str]]:
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in method.split("|"):
                result = answer(self, **match.groupdict())
                return result if isinstance(result, tuple) else (200, json.dumps(result).encode(), {})
        raise ApiError(404, "", f"no such route: {self.command} {self.route}")

    def _json(self) -> Any:
        return json.loads(self.body or b"{}")

    def _writer(self, namespace: str) -> str:
        if self.user is None:
            raise ApiError(401, "", "Invalid credentials in Authorization header")
        if namespace not in (self.user, *self.hub.orgs):
            raise ApiError(403, "", f"You don't have the rights to create or write in {namespace}")
        return self.user

    def _repo(self, kind: str, repo: str, write: bool = False) -> Repo:
        if write:
            self._writer(repo.partition("/")[0])
        found = self.hub.repos[kind].get(repo)
        if found is None or (found.private and self.user is None):
            raise ApiError(404 if self.user else 401, "RepoNotFound", "Repository not found")
        return found

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise ApiError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def whoami(self) -> Any:
        if self.user is None:
            raise ApiError(401, "", "Invalid credentials in Authorization header")
        orgs = [{"name": name, "type": "org"} for name in self.hub.orgs]
        return {"type": "user", "name": self.user, "orgs": orgs, "auth": {"type": "access_token"}}

    def create(self) -> Any:
        asked = self._json()
        namespace = asked.get("organization") or self.user or ""
        self._writer(namespace)
        kind, repo_id = TYPES[asked.get("type") or "model"], f"{namespace}/{asked['name']}"
        url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if repo_id in self.hub.repos[kind]:
            answer = {"error": "You already created this repo", "url": url}
            return 409, json.dumps(answer).encode(), {}
        said = not {"visibility", "private"}.isdisjoint(asked)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        private = private if said else self.hub.private_by_rule
        repo = self.hub.repos[kind][repo_id] = Repo(repo_id, private)
        repo.commit("initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", lfs=False)})
        return {"url": url, "name": repo_id, "id": repo_id}

    def delete(self) -> Any:
        asked = self._json()
        kind = TYPES[asked.get("type") or "model"]
        repo = self._repo(kind, f"{asked.get('organization') or self.user}/{asked['name']}", write=True)
        del self.hub.repos[kind][repo.id]
        return {}

    def settings(self, kind: str, repo: str) -> Any:
        found, asked = self._repo(kind, repo, write=True), self._json()
        found.private = asked.get("visibility", "") == "private" or asked.get("private", found.private)
        return {}

    def listing(self, kind: str) -> Any:
        author, search = self.query.get("author", [""])[0], self.query.get("search", [""])[0]
        return [
            {"id": repo.id, "private": repo.private, "tags": [], "sha": repo.branches["main"]}
            for repo in self.hub.repos[kind].values()
            if repo.id.startswith(author) and search in repo.id and not (repo.private and self.user is None)
        ]

    def validate(self) -> Any:
        if not self._json()["content"].startswith("---\n"):
            return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        return {"errors": [], "warnings": []}

    def info(self, kind: str, repo: str, revision: str | None = None) -> Any:
        found = self._repo(kind, repo)
        commit = self._commit(found, revision or "main")
        siblings = [{"rfilename": path} for path in commit.files]
        return {"id": repo, "sha": commit.oid, "private": found.private, "tags": [], "siblings": siblings}

    def tree(self, kind: str, repo: str, revision: str, path: str | None = None) -> Any:
        files = self._commit(self._repo(kind, repo), revision).files
        prefix = f"{path}/" if path else ""
        inside = {name: blob for name, blob in files.items() if name.startswith(prefix)}
        if path and not inside:
            raise ApiError(404, "EntryNotFound", f"{path} does not exist")
        if self.query.get("recursive", ["false"])[0].lower() == "true":
            return [_file_info(name, blob) for name, blob in inside.items()]
        folders = {prefix + name[len(prefix) :].split("/")[0] for name in inside if "/" in name[len(prefix) :]}
        plain = [_file_info(name, blob) for name, blob in inside.items() if "/" not in name[len(prefix) :]]
        return [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)] + plain

    def paths_info(self, kind: str, repo: str, revision: str) -> Any:
        files = self._commit(self._repo(kind, repo), revision).files
        if "json" in self.headers.get("Content-Type", ""):
            paths = self._json()["paths"]
        else:
            paths = parse_qs(self.body.decode())["paths"]
        return [_file_info(path, files[path]) for path in paths if path in files]

    def refs(self, kind: str, repo: str) -> Any:
        found = self._repo(kind, repo)
        lists = {"branches": ("heads", found.branches), "tags": ("tags", found.tags)}
        return {"converts": [], "pullRequests": []} | {
            key: [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid} for name, oid in refs.items()]
            for key, (folder, refs) in lists.items()
        }

    def commits(self, kind: str, repo: str, revision: str) -> Any:
        commit: Commit | None = self._commit(self._repo(kind, repo), revision)
        entries = []
        while commit is not None:
            entries.append({"id": commit.oid, "title": commit.title, "message": "", "date": DATE, "authors": []})
            commit = commit.parent
        return entries

    def reference(self, kind: str, repo: str, what: str, name: str) -> Any:
        found = self._repo(kind, repo, write=True)
        refs = found.branches if what == "branch" else found.tags
        if self.command == "DELETE":
            if refs.pop(name, None) is None:
                raise ApiError(404, "RevisionNotFound", f"Invalid rev id: {name}")
            return {}
        asked = self._json()
        new, start = (name, asked.get("startingPoint", "main")) if what == "branch" else (asked["tag"], name)
        if new in refs:
            raise ApiError(409, "", f"{what} {new} already exists")
        refs[new] = self._commit(found, start).oid
        return {}

    def preupload(self, kind: str, repo: str, revision: str) -> Any:
        present = self._commit(self._repo(kind, repo, write=True), revision).files
        return {
            "files": [
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": present[path].oid if path in present else None,
                }
                for path in (file["path"] for file in self._json()["files"])
            ]
        }

    def lfs_batch(self, repo: str) -> Any:
        self._repo("models" if not repo.startswith("datasets/") else "datasets", repo.removeprefix("datasets/"), True)
        objects = []
        for asked in self._json()["objects"]:
            known = asked["oid"] in self.hub.lfs
            upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}", "header": {}}}
            objects.append({"oid": asked["oid"], "size": asked["size"]} | ({} if known else {"actions": upload}))
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise ApiError(400, "", "the content does not match its oid")
        self.hub.lfs[oid] = self.body
        return {}

    def commit(self, kind: str, repo: str, revision: str) -> Any:
        found = self._repo(kind, repo, write=True)
        files, title = dict(self._commit(found, revision).files), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise ApiError(400, "", f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = Blob(self.hub.lfs[value["oid"]], lfs=True)
            else:
                files = {
                    p: b for p, b in files.items() if p != value["path"] and not p.startswith(value["path"] + "/")
                }
        commit = found.commit(title, files, revision)
        return {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": f"{self.hub.endpoint}/{repo}/commit/{commit.oid}",
        }

    def resolve(self, repo: str, revision: str, path: str, kind: str | None = None) -> Any:
        commit = self._commit(self._repo(kind or "models", repo), revision)
        blob = commit.files.get(path)
        if blob is None:
            raise ApiError(404, "EntryNotFound", f"{path} does not exist")
        headers = {"ETag": f'"{blob.oid}"', "X-Repo-Commit": commit.oid, "Content-Type": "application/octet-stream"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.data))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 200, blob.data, headers
        start, end = int(asked[1]), int(asked[2] or len(blob.data) - 1)
        return 206, blob.data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(blob.data)}"}


def _file_info(path: str, blob: Blob) -> dict[str, Any]:
    info = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid}
    return info | ({"lfs": {"oid": blob.oid, "size": len(blob.data), "pointerSize": 130}} if blob.lfs else {})


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("DELETE", r"/api/repos/delete", _Handler.delete),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("GET", r"/api/(?P<kind>models|datasets|spaces)", _Handler.listing),
    ("PUT", _API + r"/settings", _Handler.settings),
    ("GET", _API + r"(/revision/(?P<revision>.+))?", _Handler.info),
    ("GET", _API + r"/tree/(?P<revision>[^/]+)(/(?P<path>.+))?", _Handler.tree),
    ("POST", _API + r"/paths-info/(?P<revision>.+)", _Handler.paths_info),
    ("GET", _API + r"/refs", _Handler.refs),
    ("GET", _API + r"/commits/(?P<revision>.+)", _Handler.commits),
    ("POST|DELETE", _API + r"/(?P<what>branch|tag)/(?P<name>.+)", _Handler.reference),
    ("POST", _API + r"/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", _API + r"/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", r"/(?P<repo>.+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    (
        "GET|HEAD",
        r"/((?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        _Handler.resolve,
    ),
]
