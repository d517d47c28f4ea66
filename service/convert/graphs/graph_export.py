"""Write a model as ONNX, for models whose rows are numbers, booleans, listed categories and vectors.

    inputs     one for each field, by its name (field_nodes.py); without fields `features` (rows, N)
    outputs    label           texts (rows,), or for a multilabel model int64 (rows, C), 1 for each class that is named
               probabilities   (rows, C) in the dtype of the model

An underscore is added to the name of an output that is the name of a field. The metadata have the classes and the names
of features as JSON, and the hash of the weights.
"""

import json
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx

from service.convert.graphs.field_nodes import add_columns, list_inputs
from service.convert.graphs.graph_builder import ROWS, GraphBuilder
from service.convert.graphs.graph_session import InputForm
from service.errors import ConversionError
from service.fields.field_records import CrossField
from service.softmax.input_stage import Stage, round_stage
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_delta, build_stage

FEATURES: Final = "features"
OUTPUTS: Final = ("label", "probabilities")
ACTIVATIONS: Final = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
# The probability from which a class is named, unless the manifest has thresholds.
THRESHOLD: Final = 0.5
# A message of protobuf has at most 2 GiB, and the names and tables of fields need room too.
WEIGHTS_BYTES_MAX: Final = 1 << 30


def make_onnx(artifact: Artifact) -> onnx.ModelProto:
    """Return an artifact as an ONNX model.

    Raises:
        ConversionError: It has a learned mixture, or a field for which ONNX has no operators.
    """
    manifest = artifact.manifest
    if sum(tensor.nbytes for tensor in artifact.tensors.values()) > WEIGHTS_BYTES_MAX:
        raise ConversionError("the weights take more than 1 GiB, and an ONNX file has at most 2 GiB")
    if manifest.mixture is not None:
        raise ConversionError("the model has learned a mixture, and ONNX has no operators for its random features")
    inputs = input_forms(artifact)
    names = {form.name for form in inputs}
    label, probabilities = (name + "_" * (name in names) for name in OUTPUTS)
    graph = GraphBuilder(names | {label, probabilities}, manifest.dtype)
    P = _add_head(graph, artifact, _add_layers(graph, artifact, _add_rows(graph, artifact, inputs)))
    if manifest.head == "multilabel":
        thresholds = np.array(manifest.thresholds or [THRESHOLD] * len(manifest.classes), graph.dtype)
        named = graph.cast(graph.add("GreaterOrEqual", P, graph.constant(thresholds)), onnx.TensorProto.INT64)
        graph.add_output(label, named, onnx.TensorProto.INT64, [ROWS, len(manifest.classes)])
    else:
        best = graph.add("ArgMax", P, axis=1, keepdims=0)
        name = graph.add("Gather", graph.texts(list(manifest.classes)), best, axis=0)
        graph.add_output(label, name, onnx.TensorProto.STRING, [ROWS])
    graph.add_output(probabilities, P, graph.datatype, [ROWS, len(manifest.classes)])
    metadata = {
        "classes": list(manifest.classes),
        **({} if manifest.features is None else {FEATURES: manifest.features}),
    }
    written = {name: json.dumps(value, ensure_ascii=False) for name, value in metadata.items()}
    return graph.build({**written, "weights_sha256": artifact.weights_sha256})


def input_forms(artifact: Artifact) -> list[InputForm]:
    """Return the inputs of the graph of an artifact.

    Raises:
        ConversionError: Fields that read one value need inputs of different types.
    """
    manifest = artifact.manifest
    if manifest.fields is not None:
        return list_inputs(manifest.fields)
    datatype = onnx.TensorProto.FLOAT if manifest.dtype == "float32" else onnx.TensorProto.DOUBLE
    return [InputForm(FEATURES, datatype, manifest.features or ())]


def _add_rows(graph: GraphBuilder, artifact: Artifact, inputs: Sequence[InputForm]) -> str:
    """Add the inputs and what makes columns of them; return the columns (rows, N)."""
    for form in inputs:
        graph.add_input(form.name, form.datatype, form.size or len(form.names))
    fields = artifact.manifest.fields
    if fields is None:
        return FEATURES
    columns = [
        add_columns(graph, field, "" if isinstance(field, CrossField) else field.value_name, artifact.tensors)
        for field in fields
    ]
    return columns[0] if len(columns) == 1 else graph.add("Concat", *columns, axis=1)


def _add_layers(graph: GraphBuilder, artifact: Artifact, rows: str) -> str:
    """Add stage, layers, delta and calibration; return the logits (rows, K)."""
    manifest, delta = artifact.manifest, build_delta(artifact)
    value = _add_stage(graph, build_stage(artifact), rows)
    for layer in manifest.layers:
        weight, bias = graph.constant(artifact.tensors[layer.weight]), graph.constant(artifact.tensors[layer.bias])
        value = graph.add("Add", graph.add("MatMul", value, weight), bias)
        if layer.activation != "identity":
            value = graph.add(ACTIVATIONS[layer.activation], value)
    if delta is not None:
        staged = _add_stage(graph, delta.stage, rows)
        value = graph.add("Add", value, graph.add("MatMul", staged, graph.constant(delta.weights)))
    calibration = manifest.scaling
    if calibration is None:
        return value
    if calibration.kind == "temperature":
        return graph.add("Div", value, graph.constant(calibration.numbers[0]))
    a, b = calibration.numbers
    return graph.add("Add", graph.add("Mul", value, graph.constant(a)), graph.constant(b))


def _add_stage(graph: GraphBuilder, stage: Stage | None, rows: str) -> str:
    """Add the standardization of rows, cut to [-clip, clip]."""
    if stage is None:
        return rows
    mean, inverse, clip = round_stage(stage, graph.dtype)
    z = graph.add("Mul", graph.add("Sub", rows, graph.constant(mean)), graph.constant(inverse))
    return z if stage.clip is None else graph.add("Clip", z, graph.constant(-clip), graph.constant(clip))


def _add_head(graph: GraphBuilder, artifact: Artifact, z: str) -> str:
    """Add the head; return the probabilities (rows, C)."""
    match artifact.manifest.head:
        case "softmax":
            return graph.add("Softmax", z, axis=1)
        case "multilabel":
            return graph.add("Sigmoid", z)
        case "sigmoid":
            return graph.add("Concat", graph.add("Sigmoid", graph.add("Neg", z)), graph.add("Sigmoid", z), axis=1)
        case "ovr":
            # sigma(z) divided by its sum, as the softmax of ln sigma(z) = min(z, 0) - ln(1 + e^-|z|): never 0 / 0.
            powers = graph.add("Exp", graph.add("Neg", graph.add("Abs", z)))
            rest = graph.add("Log", graph.add("Add", powers, graph.constant(1.0)))
            return graph.add("Softmax", graph.add("Sub", graph.add("Min", z, graph.constant(0.0)), rest), axis=1)
