"""Answers requests of HTTP clients that are not RPCs: the port of gRPC is also that of JSON."""

from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pointsman_server.rpc.http_rules import methods_of

OPENAPI = Path(__file__).with_name("openapi.yaml")


def application() -> Starlette:
    """Make the ASGI application."""
    routes = [Route("/openapi.yaml", _openapi)]
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _wrong_method})


async def _openapi(_request: Request) -> Response:
    return Response(OPENAPI.read_bytes(), media_type="application/yaml")


async def _not_found(request: Request, _error: Exception) -> JSONResponse:
    """Say it as ``google.rpc.Status``, as every other error in JSON.

    The paths of RPCs come here as well, with a method that Envoy's transcoder does not take.
    """
    path, method = request.url.path, request.method
    allowed = methods_of(path)
    if allowed and method not in allowed:
        return _wrong_method_of(path, method, {"allow": ", ".join(allowed)})
    return _status(5, f"no such path or method: {method} {path}", 404)


async def _wrong_method(request: Request, error: Exception) -> JSONResponse:
    return _wrong_method_of(request.url.path, request.method, getattr(error, "headers", None) or {})


def _wrong_method_of(path: str, method: str, headers: Mapping[str, str]) -> JSONResponse:
    response = _status(12, f"no such method: {method} {path}", 405)
    response.headers.update(headers)
    return response


def _status(code: int, text: str, http: int) -> JSONResponse:
    return JSONResponse({"code": code, "message": text, "details": []}, http)
