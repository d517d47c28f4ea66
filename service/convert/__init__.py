"""Convert models of other libraries to artifacts, and artifacts to ONNX; prove that both give the same probabilities.

May import `store/` and the packages below it. Nothing here runs code of a file, and serving imports none of it.
"""
