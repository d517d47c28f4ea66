"""Measure the loss of learning from zero weights against a uniform guess, on many generated stationary streams.

    .venv/bin/python loadtest/stationary_streams.py [--streams 500] [--seed 0] [--linear]   (from the repository root)

Each stream has 4,000 rows. Widths, classes, kinds of features, scales and signals are drawn at random. The loss is the
progressive one of the default rule, divided by that of a uniform guess. With --linear it is that of newton or ftrl, by
the size of the model, and "off" is the same rule without a limit of the regret; a mixture has no such limit.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from service.learn.state import LearnerState
from tests.support.stationary_streams import StationaryStream, draw_rows, linear_rule, make_artifact

LOSS_MAX = 1.03
KINDS = ("independent", "correlated", "common", "heavy", "sparse")
# Larger models take long to draw, and their first rows decide little.
WEIGHTS_MAX = 1 << 17


def draw_stream(seed: int) -> StationaryStream:
    """Return a random stream: widths, classes and scales on a logarithmic scale."""
    rng = np.random.default_rng(seed)
    N, C = WEIGHTS_MAX, WEIGHTS_MAX
    while N * C > WEIGHTS_MAX:
        N, C = int(2 ** rng.uniform(0, 12)), int(2 ** rng.uniform(1, np.log2(101)))
    signal = 0.0 if rng.random() < 0.5 else float(10 ** rng.uniform(-1, 0.7))  # noqa: PLR2004  # every second has none
    scale = 0.0 if rng.random() < 0.5 else float(10.0 ** rng.integers(-6, 7))  # noqa: PLR2004
    imbalance = 0.0 if rng.random() < 0.5 else 1 / C  # noqa: PLR2004
    return StationaryStream(N, C, signal, str(rng.choice(KINDS)), scale, imbalance, seed)


def main() -> int:
    """Measure the streams; return 1 if one loses too much, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=500, help="how many streams (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first stream (default: 0)")
    parser.add_argument("--linear", action="store_true", help="learn by newton or ftrl, not by the default rule")
    options = parser.parse_args()
    losses = []
    for seed in range(options.seed, options.seed + options.streams):
        stream = draw_stream(seed)
        X, labels = draw_rows(stream)
        states = [LearnerState(make_artifact(stream, **({"rule": linear_rule(stream)} if options.linear else {})))]
        rule, constants = (states[0].rule_settings[name] for name in ("rule", "constants"))
        if "regret" in constants:
            states.append(LearnerState(make_artifact(stream, rule=rule, constants={"regret": 0.0})))
        found = [float(one.fold_rows(X, labels).mean() / np.log(stream.C)) for one in states]
        losses.append(found[0])
        mark = "  missed" if found[0] > LOSS_MAX else ""
        print(
            f"{stream.N:5} features {stream.C:4} classes  signal {stream.signal:5.2f}  {stream.features:12}"
            f" {rule:7} {found[0]:.4f}{''.join(f'  off {loss:.4f}' for loss in found[1:])}{mark}",
            flush=True,
        )
    print(f"{len(losses)} streams, worst {max(losses):.4f}, above {LOSS_MAX}: {sum(x > LOSS_MAX for x in losses)}")
    return int(max(losses) > LOSS_MAX)


if __name__ == "__main__":
    sys.exit(main())
