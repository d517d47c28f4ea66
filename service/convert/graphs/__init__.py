"""ONNX: write a model as a graph, read a graph as a model, and run one with onnxruntime.

May import the other modules of `convert/` and the packages below it, onnx and onnxruntime.
"""
