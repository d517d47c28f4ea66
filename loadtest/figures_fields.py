"""The figures of models with fields: title, target, and how the value follows from the measurements of one run.

named_service.py measures rows with names over HTTP, each of 10 numbers, 5 categories and 20 words; beside_vowpal.py
sparse rows beside Vowpal Wabbit; sparse_service.py a service with a sparse model; fields_run.py the replay of a log of
its rows.
"""

from figures_learning import by_round

PREDICT = "predict, 100 of 2^18 columns, 10 classes, rows/s ÷ Vowpal Wabbit's"
FOLD = "fold by `adagrad`, the same rows, rows/s ÷ Vowpal Wabbit's `learn`"

NAMED = "named"
APP = "FastAPI + pydantic + pandas + scikit-learn's `Pipeline`"

FIGURES = (
    by_round("F1", "`:predict`, one row with names ÷ one row of 35 numbers", "row_to_numbers", least=0.6, where=NAMED),
    by_round("F1", "the same ÷ one row of iris, 4 numbers", "row_to_iris", where=NAMED),
    by_round("F1", "the same, requests/s", "row_per_s", where=NAMED),
    by_round("F2", f"one row with names ÷ {APP}", "row_to_peer", least=60, where=NAMED),
    by_round("F3", f"1,000 rows with names in one body ÷ {APP}", "rows_to_peer", least=4, where=NAMED),
    by_round("F3", "the same rows as `inputs` ÷ as `instances`", "columns_to_rows", least=1, where=NAMED),
    by_round("F4", f"{PREDICT}, `-b 22`", "ratio_22", least=8, where="sparse_predict"),
    by_round("F4", "the same, `-b 18`", "ratio_18", where="sparse_predict"),
    by_round("F4", "predict, rows/s", "rows_per_s", where="sparse_predict"),
    by_round("F5", f"{FOLD}, `-b 22`", "ratio_22", least=6, where="sparse_learn"),
    by_round("F5", "the same, `-b 18`", "ratio_18", where="sparse_learn"),
    by_round("F5", "fold, rows/s", "rows_per_s", where="sparse_learn"),
    by_round(
        "F6",
        "progressive log loss, `languages`, one pass ÷ Vowpal Wabbit's default on the same columns",
        "ratio",
        most=0.8,
        where="sparse_loss",
    ),
    by_round("F6", "the loss of the default rule", "loss", where="sparse_loss"),
    by_round(
        "F7",
        "acked to served, 2^18 columns, 10 classes, at half the fold's capacity in requests of 32 rows, p99",
        "served_p99_ms",
        most=100,
        unit=" ms",
        where="sparse_freshness",
    ),
    by_round("F7", "that capacity, rows/s", "rows_per_s", where="sparse_freshness"),
    by_round(
        "F8",
        "private memory that a model of 2^18 columns, 10 classes adds to each of two workers",
        "loaded_18",
        most=4,
        unit=" MB",
        where="sparse_memory",
    ),
    by_round("F8", "the same after 100 events", "taught_18", most=4, unit=" MB", where="sparse_memory"),
    by_round("F8", "of 2^24 columns, two classes", "loaded_24", most=4, unit=" MB", where="sparse_memory"),
    by_round("F8", "the same after 100 events", "taught_24", most=4, unit=" MB", where="sparse_memory"),
    by_round(
        "F9",
        "acked feedback of one row with names, 64 connections ÷ the raw ASGI app that answers `{}`",
        "ratio",
        least=0.3,
        where="named_feedback",
    ),
    by_round("F9", "the same, events/s", "per_s", where="named_feedback"),
    by_round("F9", "the same, p99", "p99_ms", unit=" ms", where="named_feedback"),
    by_round(
        "F10",
        "replay of 10⁶ events of one row, 30 of 2^18 columns, rows/s",
        "replayed_per_s",
        least=200_000,
        where="sparse_replay",
    ),
)
