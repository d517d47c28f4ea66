"""The figures of models with fields: title, target, and how the value follows from the measurements of one run.

beside_vowpal.py measures sparse rows beside Vowpal Wabbit; fields_run.py the replay of a log of them.
"""

from figures_learning import by_round

PREDICT = "predict, 100 of 2^18 columns, 10 classes, rows/s ÷ Vowpal Wabbit's"
FOLD = "fold by `adagrad`, the same rows, rows/s ÷ Vowpal Wabbit's `learn`"

FIGURES = (
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
        "F10",
        "replay of 10⁶ events of one row, 30 of 2^18 columns, rows/s",
        "replayed_per_s",
        least=200_000,
        where="sparse_replay",
    ),
)
