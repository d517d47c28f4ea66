"""Ask Vowpal Wabbit for the scores of rows: a script that needs `vowpalwabbit` alone, in an environment of its own.

python score_rows.py < request.json > scores.json

request    {"options": [words], "indices": [indices], "weights": [weights], "examples": [lines of its text format]}
scores     one list of scores for each example: one number, or one for each class of --oaa
"""

import json
import sys

import vowpalwabbit


def main() -> None:
    """Set the weights of an untrained model, and score the examples."""
    request = json.load(sys.stdin)
    workspace = vowpalwabbit.Workspace(" ".join([*request["options"], "--quiet", "--testonly"]))
    for index, weight in zip(request["indices"], request["weights"], strict=True):
        workspace.set_weight(index, 0, weight)
    scores = []
    for line in request["examples"]:
        score = workspace.predict(line)
        scores.append(score if isinstance(score, list) else [score])
    workspace.finish()
    json.dump(scores, sys.stdout)


if __name__ == "__main__":
    main()
