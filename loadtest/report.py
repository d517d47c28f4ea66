"""Write results.md, the pictures and README's five figures from results.json.

    build/bench/client/bin/python loadtest/report.py

README's figures are between two marker lines and are replaced completely; never edit them by hand.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import tables
from environments import ROOT
from figures import ALL, README_TITLES, TABLES
from plots import draw

Results = dict[str, Any]

DOCS, README = ROOT / "docs" / "benchmarks", ROOT / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def are_measured(results: Results, *names: str) -> bool:
    """Return whether all these parts were measured."""
    return all("reason" not in results.get(name, {"reason": ""}) for name in names)


def sections(results: Results) -> list[tuple[str, str]]:
    """Return every table that the results allow, with its heading."""
    names = {figure["table"] for figure in results["figures"]}
    chosen = [
        *((name, name in names, partial(tables.figures, results, name)) for name in TABLES),
        ("Saturation", bool(results["servers"]), lambda: tables.saturation(results)),
        ("Latency at half the saturation rate", are_measured(results, "latency"), lambda: tables.latency(results)),
        ("Where one request's time goes", are_measured(results, "stages"), lambda: tables.stages(results)),
        ("Kernels", "grid" in results.get("kernels", {}), lambda: tables.kernels(results["kernels"])),
        ("Kernels, AVX2", "grid" in results.get("kernels_avx2", {}), lambda: tables.kernels(results["kernels_avx2"])),
        (
            "Networks",
            bool(results.get("networks", {}).keys() - {"reason"}),
            lambda: tables.networks(results["networks"]),
        ),
    ]
    return [(heading, make()) for heading, wanted, make in chosen if wanted]


def show(results: Results) -> None:
    """Print every table."""
    for heading, text in sections(results):
        print(f"\n{heading}\n\n{text}")


def write(results: Results, folder: Path) -> None:
    """Write everything into `folder`, and README's figures if `folder` is docs/benchmarks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    render(results, folder)


def merge_results(there: Results, results: Results) -> Results:
    """Return the results of an earlier whole run, with the figures of a later partial run in place of theirs."""
    measured = {figure["figure"] for figure in results["figures"]}
    kept = [{"table": "Figures"} | figure for figure in there["figures"] if figure["figure"] not in measured]
    order = {figure.number: at for at, figure in enumerate(ALL)}
    figures = sorted([*kept, *results["figures"]], key=lambda figure: order[figure["figure"]])
    servers = {**there["servers"], **results["servers"]}
    return {**there, **results, "settings": there["settings"], "servers": servers, "figures": figures}


def render(results: Results, folder: Path) -> None:
    """Write everything that follows from results.json."""
    pictures = draw(results, folder)
    made = dict(sections(results))
    parts = [
        "# Results",
        "`loadtest/bench.py` writes this page. `loadtest/README.md` explains each figure.",
        tables.setting(results),
    ]
    for heading, text in made.items():
        parts += [f"## {heading}", text]
    parts += [f"![{shows}]({name})" for name, shows in pictures]
    parts += ["## Versions", versions(results)]
    (folder / "results.md").write_text("\n\n".join(parts) + "\n")
    if folder.resolve() == DOCS:
        fill_readme(tables.readme_figures(results, README_TITLES))


def versions(results: Results) -> str:
    """Return the installed versions, one line per environment."""
    lines = []
    for name, packages in results["machine"]["versions"].items():
        listed = ", ".join(f"{package} {version}" for package, version in packages.items())
        if listed:
            lines.append(f"- {name}: {listed}")
    return "\n".join([*lines, f"- client: {results['machine']['wrk']}"])


def fill_readme(text: str) -> None:
    """Replace the text between README's markers."""
    readme = README.read_text()
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        print(f"README has no {BEGIN} … {END}; its figures are unchanged")
        return
    README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    """Render a results file again, without measuring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS, help="folder with results.json")
    folder = parser.parse_args().folder
    render(json.loads((folder / "results.json").read_text()), folder)


if __name__ == "__main__":
    main()
