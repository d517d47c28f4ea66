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
async def audited(request: Request, context: Context, action: Action, model: str) -> AsyncIterator[AuditEntry]:
    """Record a call for a model in the audit log, however it ends; yield the entry of one that succeeds.

    A call for a model that is not on disk changes nothing, and its name is the client's own, so it is not recorded.
    """
    entry = AuditEntry(principal_of(request).actor or ANYONE_NAME, action, model, DONE, request_id=REQUEST_ID.get())
    outcome = BROKEN.code
    try:
        yield entry
        outcome = DONE
    except SoftstepError as error:
        outcome = error.code
        raise
    finally:
        if model in context.now.list_names():
            await _append(context, entry._replace(outcome=outcome))


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
