"""An API server on the loopback interface with LlamaModels, pods, their logs, and llama-servers behind its proxy."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MODELS = "/apis/llamamodel.dev/v1alpha1"

Answer = tuple[int, Any]
"""Status and JSON, or text."""


@dataclass
class FakeServer:
    """A llama-server as the command line sees one: it counts tokens as the real one does.

    Attributes:
        answers: in the place of what it would say, by path.
        strangers: tokens that somebody else has it generate with each request.
        drops: how many requests find a connection that it has closed.
        ends_early: whether it generates one token less than it is asked for.
    """

    slots: list[dict[str, Any]] = field(default_factory=lambda: [{"id": 0, "n_ctx": 4096, "is_processing": False}])
    prompt_tokens: int = 0
    generated_tokens: int = 0
    processing: int = 0
    deferred: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    strangers: int = 0
    drops: int = 0
    dropped_as: str = "error trying to reach service: EOF"
    ends_early: bool = False
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[tuple[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, body: Any) -> Answer | Iterator[Any]:
        """JSON, text, or the events of a stream."""
        if body is not None:
            self.bodies.append((path, body))
        if self.drops and path in ("/completion", "/v1/embeddings"):
            self.drops -= 1
            return 503, self.dropped_as
        if path in self.answers:
            return self.answers[path]
        match path:
            case "/props":
                return 200, {"build_info": "b11669-abc", "default_generation_settings": {"n_ctx": 4096}}
            case "/slots":
                return 200, self.slots
            case "/metrics":
                return 200, self.metrics()
            case "/tokenize":
                return 200, {"tokens": list(range(100, 100 + len(body["content"].split())))}
            case "/completion":
                return self.completion(body)
            case "/v1/embeddings":
                return self.counted(
                    sum(map(len, body["input"])), {"data": [{"embedding": [0.5]} for _ in body["input"]]}
                )
            case "/v1/rerank":
                said = sum(len(text.split()) for text in [body["query"], *body["documents"]])
                return self.counted(said, {"results": [{"index": 0, "relevance_score": 0.5}]})
        return 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}

    def counted(self, tokens: int, answer: dict[str, Any]) -> Answer:
        with self.lock:
            self.prompt_tokens += tokens
        return 200, {**answer, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    def completion(self, body: Mapping[str, Any]) -> Iterator[Any]:
        wanted = body["n_predict"] - self.ends_early
        for number in range(1, wanted + 1):
            yield {"content": " a", "tokens": [7], "stop": False, "tokens_predicted": number}
        with self.lock:
            self.prompt_tokens += len(body["prompt"])
            self.generated_tokens += wanted + self.strangers
        last = {"tokens_predicted": wanted, "tokens_evaluated": len(body["prompt"])}
        yield {"content": "", "tokens": [], "stop": True, "padding": "x" * 300_000, **last}

    def metrics(self) -> str:
        values = {
            "prompt_tokens_total": self.prompt_tokens,
            "tokens_predicted_total": self.generated_tokens,
            "requests_processing": self.processing,
            "requests_deferred": self.deferred,
        }
        kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in values}
        return "".join(
            f"# HELP llamacpp:{name} Text.\n# TYPE llamacpp:{name} {kinds[name]}\nllamacpp:{name} {value}\n"
            for name, value in values.items()
        )


@dataclass
class FakeApi:
    """What it has, and what it was asked.

    Attributes:
        models, pods: raw objects, by namespace and name.
        secrets: what is in their entries, by namespace and name.
        servers: by the name of the pod.
        logs: by pod and container; lists are the answers to one request after the other.
        refusals: by the beginning of the method and path.
        changed: told a LlamaModel that was created, which it may change as the operator would.
    """

    models: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pods: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    secrets: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    servers: dict[str, FakeServer] = field(default_factory=dict)
    logs: dict[tuple[str, str], Answer | list[Answer]] = field(default_factory=dict)
    refusals: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    changed: Callable[[dict[str, Any]], None] = lambda _: None
    kubeconfig: str = ""
    url: str = ""

    def has(self, *objects: Mapping[str, Any]) -> None:
        for raw in objects:
            metadata = raw["metadata"]
            kind = self.pods if raw["kind"] == "Pod" else self.models
            kind[metadata["namespace"], metadata["name"]] = dict(raw)

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Answer | Iterator[Any]:
        self.asked.append(f"{method} {path}")
        for beginning, refusal in self.refusals.items():
            if f"{method} {path}".startswith(beginning):
                return refusal
        match path.strip("/").split("/"):
            case ["api", "v1", "namespaces", _, "pods", pod, "proxy", *rest] if pod.endswith(":8080"):
                server = self.servers.get(pod.removesuffix(":8080"))
                if server is None:
                    return 503, "error trying to reach service: dial tcp 10.0.0.1:8080: connect: connection refused"
                return server.answer("/" + "/".join(rest), body)
            case ["api", "v1", "namespaces", _, "pods", pod, "log"]:
                found = self.logs.get((pod, query["container"]), (404, {"message": "no such log"}))
                return found.pop(0) if isinstance(found, list) else found
            case ["api", "v1", "namespaces", namespace, "secrets", name] if (namespace, name) in self.secrets:
                data = {entry: b64encode(content).decode() for entry, content in self.secrets[namespace, name].items()}
                return 200, {"kind": "Secret", "metadata": {"namespace": namespace, "name": name}, "data": data}
            case ["api", "v1", "namespaces", namespace, "pods"]:
                return self._listed(self.pods, namespace, query.get("labelSelector", ""))
            case ["apis", "llamamodel.dev", "v1alpha1", "llamamodels"]:
                return self._listed(self.models, None, "")
            case ["apis", "llamamodel.dev", "v1alpha1", "namespaces", namespace, "llamamodels"]:
                if method == "POST":
                    raw = {**body, "metadata": {**body["metadata"], "uid": "uid-of-the-copy", "generation": 1}}
                    self.created.append(raw)
                    self.has(raw)
                    self.changed(self.models[namespace, raw["metadata"]["name"]])
                    return 201, raw
                return self._listed(self.models, namespace, "")
            case ["apis", "llamamodel.dev", "v1alpha1", "namespaces", namespace, "llamamodels", name]:
                if (namespace, name) in self.models:
                    return 200, self.models.pop((namespace, name)) if method == "DELETE" else self.models[
                        namespace, name
                    ]
        return 404, {"kind": "Status", "reason": "NotFound", "message": "not found"}

    def _listed(self, objects: Mapping[tuple[str, str], Any], namespace: str | None, selector: str) -> Answer:
        label, _, value = selector.partition("=")
        items = [
            raw
            for (where, _name), raw in objects.items()
            if namespace in (None, where) and (not label or (raw["metadata"].get("labels") or {}).get(label) == value)
        ]
        return 200, {"metadata": {}, "items": items}


@contextmanager
def a_fake_api(folder: Path, *, namespace: str = "demo") -> Iterator[FakeApi]:
    """Serves it, with a kubeconfig for it."""
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = unquote(url.path)
            for pod, server in api.servers.items():
                if f"/{pod}:8080/" in path:
                    server.headers.append(dict(self.headers))
            found = api.answer(self.command, path, query, body)
            if isinstance(found, tuple):
                self.write_whole(*found)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in found:
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()

        def write_whole(self, status: int, answer: Any) -> None:
            text = answer if isinstance(answer, bytes) else answer.encode() if isinstance(answer, str) else None
            content = json.dumps(answer).encode() if text is None else text
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_one  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    api.url = f"http://127.0.0.1:{http.server_port}"
    file = folder / "kubeconfig"
    file.write_text(json.dumps(a_kubeconfig(api.url, namespace=namespace)))
    api.kubeconfig = str(file)
    try:
        yield api
    finally:
        http.shutdown()
        http.server_close()


def a_kubeconfig(server: str, *, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": namespace}}],
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
