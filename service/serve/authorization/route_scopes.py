"""The scope that each call of FastAPI requires, by the name of its function; None if everybody may make it.

A route whose function is missing here cannot be made: serve/api/scoped_route.py looks each one up.
"""

from typing import Final

from service.access.scopes import Scope

ROUTE_SCOPES: Final[dict[str, Scope | None]] = {
    # Probes, and what says nothing about models
    "alive": None,
    "healthz": None,
    "readyz": None,
    "health": None,
    "ping": None,
    "version": None,
    "v2_server": None,
    "v2_live": None,
    "v2_ready": None,
    # The operator's choice
    "metrics": None,
    # Predictions and metadata
    "list_models": Scope.PREDICT,
    "metadata": Scope.PREDICT,
    "signature": Scope.PREDICT,
    "predict_rows": Scope.PREDICT,
    "explain_rows": Scope.PREDICT,
    "predict_default": Scope.PREDICT,
    "predict_vertex": Scope.PREDICT,
    "convert": Scope.PREDICT,
    "v2_stats": Scope.PREDICT,
    "tensors": Scope.PREDICT,
    "model_ready": Scope.PREDICT,
    "config": Scope.PREDICT,
    "statistics": Scope.PREDICT,
    "infer": Scope.PREDICT,
    "repository_index": Scope.PREDICT,
    # Teaching
    "feedback": Scope.FEEDBACK,
    # Changing what is served
    "weights": Scope.ADMIN,
    "classes": Scope.ADMIN,
    "correct": Scope.ADMIN,
    "forget": Scope.ADMIN,
    "rollback": Scope.ADMIN,
    "configure": Scope.ADMIN,
    "repository_load": Scope.ADMIN,
    "repository_unload": Scope.ADMIN,
}
