"""The figures of serving: title, target, and how the value follows from the measurements of one run."""

from math import exp, log
from statistics import fmean, median
from typing import Any

from figure import MB, US, Figure, MissingError, Results, Served, part, rates, rounds

PREDICT_1, PREDICT_1000, INFER_1, BINARY_1, BINARY_1000 = (
    "predict-1",
    "predict-1000",
    "infer-1",
    "binary-1",
    "binary-1000",
)


def grid_ratios(results: Results, which: str) -> list[list[float]]:
    """Return ONNX Runtime's time ÷ ours: for each shape the ratio of each round."""
    return [quotients(point["us"], "onnxruntime") for point in kernel_part(results, which, "grid")]


def geo_means(results: Results, which: str) -> list[float]:
    """Return the geometric mean over the shapes, round by round."""
    return [exp(fmean(map(log, seen))) for seen in zip(*grid_ratios(results, which), strict=True)]


def worst_shape(results: Results) -> list[float]:
    """Return the ratios of the shape with the smallest median, round by round."""
    return min(grid_ratios(results, "kernels"), key=median)


def exp_ratio(results: Results) -> list[float]:
    """Return NumPy's time ÷ ours for the exponential, round by round."""
    return quotients(kernel_part(results, "kernels", "exp")["us"], "numpy")


def exp_error(results: Results) -> list[float]:
    """Return the largest error of our exponential, in units in the last place."""
    found: list[float] = kernel_part(results, "kernels", "exp")["ulp"]["softstep"]
    return found


def quotients(us: dict[str, list[float]], library: str) -> list[float]:
    """Return the time of `library` ÷ ours, round by round."""
    return [theirs / ours for theirs, ours in zip(us[library], us["softstep"], strict=True)]


def kernel_part(results: Results, which: str, name: str) -> Any:  # noqa: ANN401 - a part of a JSON document
    """Return one part of the measurements of kernels.py."""
    found = part(results, which).get(name)
    if found is None:
        raise MissingError("not measured in this run")
    return found


def p99_ratio(results: Results) -> list[float]:
    """Return our p99 ÷ the raw application's, round by round, each at half of its own saturation."""
    latency = part(results, "latency")
    pairs = zip(latency["softstep"]["rounds"], latency["raw-asgi"]["rounds"], strict=False)
    return [ours["latency_us"]["p99"] / raw["latency_us"]["p99"] for ours, raw in pairs]


def worker_megabytes(results: Results) -> list[float]:
    """Return the private memory of our worker after the loads, round by round."""
    rounds(results, ("softstep", PREDICT_1))
    return [size / MB for size in results["servers"]["softstep"]["private_bytes"]]


def start_ratio(results: Results) -> list[float]:
    """Return our time until ready ÷ that of the bare imports, pair by pair."""
    start = part(results, "start")
    return [ours / bare for ours, bare in zip(start["softstep_s"], start["imports_s"], strict=True)]


def request_us(results: Results) -> list[float]:
    """Return the total time of one request at saturation."""
    return [US / seen["per_s"] for seen in rounds(results, SOFTSTEP_ROW)]


def ours(load: str) -> Served:
    """Return our side of a load."""
    return ("softstep", load)


SOFTSTEP_ROW = ours(PREDICT_1)
RAW = {load: ("raw-asgi", load) for load in (PREDICT_1, INFER_1, BINARY_1)}
ORJSON_ROWS = ("fastapi-orjson", PREDICT_1000)
OUR_LOADS = tuple(ours(load) for load in (PREDICT_1, INFER_1, BINARY_1, PREDICT_1000, BINARY_1000))

GRID = "kernel grid, ONNX Runtime's time ÷ ours"

FIGURES = (
    rates(SOFTSTEP_ROW, RAW[PREDICT_1], "1", "`:predict`, one JSON row ÷ a raw ASGI app that answers `{}`", 1.6),
    rates(SOFTSTEP_ROW, ("fastapi-pydantic", PREDICT_1), "2", "the same ÷ FastAPI + pydantic + NumPy", 10),
    rates(ours(INFER_1), RAW[INFER_1], "3", "v2 `/infer`, one row, JSON ÷ the raw ASGI app", 1.2),
    rates(ours(BINARY_1), RAW[BINARY_1], "3", "v2 `/infer`, one row, binary ÷ the raw ASGI app", 1.2),
    rates(ours(PREDICT_1000), ORJSON_ROWS, "4", "`:predict`, 1000x64 JSON ÷ FastAPI + orjson + `np.array`", 3),
    rates(ours(BINARY_1000), ORJSON_ROWS, "5", "v2 binary, 1000x64 ÷ the same rows as JSON there", 15),
    Figure("6", f"{GRID}, geo-mean", lambda results: geo_means(results, "kernels"), 2.1),
    Figure("6", f"{GRID}, worst shape", worst_shape, 1.0),
    Figure("6", f"{GRID} compiled for AVX2, geo-mean", lambda results: geo_means(results, "kernels_avx2")),
    Figure("7", "`exp` of 100,000 float32, NumPy's time ÷ ours", exp_ratio, 1.3),
    Figure("7", "`exp`, largest error", exp_error, most=2, unit=" ulp"),
    Figure(
        "8", "p99 at half the saturation rate ÷ the raw app's", p99_ratio, most=1, needs=(SOFTSTEP_ROW, RAW[PREDICT_1])
    ),
    Figure("9", "private memory of a worker", worker_megabytes, most=120, unit=" MB", needs=OUR_LOADS),
    Figure("9", "warm start to ready ÷ `import fastapi, uvicorn, numba`", start_ratio, most=3),
    rates(ours(INFER_1), ("mlserver", INFER_1), "10", "v2 JSON ÷ MLServer, default settings", 30),
    rates(ours(INFER_1), ("mlserver-tuned", INFER_1), "10", "v2 JSON ÷ MLServer tuned", None),
    rates(ours(INFER_1), ("triton", INFER_1), "10", "v2 JSON ÷ Triton, Python backend, default settings", 5),
    rates(ours(INFER_1), ("triton-tuned", INFER_1), "10", "v2 JSON ÷ Triton, Python backend, dynamic batching", None),
    Figure("11", "one request at saturation (stages below)", request_us, unit=" µs", needs=(SOFTSTEP_ROW,)),
)
