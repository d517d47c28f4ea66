"""Shared by the uvicorn servers: how they run."""

from typing import Any

import uvicorn


def run(app: Any, port: int, **options: Any) -> None:  # noqa: ANN401 - any ASGI application, any option of uvicorn
    """Run an application with uvicorn's fastest settings and without logs, until the process is ended."""
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_level="error", access_log=False, **options)
