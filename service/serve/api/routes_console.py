"""Routes of the console: the files of the page, and the page in the place of the liveness check at `/`."""

from functools import cache
from typing import Final

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.serve.api.console_files import PAGE_NAME, UNCHANGED, ConsoleFile, read_console_files
from service.serve.api.scoped_route import ScopedRoute
from service.serve.asgi import Reply

console: Final = APIRouter(include_in_schema=False, route_class=ScopedRoute)


@cache
def console_files() -> dict[str, ConsoleFile]:
    """Return the files of the console, which each worker reads when it starts."""
    return read_console_files()


@console.get("/console/{file}")
async def console_file(request: Request, file: str) -> Response:
    """Return one file of the console."""
    if file not in console_files() or file == PAGE_NAME:
        raise HTTPException(404)
    return respond(request, file)


def respond(request: Request, file: str = PAGE_NAME) -> Response:
    """Return the response with a file of the console."""
    fields = dict(request.scope["headers"])
    answer = console_files()[file].respond(fields.get(b"accept-encoding", b""), fields.get(b"if-none-match", b""))
    reply = Reply(answer)
    if answer.status == UNCHANGED:  # a length would be that of the file, which is not sent
        reply.raw_headers = [header for header in reply.raw_headers if header[0] != b"content-length"]
    return reply
