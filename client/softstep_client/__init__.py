"""Client of Softstep: predictions, explanations, feedback and administration of models that learn while they serve."""

from softstep_client.answers import Event, Explanations, ModelState, Prediction, Receipt
from softstep_client.async_client import AsyncSoftstep
from softstep_client.errors import APIConnectionError, APIStatusError, APITimeoutError, InputError, SoftstepError
from softstep_client.sync_client import Softstep
from softstep_client.version import __version__

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncSoftstep",
    "Event",
    "Explanations",
    "InputError",
    "ModelState",
    "Prediction",
    "Receipt",
    "Softstep",
    "SoftstepError",
    "__version__",
]
