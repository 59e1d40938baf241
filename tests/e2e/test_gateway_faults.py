"""What the gateway makes of pods that die, of an API server that is away, of rollouts, and of hostile clients."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from e2e.conftest import GATEWAY, Environment
from support.kube import Kube, eventually, llama_model
from support.meanwhile import meanwhile

pytestmark = pytest.mark.e2e

ENGINE = {"contextSize": 2048, "parallelSlots": 2}
CLIENTS = 4

_LOAD = """
import http.client, json, sys, threading, time

host, model, clients, seconds, tokens = *sys.argv[1:3], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
end, lock, done = time.monotonic() + seconds, threading.Lock(), []

def ask(number):
    body = {"model": model, "prompt": f"Chapter {number}. It was", "max_tokens": tokens, "stream": True}
    body["ignore_eos"] = True
    headers = {"Content-Type": "application/json", "x-llamamodel-wait": "0"}
    found = {"at": time.time(), "pieces": 0}
    for attempt in range(20):
        try:
            connection = http.client.HTTPConnection(host, 80, timeout=120)
            connection.connect()
            break
        except ConnectionRefusedError:  # clients try this again: nothing was sent
            time.sleep(0.2)
    else:
        return {**found, "broken": "connection refused for 4 s"}
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return {**found, "status": answer.status, "code": json.loads(answer.read())["error"]["code"]}
        for line in answer:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    return {**found, "status": 200, "code": event["error"]["code"]}
                found["pieces"] += 1
            if line.startswith(b"data: [DONE]"):
                return {**found, "until": time.time()}
        return {**found, "broken": "the stream ended without its end"}
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {**found, "broken": f"{type(error).__name__}: {error}"}
    finally:
        connection.close()

def client(number):
    while time.monotonic() < end:
        answer = ask(number)
        with lock:
            done.append(answer)
        if "until" not in answer:
            time.sleep(0.2)

threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(done))
"""

_ROUTE = """
import ctypes, fcntl, os, socket, struct, sys

address, request = arguments[0], int(arguments[1], 16)
with open(process / "ns/net") as namespace:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), 0x40000000):
        sys.exit(os.strerror(ctypes.get_errno()))

def sockaddr(ip):
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(ip))

UP, HOST, REJECT = 0x1, 0x4, 0x200
route = struct.pack("@L", 0) + sockaddr(address) + sockaddr("0.0.0.0") + sockaddr("255.255.255.255")
route += struct.pack("@HhLPhPLLH", UP | HOST | REJECT, 0, 0, 0, 0, 0, 0, 0, 0)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, request, route.ljust(128, b"\\0"))
"""
_WARM_UP_SEC = 6
"""Until each client has a stream that runs."""
_ADD, _DELETE = "0x890b", "0x890c"
"""SIOCADDRT and SIOCDELRT."""

Answers = list[dict[str, Any]]


def asked(
    run: Callable[..., str], host: str, model: str, *, seconds: float, clients: int = CLIENTS, tokens: int = 60
) -> Answers:
    """What clients in the cluster were told that asked the gateway for so long, each one request after the other."""
    found: Answers = json.loads(run(_LOAD, host, model, str(clients), str(seconds), str(tokens)))
    assert len(found) >= clients, "the clients themselves failed"
    return found


def load(run: Callable[..., str], host: str, model: str, **more: Any) -> AbstractContextManager[Callable[[], Answers]]:
    """They ask while the block runs; see `asked`."""
    return meanwhile(lambda: asked(run, host, model, **more), head_start_sec=_WARM_UP_SEC)


def failed(answers: Answers) -> Answers:
    return [answer for answer in answers if "until" not in answer]


def codes(answers: Answers) -> Counter[str]:
    """Of those that failed; `broken` are those that were told nothing."""
    return Counter("broken" if "broken" in answer else answer["code"] for answer in failed(answers))


def answered_since_failures(answers: Answers) -> int:
    """How many requests that were sent after the last one that failed."""
    last = max((answer["at"] for answer in failed(answers)), default=0.0)
    return sum(answer["at"] > last for answer in answers)


@pytest.fixture(scope="module")
def model(kube: Kube, gateway: str) -> str:
    """Two pods, for whom a moment of load is enough."""
    kube.apply(llama_model("steady", replicas=2, engine=ENGINE))
    kube("wait", "--for=condition=Ready", "lm/steady", "--timeout=240s", timeout=250)
    return f"{kube.namespace}/steady"


@pytest.fixture
def ready(kube: Kube, model: str) -> str:
    """The model, all of whose pods are ready again."""
    eventually(lambda: len(pods(kube)) == 2, within=120)
    kube("wait", "--for=condition=Ready", "lm/steady", "--timeout=240s", timeout=250)
    return model


def pods(kube: Kube) -> list[dict[str, Any]]:
    return kube.select("pods", "llamamodel.dev/model=steady")


def gateways(environment: Environment) -> list[dict[str, Any]]:
    """Pods of it that are not on their way out."""
    found = environment.system.select("pods", "app.kubernetes.io/component=gateway")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def restarts(pod: dict[str, Any]) -> int:
    return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])


def test_a_pod_that_is_killed_in_mid_stream_ends_its_own_streams_alone(
    kube: Kube, ready: str, gateway: str, in_cluster: Callable[..., str], send_signal: Callable[..., None]
) -> None:
    victim = pods(kube)[0]
    with load(in_cluster, gateway, ready, seconds=40, tokens=500) as answers:  # so long that each is within its stream
        send_signal(victim["metadata"]["uid"], "SIGKILL", "llama-server")
    found = answers()
    assert set(codes(found)) <= {"upstream_died"}, failed(found)
    assert len(failed(found)) <= CLIENTS, failed(found)
    assert any(answer["pieces"] for answer in failed(found)), f"none ended within its stream: {failed(found)}"
    assert answered_since_failures(found)


def test_with_all_pods_gone_clients_are_told_so_and_answered_again_later(
    kube: Kube, ready: str, gateway: str, in_cluster: Callable[..., str]
) -> None:
    with load(in_cluster, gateway, ready, seconds=40) as answers:
        kube("delete", "pods", "-l", "llamamodel.dev/model=steady", "--force", "--grace-period=0")
    found = answers()
    assert set(codes(found)) <= {"model_loading", "upstream_died"}, failed(found)
    assert codes(found)["model_loading"] > 0
    assert codes(found)["upstream_died"] <= CLIENTS
    assert answered_since_failures(found)


def test_an_api_server_that_is_away_for_a_minute_does_not_matter_to_requests(
    environment: Environment,
    kube: Kube,
    ready: str,
    gateway: str,
    in_cluster: Callable[..., str],
    at_process: Callable[..., None],
) -> None:
    (pod,) = gateways(environment)
    address = environment.kube.within("default").must_get("service", "kubernetes")["spec"]["clusterIP"]
    api_server = (_ROUTE, pod["metadata"]["uid"], "llamamodel-gateway", address)
    at_process(*api_server, _ADD)
    try:
        found = asked(in_cluster, gateway, ready, seconds=60)
    finally:
        at_process(*api_server, _DELETE)
    assert failed(found) == []
    assert restarts(gateways(environment)[0]) == 0
    kube("label", "lm", "steady", "note=seen")
    kube.patch("lm", "steady", {"spec": {"servedModelName": "steady-by-another-name"}})
    eventually(lambda: answers_to("steady-by-another-name", gateway, in_cluster), within=90, pause=1)
    kube.patch("lm", "steady", {"spec": {"servedModelName": None}})


def answers_to(name: str, gateway: str, in_cluster: Callable[..., str]) -> bool:
    return not failed(asked(in_cluster, gateway, name, seconds=0.1))


def test_a_rolling_update_behind_the_gateway_loses_no_request(
    kube: Kube, ready: str, gateway: str, in_cluster: Callable[..., str]
) -> None:
    before = {pod["metadata"]["uid"] for pod in pods(kube)}
    with load(in_cluster, gateway, ready, seconds=45) as answers:
        kube.patch("lm", "steady", {"spec": {"engine": {**ENGINE, "batchSize": 256}}})
        eventually(lambda: not before & {pod["metadata"]["uid"] for pod in pods(kube)}, within=100)
    found = answers()
    assert failed(found) == []
    assert len(found) > CLIENTS


def test_a_gateway_that_is_killed_ends_what_it_works_on_alone(
    environment: Environment,
    ready: str,
    gateway: str,
    in_cluster: Callable[..., str],
    send_signal: Callable[..., None],
) -> None:
    environment.deploy_operator("gateway.enabled=true", "gateway.replicas=2")
    environment.system("rollout", "status", f"deployment/{GATEWAY}", "--timeout=120s", timeout=130)
    first, second = eventually(lambda: found if len(found := gateways(environment)) == 2 else None, within=60)
    with load(in_cluster, gateway, ready, seconds=40, clients=2 * CLIENTS) as answers:
        send_signal(first["metadata"]["uid"], "SIGKILL", "llamamodel-gateway")
    found = answers()
    assert set(codes(found)) <= {"broken"}, failed(found)
    assert len(failed(found)) <= 2 * CLIENTS, failed(found)
    assert failed(found), "it was at work"
    assert answered_since_failures(found)
    assert restarts(environment.system.must_get("pod", second["metadata"]["name"])) == 0


def test_ten_thousand_hostile_requests_get_their_code_and_do_no_harm(
    environment: Environment, ready: str, gateway: str, in_cluster: Callable[..., str]
) -> None:
    environment.deploy_operator("gateway.enabled=true", "gateway.replicas=1")
    environment.system("rollout", "status", f"deployment/{GATEWAY}", "--timeout=120s", timeout=130)
    (pod,) = eventually(lambda: found if len(found := gateways(environment)) == 1 else None, within=60)
    said = json.loads(in_cluster(_HOSTILE, gateway, pod["status"]["podIP"], ready, "10000"))
    assert said["unexpected"] == {}, said
    assert sum(said["statuses"].values()) + said["closed"] >= 10_000
    assert said["grown_mib"] < 40, said
    assert said["still_serves"] == 200
    now = environment.system.must_get("pod", pod["metadata"]["name"])
    assert restarts(now) == restarts(pod)
    log = environment.system("logs", pod["metadata"]["name"])
    assert "Traceback" not in log
    assert "bug of the gateway" not in log
    assert "do-not-log-this" not in log


_HOSTILE = r"""
import asyncio, json, random, re, sys, urllib.request
from collections import Counter

host, pod, model, number = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
rng = random.Random(7)
secret = "do-not-log-this"

def post(body, *headers, path="/v1/chat/completions", length=None):
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {size}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

def named(**more):
    return json.dumps({"model": model, **more}).encode()

def deep(opening, closing):
    return b'{"model": "%s", "messages": ' % model.encode() + opening * 100_000 + closing * 100_000 + b"}"

chunked = "Transfer-Encoding: chunked"
KINDS = {
    # name: (bytes, statuses that are right; None is a connection that was closed without one)
    "no json": (post(b"{" + secret.encode()), {400}),
    "not utf-8": (post(b'{"model": "\xff\xfe"}'), {400}),
    "no object": (post(b"[1, 2, 3]"), {400}),
    "null": (post(b"null"), {400}),
    "empty": (post(b""), {400}),
    "no model": (post(b'{"messages": []}'), {400}),
    "model of another type": (post(b'{"model": {"$ne": null}}'), {400}),
    "unknown model": (post(json.dumps({"model": "x" * 5000, "note": secret}).encode()), {404}),
    "control characters": (post(json.dumps({"model": "a\x00b\r\nX: y"}).encode()), {404}),
    "deep lists": (post(deep(b"[", b"]")), {400}),
    "deep objects": (post(deep(b'{"a":', b"}").replace(b":}", b":1}")), {400}),
    "messages of another type": (post(named(messages={"role": secret})), {400}),
    "huge number": (post(named(messages=[], max_tokens=10**400)), {400}),
    "huge header": (post(b"{}", "X-A: " + "a" * 100_000), {400, 431, None}),
    "many headers": (post(b"{}", *(f"X-{i}: {i}" for i in range(5000))), {400, 431, None}),
    "long path": (post(b"{}", path="/v1/" + "a" * 100_000), {414, 431, None}),
    "dots in the path": (post(named(), path="/v1/../slots"), {404}),
    "escapes in the path": (post(named(), path="/v1/%2e%2e/slots"), {404}),
    "other paths": (post(named(), path="/slots/0?action=erase"), {404}),
    "absolute form": (post(named(), path="http://169.254.169.254/v1/chat/completions"), {400}),  # served here
    "absolute form of another path": (post(named(), path="http://169.254.169.254/latest/meta-data"), {404}),
    "two lengths": (post(b"{}", "Content-Length: 5"), {400, None}),
    "length and chunks": (post(b"0\r\n\r\nPOST /v1/x HTTP/1.1\r\nHost: y\r\n\r\n", chunked), {400, None}),
    "chunks that are none": (post(b"zz\r\n{}\r\n", chunked).replace(b"Content-Length", b"X-Length"), {400, None}),
    "obfuscated chunks": (post(b"{}", "Transfer-Encoding : chunked"), {400, None}),
    "negative length": (post(b"{}", length=-5), {400, None}),
    "length of words": (post(b"{}", length="ten"), {400, None}),
    "too large": (post(b"", length=1 << 40), {413}),
    "bare line feeds": (b"POST /v1/chat/completions HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}", {400, None}),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), {400, None}),
    "unknown method": (b"BREW /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404, 405}),
    "unknown version": (b"POST /v1/completions HTTP/9.9\r\nHost: x\r\nContent-Length: 0\r\n\r\n", {400, 505, None}),
    "gone in mid-body": (post(b'{"model": ', length=5000), {None}),
    "gone in mid-header": (b"POST /v1/chat/completions HTTP/1.1\r\nHos", {400, None}),
}
statuses, closed, unexpected = Counter(), 0, {}

async def one(name):
    global closed
    data, right = KINDS[name]
    for attempt in range(20):
        try:
            reader, writer = await asyncio.open_connection(host, 80, limit=1 << 20)
            break
        except OSError as error:  # nodes hear a little later of a pod that has gone before
            said = f"no connection: {error}"
            await asyncio.sleep(0.2)
    else:
        unexpected[name] = said
        return
    try:
        writer.write(data)
        if name.startswith("gone"):
            await writer.drain()
            writer.write_eof()
        line = await asyncio.wait_for(reader.readline(), 60)
    except (ConnectionError, TimeoutError) as error:
        line = b"" if isinstance(error, ConnectionError) else b"nothing for 60 s"
    finally:
        writer.close()
    found = re.match(rb"HTTP/1\.[01] (\d{3})", line)
    status = int(found[1]) if found else None
    if line and not found or status not in right:
        unexpected[name] = line.decode(errors="replace")
    if status is None:
        closed += 1
    else:
        statuses[status] += 1

async def slow(end):
    reader, writer = await asyncio.open_connection(host, 80)
    try:
        for byte in post(named(), length=1000):
            writer.write(bytes([byte]))
            await writer.drain()
            if end.is_set():
                break
            await asyncio.sleep(0.5)
    except ConnectionError:
        pass
    finally:
        writer.close()

def resident():
    text = urllib.request.urlopen(f"http://{pod}:8081/metrics", timeout=30).read().decode()
    return float(re.search(r"^process_resident_memory_bytes (\S+)$", text, re.M)[1])

async def run(names, width):
    todo = iter(names)
    async def work():
        for name in todo:
            await one(name)
    await asyncio.gather(*(work() for _ in range(width)))

async def main():
    await run(list(KINDS) * 5, 16)  # what is made once is made
    before, end = resident(), asyncio.Event()
    statuses.clear()
    slow_ones = [asyncio.create_task(slow(end)) for _ in range(50)]
    names = [rng.choice(list(KINDS)) for _ in range(number)]
    await run(names, 16)
    end.set()
    await asyncio.gather(*slow_ones)
    await asyncio.sleep(2)
    after = resident()
    request = urllib.request.Request(
        f"http://{host}/v1/completions", named(prompt="Hi", max_tokens=1), {"Content-Type": "application/json"}
    )
    serves = urllib.request.urlopen(request, timeout=60).status
    print(json.dumps({"statuses": statuses, "closed": closed, "unexpected": unexpected,
                      "grown_mib": (after - before) / 2**20, "still_serves": serves}))

asyncio.run(main())
"""
