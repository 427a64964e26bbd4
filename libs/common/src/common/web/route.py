"""The route class of every API: it checks the guards first, then the body, then calls the handler."""

import inspect
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Message, Receive, Scope

from common.errors import BadRequest, UnsupportedMediaType
from common.web.json_body import parse_json, unstorable_text
from common.web.openapi import responses, security

_BODILESS: Final = {"GET", "HEAD"}
_LENGTH_HEADER: Final = frozenset({b"content-length"})
_JSON_HEADERS: Final = frozenset({b"content-type", b"content-encoding"})
_NO_ENCODING: Final = {"Accept-Encoding": "identity"}  # RFC 9110 §15.5.16
_NO_MATCH: Final[tuple[Match, Scope]] = (Match.NONE, {})
MAX_BODY: Final = 1024 * 1024
"""Bytes. A larger body is refused with 413."""


class ApiRequest(Request):
    """A request that parses JSON strictly."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class ApiRoute(APIRoute):
    """Runs the route's guards before it reads the body, and refuses a body that is not JSON where JSON is declared.

    A guard is a dependency whose callable has `is_guard = True` and `async __call__(request)`. It raises to refuse. It
    keeps its result in `request.state`, because FastAPI calls it again where a parameter needs the result. A
    dependency's callable may list the error `statuses` it causes, a guard also the `scopes` it requires; both go into
    the OpenAPI document.

    A header that is a parameter may come only once, and a body may have no `Content-Encoding`. A body of more than
    `max_body` bytes is refused with 413.

    Raises TypeError for a handler or dependency that is not async: FastAPI would run it on one of a few threads.
    """

    max_body: ClassVar[int] = MAX_BODY

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["generate_unique_id_function"] = _function_name
        self._guards: list[Callable[[Request], Coroutine[Any, Any, Any]]] = []
        super().__init__(path, endpoint, **options)
        for call in (endpoint, *_calls(self.dependant)):
            if not _is_async(call):
                raise TypeError(f"{call!r} must be async: it would run on a thread")
        self._literal, parameter, _ = self.path_format.partition("{")
        self._has_path_parameters = bool(parameter)
        self.responses = responses(*sorted(self._statuses())) | self.responses
        if self._guards:
            scopes = sorted({scope for guard in self._guards for scope in getattr(guard, "scopes", ())})
            self.openapi_extra = security(scopes) | (self.openapi_extra or {})

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As inherited, but compares plain text before the regular expression, which takes 4 µs per route."""
        path: str = scope["path"]
        if self._has_path_parameters:
            return super().matches(scope) if path.startswith(self._literal) else _NO_MATCH
        if path != self._literal or scope["type"] != "http":
            return _NO_MATCH
        match = Match.FULL if scope["method"] in (self.methods or ()) else Match.PARTIAL
        return match, {"endpoint": self.endpoint, "path_params": {}, "route": self}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        guards = self._guards = [call for call in _calls(self.dependant) if getattr(call, "is_guard", False)]
        # `guarded` runs the guards. FastAPI would run them again, even one that no parameter needs, and that costs as
        # much as a small query. `test_overrides.py` fails when FastAPI changes what this relies on.
        self.dependant.dependencies = [
            dependency
            for dependency in self.dependant.dependencies
            if dependency.name is not None or dependency.call not in guards
        ]
        handle = super().get_route_handler()
        takes_body = self._takes_body()
        takes_json = self.body_field is not None and not isinstance(self.body_field.field_info, params.Form)
        has_parameters = _has_parameters(self.dependant)
        read = frozenset(_header_names(self.dependant))
        read |= (_LENGTH_HEADER if takes_body else set()) | (_JSON_HEADERS if takes_json else set())

        async def guarded(request: Request) -> Response:
            found, repeated = _headers(request, read) if read else ({}, None)
            if takes_body:
                request = _bounded_request(request, found.get(b"content-length"), self.max_body)
            if has_parameters:
                _refuse_nul(request)
            for guard in guards:
                await guard(request)
            if repeated is not None:
                raise BadRequest(f"The header {repeated.decode()} came more than once.")
            if takes_json:
                await _read_json(request, found)
            return await handle(request)

        return guarded

    def _takes_body(self) -> bool:
        return bool((self.methods or set()) - _BODILESS)

    def _statuses(self) -> Iterator[int]:
        yield from (500, 503)
        if self._takes_body():
            yield 413
        if self.body_field is not None:
            yield from (400, 415)
        elif next(_header_names(self.dependant), None) is not None:
            yield 400
        if self.body_field is not None or _has_parameters(self.dependant):
            yield 422
        for call in (*self._guards, *_calls(self.dependant)):
            yield from getattr(call, "statuses", (401, 403) if getattr(call, "is_guard", False) else ())


class ApiRouter(APIRouter):
    """A service's routes. `create_api` accepts several routers; a router includes no other."""

    def __init__(
        self, *, prefix: str = "", tags: Sequence[str] = (), route_class: type[ApiRoute] = ApiRoute, **options: Any
    ) -> None:
        super().__init__(prefix=prefix, tags=list(tags), route_class=route_class, **options)


def _function_name(route: APIRoute) -> str:
    return route.name


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


def _is_async(call: Any) -> bool:
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in (call, getattr(call, "__call__", None))  # noqa: B004 - to inspect it, not to test for it
    )


def _has_parameters(dependant: Dependant) -> bool:
    own = dependant.path_params or dependant.query_params or dependant.header_params or dependant.cookie_params
    return bool(own) or any(_has_parameters(dependency) for dependency in dependant.dependencies)


def _header_names(dependant: Dependant) -> Iterator[bytes]:
    """The headers that are parameters."""
    for field in dependant.header_params:
        yield field.alias.lower().encode()
    for dependency in dependant.dependencies:
        yield from _header_names(dependency)


def _headers(request: Request, names: Collection[bytes]) -> tuple[Mapping[bytes, bytes], bytes | None]:
    """The named headers, and the name of one that came more than once."""
    found: dict[bytes, bytes] = {}
    repeated = None
    for name, value in request.scope["headers"]:  # cheaper than Starlette's `Headers`
        if name in names:
            if name in found:
                repeated = name
            found[name] = value
    return found, repeated


def _bounded_request(request: Request, length: bytes | None, limit: int) -> ApiRequest:
    """The request with a bounded body. Raises 413 if the declared length is over the limit.

    Only a chunked body is counted: the server enforces a declared length.
    """
    if length is None:
        return ApiRequest(request.scope, _counted(request.receive, limit))
    if int(length) > limit:
        raise HTTPException(413)
    return ApiRequest(request.scope, request.receive)


def _counted(receive: Receive, limit: int) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413)
        return message

    return counted


async def _read_json(request: Request, headers: Mapping[bytes, bytes]) -> None:
    """Parses the body, which may be empty. Raises 415 for any other body, and MalformedJson."""
    if b"content-encoding" in headers:
        raise UnsupportedMediaType("The body must have no Content-Encoding.", headers=_NO_ENCODING)
    if await request.body():
        content_type = headers.get(b"content-type", b"")
        if content_type != b"application/json" and not _is_json(content_type):
            raise UnsupportedMediaType("The body must be application/json in UTF-8.")
        await request.json()


def _is_json(content_type: bytes) -> bool:
    """Whether it is `application/json`, in UTF-8 if it names a charset. Other types of JSON mean something else."""
    media_type, *parameters = (part.strip() for part in content_type.lower().split(b";"))
    if media_type != b"application/json":
        return False
    charsets = [value for name, _, value in (part.partition(b"=") for part in parameters) if name == b"charset"]
    return all(charset.strip(b'"') == b"utf-8" for charset in charsets)


def _refuse_nul(request: Request) -> None:
    """Refuses NUL in path and query, because PostgreSQL cannot store it. A list refuses its cursor itself."""
    if "\x00" in request.scope["path"]:
        raise unstorable_text(("path",))
    query: bytes = request.scope["query_string"]
    if b"%00" in query:
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if "\x00" in name or ("\x00" in value and name != "cursor"):
                raise unstorable_text(("query",))
