"""The figures of the Python client: title, target, and how the value follows from the measurements of one run.

client_service.py measures them with a running service.
"""

from figures_learning import by_round

BARE = "a bare `httpx2` loop"

FIGURES = (
    by_round("T7", f"client `predict`, one row, requests/s ÷ {BARE}", "predict_ratio", least=0.8, where="client"),
    by_round("T7", "the same, `AsyncSoftstep` ÷ `httpx2.AsyncClient`", "async_ratio", where="client"),
    by_round("T7", "the same, requests/s", "per_s", where="client"),
    by_round("T7", "import of the client ÷ import of `httpx2`", "import_ratio", most=1.3, where="client"),
    by_round("T7", "the same, ms", "import_ms", unit=" ms", where="client"),
    by_round(
        "T8",
        "10,000 client feedbacks through a proxy that disturbs one answer in ten: lost, doubled or not learned",
        "violations",
        most=0,
        where="disturbed",
    ),
    by_round("T8", "the same, answers that were cut, delayed or dropped", "disturbed", where="disturbed"),
)
