"""The results as pictures: throughput, latency by percentile, and the kernel grid."""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from hdrh.histogram import HdrHistogram
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Results = dict[str, Any]

mpl.use("Agg")
OURS, OTHERS = "#1f6f8b", "#b8c4cc"
SIZE, DPI = (8.0, 3.6), 120
NINES = np.concatenate([1 - np.logspace(0, -4, 200), [0.9999]])


def plain(title: str) -> str:
    """Return a title without Markdown."""
    return title.replace("*", "").replace("`", "")


def finish(figure: Figure, path: Path) -> None:
    """Save and close a picture; it holds no date, so equal numbers give equal bytes."""
    figure.tight_layout()
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def bare(axes: Axes) -> None:
    """Remove the frame."""
    axes.spines[["top", "right"]].set_visible(False)


def throughput(results: Results, path: Path) -> None:
    """Draw requests/s for one row, each server in the JSON protocol it speaks."""
    bars = []
    for name, server in results["servers"].items():
        seen = server["loads"].get("predict-1") or server["loads"].get("infer-1")
        if seen and not server["reason"]:
            bars.append((median(turn["per_s"] for turn in seen), plain(server["title"]), name))
    bars.sort()
    figure, axes = plt.subplots(figsize=SIZE)
    colors = [OURS if name == "softstep" else OTHERS for _, _, name in bars]
    drawn = axes.barh([title for _, title, _ in bars], [rate for rate, _, _ in bars], color=colors)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    axes.set_xlabel("requests/s on one core, one JSON row")
    axes.margins(x=0.12)
    bare(axes)
    finish(figure, path)


def latency(results: Results, path: Path) -> None:
    """Draw latency by percentile, each server at half of its own saturation rate."""
    figure, axes = plt.subplots(figsize=SIZE)
    for name, one in results["latency"].items():
        merged = HdrHistogram(1, 3600 * 10**9, 3)
        for seen in one["rounds"]:
            merged.add(HdrHistogram.decode(seen["hdr"]))
        values = [merged.get_value_at_percentile(100 * share) / 1000 for share in NINES]
        label = f"{plain(one['title'])}, {one['rate']:,.0f}/s"
        axes.plot(1 / (1 - NINES), values, label=label, color=OURS if name == "softstep" else "#8a5a44")
    axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="latency from the scheduled send, µs")
    axes.set_xticks([1, 10, 100, 1000, 10000], ["0", "90", "99", "99.9", "99.99"])
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    bare(axes)
    finish(figure, path)


def kernels(results: Results, path: Path) -> None:
    """Draw ONNX Runtime's time ÷ ours at each shape, for every compiled target."""
    parts = [results[name] for name in ("kernels", "kernels_avx2") if "grid" in results.get(name, {})]
    figure, axes = plt.subplots(figsize=SIZE)
    shapes = ["x".join(map(str, point["shape"])) for point in parts[0]["grid"]]
    width = 0.8 / len(parts)
    for i, (one, color) in enumerate(zip(parts, (OURS, OTHERS), strict=False)):
        ratios = [median(point["us"]["onnxruntime"]) / median(point["us"]["softstep"]) for point in one["grid"]]
        axes.bar(np.arange(len(shapes)) + i * width, ratios, width, color=color, label=one["target"])
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(np.arange(len(shapes)) + width * (len(parts) - 1) / 2, shapes, rotation=35, ha="right")
    axes.set_ylabel("ONNX Runtime's time ÷ ours")
    axes.legend(frameon=False)
    bare(axes)
    finish(figure, path)


def draw(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Draw what was measured; return file name and description of each picture."""
    drawn = []
    if any(server["loads"] for server in results["servers"].values()):
        throughput(results, folder / "throughput.png")
        drawn.append(("throughput.png", "requests per second of each server, one row"))
    if "reason" not in results.get("latency", {"reason": ""}):
        latency(results, folder / "latency.png")
        drawn.append(("latency.png", "latency by percentile at half the saturation rate"))
    if "grid" in results.get("kernels", {}):
        kernels(results, folder / "kernels.png")
        drawn.append(("kernels.png", "the kernel grid compared with ONNX Runtime"))
    return drawn
