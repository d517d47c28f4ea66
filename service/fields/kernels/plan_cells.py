"""The plan of a model's fields, by which kernels encode one row from the text of its object.

    plan     (PLAN_CELLS,) int64       addresses and sizes, in the order of the constants below
    fields   (F, FIELD_CELLS) int64    the options of each field, and the addresses of its arrays
    numbers  (F, NUMBERS_OF_A_FIELD)   float64: the mean, the scale and the limit of a number or of a vector's cut

An array has two cells, its address and its length. row_plan.py writes a plan, and the kernels write the buffers:

    columns, values                  (E,) int64, float64: the entries of all fields, each field's in one piece
    spare_columns, spare_values      (E,) room to sort them
    starts, stops                    (E,) int64: the n-grams of one text
    text, borders                    (T,) uint8, (T + 1,) int64: one text in the form of ngrams.py, and its units
    firsts, counts                   (F,) int64: where the entries of each field begin, and how many it has
    missing, unknown                 (F,) int64: how many values of each field were missing and unknown
    row_columns, row_values          (E,) int32, float64: the entries of the row
    row_singles                      (E,) float32: the same values
"""

from numba import carray

from service.compiler import inlined
from service.softmax.kernels.addresses import numbers_at

NUMBER, BOOLEAN, CATEGORY, TEXT_FIELD, BAG, VECTOR, CROSS = range(7)

# Cells of the plan: the arrays of its options, those of the names of a row (term_kernels.py) with the first field that
# reads each value, those that are written, and then numbers. COUNTED is whether a value was missing or unknown, FINITE
# whether the values of the row are finite in float32, and AFTER the address after the row.
PLAN_ARRAYS = (
    "fields", "numbers", "name_text", "name_ends", "name_slots", "first_fields", "absent_columns", "absent_values",
    "columns", "values", "spare_columns", "spare_values", "starts", "stops", "text", "borders",
    "firsts", "counts", "missing", "unknown", "row_columns", "row_values", "row_singles",
)  # fmt: skip
(
    FIELDS, NUMBERS, NAME_TEXT, NAME_ENDS, NAME_SLOTS, FIRST_FIELDS, ABSENT_COLUMNS, ABSENT_VALUES,
    COLUMNS, VALUES, SPARE_COLUMNS, SPARE_VALUES, STARTS, STOPS, TEXT, BORDERS,
    FIRSTS, COUNTS, MISSING, UNKNOWN, ROW_COLUMNS, ROW_VALUES, ROW_SINGLES,
) = range(0, 2 * len(PLAN_ARRAYS), 2)  # fmt: skip
N_FIELDS, COUNTED, FINITE, AFTER, PLAN_CELLS = range(2 * len(PLAN_ARRAYS), 2 * len(PLAN_ARRAYS) + 5)

# Cells of a field: its arrays, then its options. A missing value has ABSENT entries from ABSENT_FIRST on in the arrays
# of that name; a negative number refuses it. WIDTH is the number of hashed columns, or 0 if the names are listed. OTHER
# is the column of unknown names, or -1; REFUSES_UNKNOWN hands them over. PART_1 to PART_3 are the fields of a cross,
# the last -1 if there are two. NEXT_FIELD is the next field that reads the same value, or -1.
FIELD_ARRAYS = (
    "term_text",
    "term_ends",
    "term_slots",
    "stop_text",
    "stop_ends",
    "stop_slots",
    "idf",
    "means",
    "scales",
)
(
    TERM_TEXT, TERM_ENDS, TERM_SLOTS, STOP_TEXT, STOP_ENDS, STOP_SLOTS, IDF, MEANS, SCALES,
) = range(0, 2 * len(FIELD_ARRAYS), 2)  # fmt: skip
FIELD_OPTIONS = (
    "kind", "start", "absent_first", "absent", "accepts", "other", "refuses_unknown", "width", "seed", "signed", "vw",
    "form", "shortest", "longest", "letters_min", "lowercase", "mode", "norm", "size", "part_1", "part_2", "part_3",
    "next_field",
)  # fmt: skip
(
    KIND, START, ABSENT_FIRST, ABSENT, ACCEPTS, OTHER, REFUSES_UNKNOWN, WIDTH, SEED, SIGNED, VW,
    FORM, SHORTEST, LONGEST, LETTERS_MIN, LOWERCASE, MODE, NORM, SIZE, PART_1, PART_2, PART_3, NEXT_FIELD,
    FIELD_CELLS,
) = range(2 * len(FIELD_ARRAYS), 2 * len(FIELD_ARRAYS) + len(FIELD_OPTIONS) + 1)  # fmt: skip

MEAN, SCALE, CLIP, NUMBERS_OF_A_FIELD = range(4)

# Kinds of categories that a field accepts, as bits.
ACCEPTS_TEXT, ACCEPTS_NUMBER, ACCEPTS_BOOLEAN = 1, 2, 4
# The first byte of a whole number or boolean as a name: UTF-8 has none of this value.
NO_TEXT = 0xFF

# Returned for a text that the general encoder reads.
HAND_OVER = -1


@inlined
def array_at(cells, cell, kind):
    """The array whose address and length are in cells[cell] and the next; `kind` is its type, such as np.int64."""
    return carray(numbers_at(cells[cell], kind), cells[cell + 1])
