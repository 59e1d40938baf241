"""The API server, over raw JSON: read, list, server-side apply, delete."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from llamamodel_operator import __version__
from llamamodel_operator.api.base import GROUP, PLURAL, VERSION
from llamamodel_operator.api.labels import MANAGER

__all__ = [
    "CONFIG_MAPS",
    "DEPLOYMENTS",
    "EVENTS",
    "JOBS",
    "LEASES",
    "MODELS",
    "PERSISTENT_VOLUME_CLAIMS",
    "PODS",
    "POD_DISRUPTION_BUDGETS",
    "SECRETS",
    "SERVICES",
    "ApiError",
    "ClusterClient",
    "ClusterConfigError",
    "Resource",
    "WriteObserver",
]

_CONFLICTS = 5
"""How often a write is tried again on a newer version of the object."""

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
_ENDLESS = aiohttp.ClientTimeout(total=None, sock_connect=10)


class ClusterConfigError(Exception):
    """No usable kubeconfig and no service account; the message says what was tried."""


class ApiError(Exception):
    """An answer of the API server that is not a success.

    Attributes:
        status: the HTTP status.
        reason: the API's reason, such as NotFound or AlreadyExists; empty where it gave none.
        message: the API's own sentence.
    """

    def __init__(self, *, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later without anybody changing anything."""
        return self.status >= 500 or self.status in (408, 429)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A kind as the URL names it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As objects say it: `apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, *, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or a subresource."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        parts = [root, *(("namespaces", namespace) if namespace else ()), self.plural]
        return "/".join([*parts, *(part for part in (name, subresource) if part)])


MODELS = Resource(group=GROUP, version=VERSION, plural=PLURAL, kind="LlamaModel")
DEPLOYMENTS = Resource(group="apps", version="v1", plural="deployments", kind="Deployment")
SERVICES = Resource(group="", version="v1", plural="services", kind="Service")
PODS = Resource(group="", version="v1", plural="pods", kind="Pod")
PERSISTENT_VOLUME_CLAIMS = Resource(
    group="", version="v1", plural="persistentvolumeclaims", kind="PersistentVolumeClaim"
)
SECRETS = Resource(group="", version="v1", plural="secrets", kind="Secret")
CONFIG_MAPS = Resource(group="", version="v1", plural="configmaps", kind="ConfigMap")
JOBS = Resource(group="batch", version="v1", plural="jobs", kind="Job")
POD_DISRUPTION_BUDGETS = Resource(
    group="policy", version="v1", plural="poddisruptionbudgets", kind="PodDisruptionBudget"
)
EVENTS = Resource(group="events.k8s.io", version="v1", plural="events", kind="Event")
CORE_EVENTS = Resource(group="", version="v1", plural="events", kind="Event")
"""The same objects in a form whose UID of the object can be selected by."""
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")


class WriteObserver(Protocol):
    """Is told of every write: the kind, the verb, and the HTTP status (0 where no answer came)."""

    def __call__(self, *, kind: str, verb: str, status: int) -> None: ...


class ClusterClient:
    """Requests to one API server.

    `fence` is called right before a write goes out, when a connection was found for it; raising there stops the
    write. The leader's lease is checked there, so that one that has lost it cannot write by accident.
    """

    def __init__(
        self,
        *,
        server: str,
        session: aiohttp.ClientSession,
        new_session: Callable[[], aiohttp.ClientSession],
        observe_write: WriteObserver | None = None,
        fence: Callable[[], None] | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.new_session = new_session
        """Makes another session with the same credentials, for somebody who will close it."""
        self._session = session
        self._observe_write = observe_write
        self.fence = fence

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        user_agent: str = f"{MANAGER}/{__version__}",
        observe_write: WriteObserver | None = None,
    ) -> AsyncIterator[ClusterClient]:
        """A client for the cluster that this process runs in, or the one that the kubeconfig names.

        Raises:
            ClusterConfigError: neither is there.
        """
        configuration = await _load(kubeconfig=kubeconfig, context=context)
        # Python 3.13 refuses CAs without a key usage extension; clusters have them, and Go's clients take them.
        configuration.disable_strict_ssl_verification = True
        ssl_context = RESTClientObject(configuration).ssl_context

        def new_session() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=ssl_context),
                headers={"User-Agent": user_agent},
                middlewares=(_authenticated(configuration),),
                trace_configs=[_fence_trace()],
                proxy=configuration.proxy,
                timeout=_REQUEST_TIMEOUT,
            )

        async with new_session() as session:
            yield cls(server=configuration.host, session=session, new_session=new_session, observe_write=observe_write)

    def unfenced(self) -> ClusterClient:
        """The same, for the lease itself."""
        return ClusterClient(
            server=self.server,
            session=self._session,
            new_session=self.new_session,
            observe_write=self._observe_write,
        )

    async def get(self, resource: Resource, *, namespace: str | None, name: str) -> dict[str, Any] | None:
        """The object, or None where it does not exist. Raises ApiError."""
        try:
            return await self._request("GET", resource.path(namespace=namespace, name=name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        chunk_size: int = 500,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """The objects, in chunks. Raises ApiError."""
        params = {"limit": str(chunk_size)} | ({"labelSelector": label_selector} if label_selector else {})
        while True:
            answer = await self._request("GET", resource.path(namespace=namespace), params=params)
            yield answer["items"]
            if not (token := answer["metadata"].get("continue")):
                return
            params["continue"] = token

    async def read_log(
        self,
        *,
        namespace: str,
        name: str,
        container: str,
        limit_bytes: int,
        tail_lines: int | None = None,
        previous: bool = False,
    ) -> bytes:
        """The log of a pod's container, that many bytes at most. Raises ApiError.

        Args:
            tail_lines: from so many lines before its end; None is from its start.
            previous: of the run before the present one.
        """
        path = PODS.path(namespace=namespace, name=name, subresource="log")
        params = {"container": container, "limitBytes": str(limit_bytes)}
        if tail_lines is not None:
            params["tailLines"] = str(tail_lines)
        if previous:
            params["previous"] = "true"
        async with self._session.request("GET", self.server + path, params=params) as response:
            if response.status >= 400:
                raise _api_error(response.status, await response.read())
            text = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                text += chunk
                if len(text) >= limit_bytes:
                    break
            return bytes(text[:limit_bytes])

    async def events_about(self, *, namespace: str, uid: str, most: int) -> Sequence[Mapping[str, Any]]:
        """Warnings about the object with this UID, in the form of core/v1. Raises ApiError."""
        params = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": str(most)}
        answer = await self._request("GET", CORE_EVENTS.path(namespace=namespace), params=params)
        events: Sequence[Mapping[str, Any]] = answer["items"]
        return events

    @asynccontextmanager
    async def open_log(
        self, *, namespace: str, name: str, params: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The log of a pod as it comes, however long that takes; `params` are those of the API. Raises ApiError."""
        url = self.server + PODS.path(namespace=namespace, name=name, subresource="log")
        async with self._session.request("GET", url, params=params, timeout=_ENDLESS) as response:
            if response.status >= 400:
                raise _api_error(response.status, await response.read())
            yield response.content

    async def apply(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str | None = None
    ) -> dict[str, Any]:
        """Server-side apply with our field manager; fields of ours are taken back from whoever changed them.

        With `metadata.uid` in the body the object must still be that very one (409 else). Raises ApiError.
        """
        metadata = body["metadata"]
        return await self._write(
            "PATCH",
            resource,
            resource.path(namespace=metadata.get("namespace"), name=metadata["name"], subresource=subresource),
            verb="apply" if subresource is None else f"apply-{subresource}",
            params={"fieldManager": MANAGER, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",  # JSON is YAML
        )

    async def overwrite(self, resource: Resource, body: Mapping[str, Any]) -> None:
        """Makes the spec's lists what the body has, foreign items included, by a JSON merge patch.

        That makes us an owner by update beside the one by apply, and such a field stays when apply drops it; so
        that ownership is given up again (as client-go's csaupgrade does). Raises ApiError.
        """
        metadata = body["metadata"]
        path = resource.path(namespace=metadata["namespace"], name=metadata["name"])
        live: dict[str, Any] | None = await self._write(
            "PATCH",
            resource,
            path,
            verb="patch",
            params={"fieldManager": MANAGER},
            body={"metadata": {"uid": metadata["uid"]}, "spec": body["spec"]},
            content_type="application/merge-patch+json",
        )
        for _ in range(_CONFLICTS):
            if live is None:
                return
            try:
                await self._write(
                    "PATCH",
                    resource,
                    path,
                    verb="patch",
                    body=_without_our_updates(live),
                    content_type="application/json-patch+json",
                )
            except ApiError as error:
                if error.status != 409:
                    raise
                live = await self.get(resource, namespace=metadata["namespace"], name=metadata["name"])
            else:
                return

    async def create(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ApiError (409 where it exists)."""
        path = resource.path(namespace=body["metadata"].get("namespace"))
        return await self._write("POST", resource, path, verb="create", params={"fieldManager": MANAGER}, body=body)

    async def replace(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ApiError (409 where it changed since it was read)."""
        metadata = body["metadata"]
        path = resource.path(namespace=metadata.get("namespace"), name=metadata["name"])
        return await self._write("PUT", resource, path, verb="update", params={"fieldManager": MANAGER}, body=body)

    async def delete(self, resource: Resource, *, namespace: str, name: str, uid: str) -> None:
        """Deletes that very object, in the background; one that is gone is no error. Raises ApiError."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._write(
                "DELETE", resource, resource.path(namespace=namespace, name=name), verb="delete", body=body
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _write(
        self,
        method: str,
        resource: Resource,
        path: str,
        *,
        verb: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        status = 0
        try:
            answer = await self._request(
                method,
                path,
                params=params,
                data=orjson.dumps(body),
                content_type=content_type,
                fence=self.fence,
            )
            status = 200
        except ApiError as error:
            status = error.status
            raise
        finally:
            if self._observe_write is not None:
                self._observe_write(kind=resource.kind, verb=verb, status=status)
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content_type: str | None = None,
        fence: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        headers = {"Content-Type": content_type} if content_type else None
        async with self._session.request(
            method,
            self.server + path,
            params=params,
            data=data,
            headers=headers,
            trace_request_ctx=fence,
        ) as response:
            text = await response.read()  # to the end, else the connection cannot be used again
            if response.status >= 400:
                raise _api_error(response.status, text)
            try:
                answer: dict[str, Any] = orjson.loads(text)
            except orjson.JSONDecodeError:
                message = f"the answer is no JSON: {text[:200].decode(errors='replace')!r}"
                raise ApiError(status=502, reason="", message=message) from None
            return answer


def _without_our_updates(live: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A JSON patch; replacing the resource version makes a stale one a conflict (409), which `test` would not."""
    ours = (MANAGER, "Update", None)
    entries = live["metadata"].get("managedFields") or []
    others = [e for e in entries if (e.get("manager"), e.get("operation"), e.get("subresource")) != ours]
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": others},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
    ]


def _api_error(status: int, text: bytes) -> ApiError:
    try:
        answer = orjson.loads(text)
        return ApiError(status=status, reason=answer.get("reason") or "", message=answer.get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        return ApiError(status=status, reason="", message=text.decode(errors="replace")[:500])


_Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]


def _authenticated(configuration: Configuration) -> Callable[..., Awaitable[aiohttp.ClientResponse]]:
    """Puts the current credentials on each request; the kubelet renews a service account token every hour."""

    async def middleware(request: aiohttp.ClientRequest, handler: _Handler) -> aiohttp.ClientResponse:
        try:
            token = await configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError) as error:
            raise ApiError(status=503, reason="", message=f"no token for the API server: {error}") from None
        if token:
            request.headers["Authorization"] = token
        return await handler(request)

    return middleware


def _fence_trace() -> aiohttp.TraceConfig:
    """Calls a request's fence when the connection for it is there: as late as it can be before bytes go out."""

    async def check(_: aiohttp.ClientSession, context: Any, __: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx()

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(check)
    trace.on_connection_create_end.append(check)
    return trace


async def _load(*, kubeconfig: str | None, context: str | None) -> Configuration:
    configuration = Configuration()
    tried = []
    if kubeconfig is None and context is None:
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException as error:
            tried.append(f"in-cluster: {error}")
        else:
            return configuration
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
    except (ConfigException, OSError) as error:
        tried.append(f"kubeconfig {kubeconfig or 'of the environment'}: {error}")
        raise ClusterConfigError("no way to reach a cluster: " + "; ".join(tried)) from None
    return configuration
