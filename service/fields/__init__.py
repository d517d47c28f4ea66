"""Rows with names: the fields of a manifest, and their encoder, which makes columns and values of a row.

May import `softmax/`, `compiler`, `record` and `errors`; no clock, file or socket.
"""
