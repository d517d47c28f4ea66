"""Parse the JSON part of an Open Inference Protocol v2 request: its id, its parameters and the requested outputs.

Unknown members are ignored everywhere, and null is a missing member. oip_inputs.py parses the inputs, and
oip_tensors.py names the sources of the protocol.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from service.errors import MalformedError, UnacceptableError
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.oip_inputs import Inputs, get_parameters, parse_inputs
from service.serve.wire.rows import RowParser

# The outputs that make up an explanation; they are computed only on request.
EXPLANATIONS: Final = ("logits", "contributions", "sensitivities")
OUTPUTS: Final = ("probabilities", "labels", *EXPLANATIONS)
UNKNOWN_OUTPUT: Final = (
    "Unknown output; a model has probabilities and labels, and for explanations logits, contributions, sensitivities."
)


class OutputRequest(NamedTuple):
    """One requested output.

    Attributes:
        name: One of OUTPUTS.
        binary: Whether its values follow the JSON part as binary data.
        top: The number of classes to return as classification, the most probable first, or 0 for all values.
    """

    name: str
    binary: bool
    top: int


class InferenceHeader(NamedTuple):
    """The JSON part of a request.

    Attributes:
        id: The request's id, or "".
        inputs: The inputs without their binary data.
        outputs: The requested outputs.
    """

    id: str
    inputs: Inputs
    outputs: tuple[OutputRequest, ...]


JSON_PROBABILITIES: Final = (OutputRequest("probabilities", binary=False, top=0),)
BINARY_PROBABILITIES: Final = (OutputRequest("probabilities", binary=True, top=0),)


def requests_explanation(outputs: tuple[OutputRequest, ...]) -> bool:
    """Return whether one of the requested outputs is part of an explanation."""
    if outputs is JSON_PROBABILITIES or outputs is BINARY_PROBABILITIES:
        return False
    return any(output.name in EXPLANATIONS for output in outputs)


def parse_inference_header(
    document: dict[str, Any], model_fields: Mapping[str, str], features: FeatureColumns, rows: RowParser
) -> InferenceHeader:
    """Parse a document, without the binary data of its inputs.

    Args:
        document: The JSON part of the request.
        model_fields: The model_name and model_version that answer.
        features: The model's features by name.
        rows: The parser of the model's rows.

    Raises:
        MalformedError: The document contradicts itself.
        UnacceptableError: The document follows the protocol, but does not fit this model.
        TooLargeError: A shape has more rows than the limit.
    """
    request_id = parse_request_id(document, model_fields)
    inputs = parse_inputs(document.get("inputs"), features, rows)
    return InferenceHeader(request_id, inputs, parse_requested_outputs(document))


def check_binary_data(size: int | None, available: int, *, has_header: bool) -> None:
    """Check the size of the binary data of a request.

    Args:
        size: The bytes that its inputs announce together, or None if no input has binary data.
        available: The bytes after the JSON part.
        has_header: Whether the request has Inference-Header-Content-Length.

    Raises:
        MalformedError: The sizes differ, or the header is missing.
    """
    if size is not None and not has_header:
        raise MalformedError("Binary data needs the header Inference-Header-Content-Length; see docs/http.md.")
    if size is None and available:
        raise MalformedError('The body has binary data, but no input has a "binary_data_size".')
    if size is not None and size != available:
        raise MalformedError(
            f'The inputs have a "binary_data_size" of {size}, but the body has {available} bytes of binary data.'
        )


def parse_request_id(document: dict[str, Any], model_fields: Mapping[str, str]) -> str:
    """Return the id of a request, or "".

    Raises:
        UnacceptableError: It is no text, or the request names another model than its path.
    """
    _check_model(document, model_fields)
    request_id = document.get("id")
    if request_id is not None and type(request_id) is not str:
        raise UnacceptableError('"id" must be a string.')
    return request_id or ""


def parse_requested_outputs(document: dict[str, Any]) -> tuple[OutputRequest, ...]:
    """Return the outputs that a request asks for; raise UnacceptableError if the model has not all of them."""
    binary = get_parameters(document).get("binary_data_output")
    if binary is not None and type(binary) is not bool:
        raise UnacceptableError('"binary_data_output" must be true or false.')
    return _parse_outputs(document.get("outputs"), binary=bool(binary))


def _check_model(document: dict[str, Any], model_fields: Mapping[str, str]) -> None:
    """Refuse a request that names another model than its path; KServe's client repeats the name of the model."""
    for member, served in model_fields.items():
        value = document.get(member)
        name = str(value) if type(value) is int else value
        # An empty version leaves the choice to the server.
        if name is not None and name not in ("", served):
            remedy = "leave it out, or change the path"
            raise UnacceptableError(f'"{member}" is not that of the model that answers; {remedy}.')


def _parse_outputs(outputs: object, *, binary: bool) -> tuple[OutputRequest, ...]:
    if outputs is None or outputs == []:
        return BINARY_PROBABILITIES if binary else JSON_PROBABILITIES
    if type(outputs) is not list or any(type(output) is not dict for output in outputs):
        raise UnacceptableError('"outputs" must be a list of objects.')
    requested = tuple(_parse_output(output, binary=binary) for output in outputs)
    if len({output.name for output in requested}) != len(requested):
        raise UnacceptableError('"outputs" must not name an output twice.')
    # The response is encoded faster for the two usual requests, which are compared by identity.
    return next((usual for usual in (JSON_PROBABILITIES, BINARY_PROBABILITIES) if requested == usual), requested)


def _parse_output(output: dict[str, Any], *, binary: bool) -> OutputRequest:
    name, parameters = output.get("name"), get_parameters(output)
    if name not in OUTPUTS:
        raise UnacceptableError(UNKNOWN_OUTPUT)
    as_binary, top = parameters.get("binary_data"), parameters.get("classification")
    if as_binary is not None and type(as_binary) is not bool:
        raise UnacceptableError('"binary_data" must be true or false.')
    if top is not None and (type(top) is not int or top < 0 or (top and name != "probabilities")):
        raise UnacceptableError('"classification" must be a number of classes, and is valid only for probabilities.')
    return OutputRequest(str(name), binary if as_binary is None else as_binary, top or 0)
