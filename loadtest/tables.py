"""The results as Markdown: the tables of README and docs/benchmarks/results.md."""

from statistics import median
from typing import Any

Results = dict[str, Any]

LOADS = {
    "predict-1": "v1 JSON, 1 row",
    "infer-1": "v2 JSON, 1 row",
    "binary-1": "v2 binary, 1 row",
    "explain-1": "v1 explain, 1 row",
    "predict-1000": "v1 JSON, 1000x64",
    "binary-1000": "v2 binary, 1000x64",
}
MET = {True: "met", False: "**missed**", None: ""}
LIBRARIES = ("softstep", "onnxruntime", "numpy", "scikit-learn")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first hold numbers and are right-aligned."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def number(value: float) -> str:
    """Return a value with three significant digits and separated thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - no decimals from three digits on


def measured(figure: dict[str, Any]) -> str:
    """Return a figure's value with the range of its rounds, or the reason why there is none."""
    if figure["value"] is None:
        return str(figure["reason"])
    low, high = number(figure["low"]), number(figure["high"])
    spread = f" ({low} to {high})" if low != high else ""
    return f"{number(figure['value'])}{figure['unit']}{spread}"


def figures(results: Results, name: str) -> str:
    """Return a table of figures and their targets."""
    return figure_rows([figure for figure in results["figures"] if figure["table"] == name])


def figure_rows(some: list[dict[str, Any]]) -> str:
    """Return a table of these figures."""
    rows = [[f["figure"], f["title"], f["target"], measured(f), MET[f["met"]]] for f in some]
    head = ["#", "figure", "target", "measured: median (lowest to highest round)", ""]
    rule = "| --- | --- | --- | --- | --- |"
    lines = table(head, rows).splitlines()
    return "\n".join([lines[0], rule, *lines[2:]])


def readme_figures(results: Results, titles: tuple[str, ...]) -> str:
    """Return README's part: the figures with these titles, the machine, and the targets that were missed."""
    by_title = {figure["title"]: figure for figure in results["figures"]}
    shown = figure_rows([by_title[title] for title in titles])
    return f"{shown}\n\n{missed(results)}\n{setting(results)}"


def missed(results: Results) -> str:
    """Return one sentence on the targets that were missed."""
    judged = [figure for figure in results["figures"] if figure["met"] is not None]
    some = [figure for figure in judged if not figure["met"]]
    if not some:
        return f"All {len(judged)} targets are met."
    named = "; ".join(f"{f['figure']}, {f['title']}: {measured(f)}, target {f['target']}" for f in some)
    return f"Of {len(judged)} targets, {len(some)} {'is' if len(some) == 1 else 'are'} missed: {named}."


def saturation(results: Results) -> str:
    """Return requests/s of every server at saturation."""
    used = [load for load in LOADS if any(server["loads"].get(load) for server in results["servers"].values())]
    rows = []
    for server in results["servers"].values():
        if server["reason"]:
            rows.append([server["title"], f"not run: {server['reason']}", *[""] * (len(used) - 1)])
            continue
        cells = [server["loads"].get(load) for load in used]
        rows.append([server["title"], *(number(median(s["per_s"] for s in c)) if c else "" for c in cells)])
    return table(["requests/s", *(LOADS[load] for load in used)], rows)


def kernels(part: dict[str, Any]) -> str:
    """Return the kernel grid: microseconds of each library, and the ratio of the figure."""
    rows = []
    for point in part["grid"]:
        us = {name: median(times) for name, times in point["us"].items()}
        ratio = us["onnxruntime"] / us["softstep"]
        rows.append([f"({', '.join(map(str, point['shape']))})", *(number(us[n]) for n in LIBRARIES), f"{ratio:.2f}"])
    return table(["(B, N, K), µs", *LIBRARIES, "onnxruntime ÷ softstep"], rows)


def networks(part: dict[str, Any]) -> str:
    """Return microseconds of a 64-32-10 network and of its peer, and the ratio."""
    rows = []
    for point in part.get("predict", []):
        us = {name: median(times) for name, times in point["us"].items()}
        count = "1 row" if point["rows"] == 1 else f"{point['rows']} rows"
        rows.append([f"predict, {point['activation']}, {count}", us["softstep"], us["onnxruntime"]])
    for point in part.get("step", []):
        us = {name: median(times) for name, times in point["us"].items()}
        rows += [
            [f"step, {point['activation']}, {name.partition(', ')[2]}", us[name], us["pytorch"]]
            for name in us
            if name != "pytorch"
        ]
    head = ["64-32-10, µs", "softstep", "ONNX Runtime, or PyTorch", "theirs ÷ ours"]
    return table(head, [[name, number(ours), number(theirs), f"{theirs / ours:.2f}"] for name, ours, theirs in rows])


def latency(results: Results) -> str:
    """Return the open-loop percentiles: for each the median of the rounds."""
    parts = [one for one in results["latency"].values() if isinstance(one, dict)]
    names = list(parts[0]["rounds"][0]["latency_us"])
    rows = []
    for one in parts:
        values = (median(seen["latency_us"][name] for seen in one["rounds"]) for name in names)
        late = median(seen["late_share"] for seen in one["rounds"])
        rows.append([one["title"], number(one["rate"]), *map(number, values), f"{late:.1%}"])
    return table(["latency, µs", "requests/s", *names, "left late"], rows)


def stages(results: Results) -> str:
    """Return where the time of one request goes.

    The stages in Python are timed one by one; reading and writing are the system time of the server's processes. The
    rest of the user time is the HTTP parser, the event loop and the protocol; the rest of the total is waiting.
    """
    seen = results["servers"]["softstep"]["loads"]["predict-1"]
    total, user, system = (
        median(values) for values in zip(*((1e6 / s["per_s"], s["user_us"], s["system_us"]) for s in seen), strict=True)
    )
    timed = results["stages"]["us"]
    parts = {"read and write (the kernel's sockets)": system, **timed}
    parts["the rest in Python: HTTP parser, event loop, protocol"] = max(0.0, user - sum(timed.values()))
    parts["waiting, for the client or for other processes"] = max(0.0, total - user - system)
    rows = [[name, f"{us:.2f}", f"{us / total:.0%}"] for name, us in [*parts.items(), ("**one request**", total)]]
    return table(["stage", "µs", "share"], rows)


def setting(results: Results) -> str:
    """Return one paragraph on the machine and the method of the numbers."""
    machine, how = results["machine"], results["settings"]
    return (
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['flags'])}), Linux {machine['kernel']}, "
        f"Python {machine['python']}, {machine['date'][:10]}. One worker on one core, the client on another, loopback, "
        f"{how['connections']} connections; {how['rounds']} rounds of {how['seconds']} s, contenders in turn."
    )
