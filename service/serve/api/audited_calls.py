"""Record calls in the audit log: who made them, and the outcome."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Request

from service.access.audit_log import DONE, Action, AuditEntry, append_entry
from service.errors import SoftstepError
from service.log_events import REQUEST_ID, logger
from service.serve.api.dependencies import Context
from service.serve.api.scoped_route import principal_of
from service.serve.responses import BROKEN

# The actor of a call to a service without keys.
ANYONE_NAME: Final = "anyone"


@asynccontextmanager
async def audited(request: Request, context: Context, action: Action, model: str) -> AsyncIterator[None]:
    """Record a call for a model in the audit log, however it ends.

    A call for a model that is not on disk changes nothing, and its name is the client's own, so it is not recorded.
    """
    outcome = BROKEN.code
    try:
        yield
        outcome = DONE
    except SoftstepError as error:
        outcome = error.code
        raise
    finally:
        if model in context.now.list_names():
            actor = principal_of(request).actor or ANYONE_NAME
            await _append(context, AuditEntry(actor, action, model, outcome, request_id=REQUEST_ID.get()))


async def _append(context: Context, entry: AuditEntry) -> None:
    """Append an entry; an audit log that cannot be written does not stop the call."""
    try:
        await asyncio.to_thread(append_entry, context.settings.audit_path, entry)
    except OSError as error:
        logger.event(
            "audit_not_written",
            actor=entry.actor,
            action=entry.action,
            object=entry.object,
            outcome=entry.outcome,
            reason=error.strerror,
        )
