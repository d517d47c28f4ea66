"""Read the layers of a network from the tensors of a safetensors or an .npz file.

May import `service/convert/` modules outside of its packages, `fields/` and the rows below it.
"""
