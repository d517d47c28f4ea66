"""The figures of `softstep train`: title, target, and how the value follows from the measurements of one run.

training.py measures them, and writes docs/benchmarks/train/results.md.
"""

from figures_learning import by_round

PEER = "pyarrow + `LogisticRegression`"

FIGURES = (
    by_round(
        "T1",
        "objective reached ÷ scikit-learn's at `tol=1e-10`, minus 1: the largest of six sets at three C",
        "excess",
        most=1e-6,
        where="objective",
    ),
    by_round("T1", "the same, steps ÷ scikit-learn's, median", "steps", where="objective"),
    by_round(
        "T2", "hashes of three artifacts: two runs, and every processor target", "different", most=1, where="bits"
    ),
    by_round("T3", f"10⁶ rows of 100 numbers, two classes, Parquet: time ÷ {PEER}", "time", most=1.2, where="speed"),
    by_round("T3", "the same, peak memory", "memory", most=0.4, where="speed"),
    by_round("T3", "the same, difference of the objectives, relative", "difference", most=1e-4, where="speed"),
    by_round("T3", "the same, seconds of `softstep train`", "seconds", unit=" s", where="speed"),
)
