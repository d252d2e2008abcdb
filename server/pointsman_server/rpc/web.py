"""Answers requests of HTTP clients that are not RPCs: the port of gRPC is also that of JSON."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse


def application() -> Starlette:
    """Make the ASGI application."""
    return Starlette(exception_handlers={404: _not_found, 405: _not_found})


async def _not_found(request: Request, _error: Exception) -> JSONResponse:
    """Say it as ``google.rpc.Status``, as every other error in JSON."""
    text = f"no such path or method: {request.method} {request.url.path}"
    return JSONResponse({"code": 5, "message": text, "details": []}, 404)
