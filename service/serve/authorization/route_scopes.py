"""The scope that each call of FastAPI requires, by the name of its function; None if it requires none.

A route whose function is missing here cannot be made: serve/api/scoped_route.py looks each one up.
"""

from typing import Final

from service.access.scopes import Scope

# The setting that decides, for some calls, whether they require a key. Without a scope any key will do.
ROUTE_SETTINGS: Final = {
    "metrics": "metrics_access",
    "docs_page": "docs_access",
    "docs_start": "docs_access",
    "docs_script": "docs_access",
    "docs_style": "docs_access",
    "docs_icon": "docs_access",
    "openapi_document": "openapi_access",
}
# Calls that any valid key may make, whatever its scopes.
OF_ANY_KEY: Final = frozenset(("key",))
# Calls whose paths name no model: a list has the permitted models alone, and a conversion needs none.
OF_NO_MODEL: Final = frozenset(("list_models", "v2_stats", "repository_index", "convert"))
# Calls that are about all models, so a key that is limited to some models may not make them.
OF_ALL_MODELS: Final = frozenset(("metrics",))
# Calls for the default model.
OF_DEFAULT_MODEL: Final = frozenset(("predict_default", "predict_vertex"))

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
    # The documentation, which is the same in every service of a release but for the rows of permitted models
    "docs_page": None,
    "docs_start": None,
    "docs_script": None,
    "docs_style": None,
    "docs_icon": None,
    "openapi_document": None,
    # What a key permits
    "key": None,
    # The console's files, likewise; its calls are authorized one by one
    "console_file": None,
    # Predictions, metadata and metrics
    "metrics": Scope.PREDICT,
    "list_models": Scope.PREDICT,
    "metadata": Scope.PREDICT,
    "row_schema": Scope.PREDICT,
    "signature": Scope.PREDICT,
    "predict_rows": Scope.PREDICT,
    "explain_rows": Scope.PREDICT,
    "pulse": Scope.PREDICT,
    "history": Scope.PREDICT,
    "drift": Scope.PREDICT,
    "quality": Scope.PREDICT,
    "trajectory": Scope.PREDICT,
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
    "events": Scope.ADMIN,
    "classes": Scope.ADMIN,
    "correct": Scope.ADMIN,
    "forget": Scope.ADMIN,
    "rollback": Scope.ADMIN,
    "configure": Scope.ADMIN,
    "repository_load": Scope.ADMIN,
    "repository_unload": Scope.ADMIN,
}
