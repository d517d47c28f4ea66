"""Call a service through the client of MLflow's scoring server.

Standard input has {"url", "rows", "features", "key", "open_url"}; standard output gets what the client returns, as
JSON. The client cannot send a key. It calls the service without keys at "open_url"; "url" gets the key and its body.
"""

import json
import sys
import types
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import requests
from mlflow.deployments import PredictionsResponse
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.utils.proto_json_utils import dump_input_data

# The client looks for scipy's sparse matrices. An empty package has none, and is smaller than scipy.
sys.modules["scipy"] = types.ModuleType("scipy")
sys.modules["scipy"].__path__ = []

request = json.load(sys.stdin)
address = urlsplit(request["open_url"])
client = ScoringServerClient(address.hostname, address.port)
client.wait_server_ready(timeout=10)
frame = pd.DataFrame(request["rows"], columns=request["features"])
tables = {
    "a frame": frame,
    "a frame of other order": frame[frame.columns[::-1]],
    "an array": frame.to_numpy(),
}
answers = {name: client.invoke(table).get_predictions("ndarray") for name, table in tables.items()}
with_parameters = client.invoke(frame, params={"threshold": 0.5}).get_predictions("ndarray")
headers = {"Content-Type": "application/json", "Authorization": f"Bearer {request['key']}"}
posted = requests.post(f"{request['url']}/invocations", dump_input_data(frame), headers=headers, timeout=10)
json.dump(
    {
        "version": client.get_version(),
        "predictions": {name: np.asarray(answer).tolist() for name, answer in answers.items()},
        "with parameters": np.asarray(with_parameters).tolist(),
        "with a key": PredictionsResponse.from_json(posted.text).get_predictions("ndarray").tolist(),
    },
    sys.stdout,
)
