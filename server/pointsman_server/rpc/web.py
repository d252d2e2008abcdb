"""Answers requests of HTTP clients that are not RPCs: the port of gRPC is also that of JSON."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

OPENAPI = Path(__file__).with_name("openapi.yaml")


def application() -> Starlette:
    """Make the ASGI application."""
    routes = [Route("/openapi.yaml", _openapi)]
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _wrong_method})


async def _openapi(_request: Request) -> Response:
    return Response(OPENAPI.read_bytes(), media_type="application/yaml")


async def _not_found(request: Request, _error: Exception) -> JSONResponse:
    """Say it as ``google.rpc.Status``, as every other error in JSON."""
    return _status(5, f"no such path or method: {request.method} {request.url.path}", 404)


async def _wrong_method(request: Request, error: Exception) -> JSONResponse:
    response = _status(12, f"no such method: {request.method} {request.url.path}", 405)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _status(code: int, text: str, http: int) -> JSONResponse:
    return JSONResponse({"code": code, "message": text, "details": []}, http)
