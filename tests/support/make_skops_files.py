"""Write tests/golden/skops: .skops files of three releases of scikit-learn, with the probabilities that each gives.

    python -m tests.support.make_skops_files

It builds an environment for each release under build/skops, and is run once for each. Later releases of Softstep must
read the files, with the same probabilities.
"""

import subprocess
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.scripts import load_script

GOLDEN = ROOT / "tests" / "golden" / "skops"
WRITER = Path(__file__).with_name("write_skops_files.py")
# The release of scikit-learn, and those of skops and NumPy of its time.
RELEASES = {"1.5.2": ("0.10.0", "2.0.2"), "1.7.2": ("0.13.0", "2.3.5"), "1.9.1": ("0.16.0", "2.4.6")}
environments = load_script("loadtest/environments.py")


def main() -> None:
    """Build the environments, and write the files of each release."""
    for release, (skops, numpy) in RELEASES.items():
        folder = ROOT / "build" / "skops"
        folder.mkdir(parents=True, exist_ok=True)
        requirements = folder / f"{release}.txt"
        requirements.write_text(f"scikit-learn=={release}\nskops=={skops}\nnumpy=={numpy}\npandas\n")
        python = environments.Environment(f"scikit-learn-{release}", (requirements,), parent=folder).ensure()
        target = GOLDEN / release.rpartition(".")[0]
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run([python, "-P", WRITER, target], check=True)


if __name__ == "__main__":
    main()
