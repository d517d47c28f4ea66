"""Find the column of a name by a plan of plan_cells.py: in a table of terms, or by its hash.

cells, field     cells of a plan or of a field
name             uint8, an array that has the name in name[start:stop]
"""

import numpy as np

from service.compiler import inlined
from service.fields.kernels import plan_cells as cell
from service.fields.kernels.murmur3 import SIGN, column_of, hash_bytes, hash_bytes_vw
from service.fields.kernels.plan_cells import array_at
from service.fields.kernels.term_kernels import find_slot


@inlined
def find_term(cells, text_cell, name, start, stop):
    """Return the number of the term in cells that name[start:stop] is, or -1."""
    text, ends = array_at(cells, text_cell, np.uint8), array_at(cells, text_cell + 2, np.int64)
    slots = array_at(cells, text_cell + 4, np.int32)
    slot = find_slot(name, start, stop, text, ends, slots)
    return np.int64(slots[slot]) - 1 if slot >= 0 else np.int64(-1)


@inlined
def find_column(field, name, start, stop):
    """Return the column of name[start:stop], -1 if it is unknown, and whether the entry changes its sign."""
    if field[cell.WIDTH] == 0:
        return find_term(field, cell.TERM_TEXT, name, start, stop), False
    if field[cell.VW] != 0:
        return hash_bytes_vw(name, start, stop, field[cell.SEED]) & (field[cell.WIDTH] - 1), False
    h = hash_bytes(name, start, stop, field[cell.SEED])
    return column_of(h, field[cell.WIDTH]), field[cell.SIGNED] != 0 and h >= SIGN
