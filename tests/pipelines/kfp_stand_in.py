"""A stand-in for a Kubeflow Pipelines server: the part of its REST API v2beta1 that our programs use, over HTTP, spoken to by KFP's own client.

It is no backend: it keeps what it is given, refuses what the real one refuses (names twice: 409, an unknown pipeline: 400, a wrong token: 401),
and a run goes through the states that a test lays down.
"""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

API = "/apis/v2beta1"


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class StandIn:
    """What the server holds."""

    def __init__(self) -> None:
        self.host = ""
        self.token = ""
        self.multi_user = False
        self.failing = 0
        """So many of the next requests are answered with 503."""
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = [{"state": "SUCCEEDED"}]
        """What a run is at each look; the last one stays. An empty one is answered with 503."""
        self.lock = threading.Lock()

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, kind: str) -> Any:
        for verb, pattern, call in (
            ("GET", "/healthz", lambda: {"multi_user": self.multi_user}),
            ("GET", "/experiments", lambda: {"experiments": _named(self.experiments, query)}),
            ("POST", "/experiments", lambda: self._add(self.experiments, "experiment_id", json.loads(body))),
            ("GET", "/pipelines", lambda: {"pipelines": _named(self.pipelines, query)}),
            ("POST", "/pipelines", lambda: self._add(self.pipelines, "pipeline_id", json.loads(body))),
            ("POST", "/pipelines/upload_version", lambda: self._upload(query, body, kind)),
            ("GET", "/pipelines/([^/]+)/versions", lambda: {"pipeline_versions": _named(self.versions, query)}),
            ("POST", "/runs", lambda: self._run(json.loads(body))),
            ("GET", "/runs/([^/]+)", lambda: self._look(path.rsplit("/", 1)[1])),
        ):
            if method == verb and re.fullmatch(API + pattern, path):
                return call()
        raise RefusedError(404, f"Not Found: {method} {path}")

    def _add(self, known: list[dict[str, Any]], key: str, item: dict[str, Any]) -> dict[str, Any]:
        if any(there["display_name"] == item["display_name"] for there in known):
            raise RefusedError(409, f"Already exist error: {item['display_name']} already exists")
        known.append({**item, key: str(uuid.uuid4())})
        return known[-1]

    def _upload(self, query: dict[str, str], body: bytes, kind: str) -> dict[str, Any]:
        if query.get("pipelineid") not in [pipeline["pipeline_id"] for pipeline in self.pipelines]:
            raise RefusedError(400, "Invalid input error: unknown pipeline")
        form = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        (file,) = [part.get_payload(decode=True) for part in form.get_payload()]
        pipeline, platform = yaml.safe_load_all(file)
        spec = {"pipeline_spec": pipeline, "platform_spec": platform}
        return self._add(self.versions, "pipeline_version_id", {
            "display_name": query["name"], "pipeline_id": query["pipelineid"], "pipeline_spec": spec, "bytes": file.decode(),
        })  # fmt: skip

    def _run(self, run: dict[str, Any]) -> dict[str, Any]:
        if run["experiment_id"] not in [experiment["experiment_id"] for experiment in self.experiments]:
            raise RefusedError(400, "Invalid input error: unknown experiment")
        fields = run["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        for name, value in run["runtime_config"]["parameters"].items():
            kind = fields[name]["parameterType"]
            if (kind == "STRING") != isinstance(value, str):
                raise RefusedError(400, f"Invalid input error: input parameter {name} requires type {kind}")
        self.runs.append({**run, "run_id": str(uuid.uuid4()), "looks": 0})
        return self.runs[-1]

    def _look(self, name: str) -> dict[str, Any]:
        run = next((run for run in self.runs if run["run_id"] == name), None)
        if run is None:
            raise RefusedError(404, f"Run {name} not found")
        run["looks"] += 1
        now = self.states[min(run["looks"], len(self.states)) - 1]
        if not now:
            raise RefusedError(503, "upstream connect error")
        return {**run, **now}


def _named(known: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    wanted = {predicate["stringValue"] for predicate in json.loads(query.get("filter", "{}")).get("predicates", [])}
    return [item for item in known if not wanted or item["display_name"] in wanted]


@contextmanager
def serving() -> Iterator[StandIn]:
    """A server on a port of its own for the time of the block."""
    held = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            target = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(target.query).items()}
            with held.lock:
                try:
                    status, content = 200, self._content(target.path, query, body)
                except RefusedError as refused:
                    status, content = refused.status, {"error": refused.message, "code": 3, "message": refused.message}
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _content(self, path: str, query: dict[str, str], body: bytes) -> Any:
            if held.failing:
                held.failing -= 1
                raise RefusedError(503, "upstream connect error")
            if held.token and self.headers.get("Authorization") != f"Bearer {held.token}":
                raise RefusedError(401, "Request header error: there is no valid token")
            return held.answer(self.command, path, query, body, self.headers.get("Content-Type", ""))

        do_GET = do_POST = _serve  # names of http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as http.server names it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    held.host = f"http://127.0.0.1:{server.server_port}"
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
