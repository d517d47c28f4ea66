"""The core of the importers: the columns of a matrix as functions of a row's values, and the weights of these values.

May import `fields/` and the packages below it. Forward, every step of a source makes a symbolic matrix. Backward, the
weights of the head are multiplied through linear steps until they are weights of single values of a row.
"""
