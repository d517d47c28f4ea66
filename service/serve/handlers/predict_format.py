"""Write the responses to predictions: as JSON, as JSON in the column form of TensorFlow Serving, or as CSV.

{"predictions": [[0.9, 0.1]], "labels": ["a"], "model_name": "iris", "model_version": "1", "seq": 0}
{"outputs": [[0.9, 0.1]], ...}
a,0.9,0.1
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import orjson

from service.serve.models.batcher import Classification
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse

CSV_TYPE: Final = b"text/csv; charset=utf-8"
# A cell with one of these is quoted (RFC 4180, section 2).
QUOTED: Final = frozenset('",\r\n')
PREDICTIONS: Final = b'{"predictions":'
OUTPUTS: Final = b'{"outputs":'


def encode_predictions(served: ServedModel, classified: Classification, tokens: Sequence[str]) -> HttpResponse:
    """Return the response as JSON.

    Args:
        served: The state that answers.
        classified: Probabilities and labels.
        tokens: The feedback token of each row, or nothing.
    """
    P, labels = classified
    numbers = orjson.dumps(P, None, orjson.OPT_SERIALIZE_NUMPY)
    if served.thresholds is not None:
        rows = (np.flatnonzero(flags) for flags in served.thresholds <= P)
        names = b",".join([b"[" + b",".join([served.class_json[k] for k in row]) + b"]" for row in rows])
    elif len(labels) == 1 and not tokens:
        return HttpResponse(200, PREDICTIONS + numbers + served.v1_single[labels[0]])
    else:
        names = b",".join([served.class_json[label] for label in labels])
    if tokens:
        names += b'],"feedback_tokens":[' + orjson.dumps(tokens)[1:-1]
    return HttpResponse(200, PREDICTIONS + numbers + b',"labels":[' + names + served.v1_tail)


def encode_outputs(served: ServedModel, classified: Classification, tokens: Sequence[str]) -> HttpResponse:
    """Return the response as JSON with "outputs", as `encode_predictions` does."""
    response = encode_predictions(served, classified, tokens)
    return response._replace(body=OUTPUTS + response.body[len(PREDICTIONS) :])


def encode_csv(served: ServedModel, classified: Classification, _tokens: Sequence[str]) -> HttpResponse:
    """Return the response as CSV without a header: in each line the label, then the probabilities.

    The label of a multi-label model is a JSON list of its labels.
    """
    P, labels = classified
    if served.thresholds is None:
        cells = [_quote(served.classes[label]) for label in labels]
    else:
        rows = (np.flatnonzero(flags) for flags in served.thresholds <= P)
        cells = [_quote(orjson.dumps([served.classes[k] for k in row]).decode()) for row in rows]
    numbers = orjson.dumps(P, None, orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    body = b"".join([b"%b,%b\n" % line for line in zip(cells, numbers, strict=True)])
    return HttpResponse(200, body, CSV_TYPE, ((b"x-softstep-seq", b"%d" % served.seq),))


def _quote(cell: str) -> bytes:
    """Return the bytes of a cell, in quotes if it needs them."""
    return (cell if QUOTED.isdisjoint(cell) else '"' + cell.replace('"', '""') + '"').encode()
