"""Reduce a graph to what one value needs, so that onnxruntime computes nothing else, and asks for nothing else."""

from collections.abc import Collection

import onnx


def prune_graph(raw: bytes, output: str, as_float: Collection[str] = (), *, raw_scores: bool = False) -> bytes:
    """Return a model whose only output is one value of another model.

    Labels, and lists of maps, have operators that onnxruntime lacks for some types. Inputs of whole numbers that are
    used as numbers take any number, so that every row of the converted model can be asked.

    Args:
        raw: The model, which was parsed.
        output: The value.
        as_float: The names of inputs whose type becomes float.
        raw_scores: Whether linear classifiers leave out the logistic function.
    """
    model = onnx.ModelProto.FromString(raw)
    graph = model.graph
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed |= set(node.input)
            kept.append(node)
            if raw_scores and node.op_type == "LinearClassifier":
                _set_raw_scores(node)
    inputs = [value for value in graph.input if value.name in needed]
    for value in inputs:
        if value.name in as_float:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    pruned = onnx.helper.make_graph(kept[::-1], "pruned", inputs, [onnx.helper.make_empty_tensor_value_info(output)])
    pruned.initializer.extend(constants)
    made = onnx.helper.make_model(pruned, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return bytes(made.SerializeToString())


def _set_raw_scores(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "post_transform":
            attribute.s = b"NONE"
