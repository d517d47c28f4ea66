"""Bags, hashed categories and crosses: scikit-learn's hashes, and those of Vowpal Wabbit."""

import random
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.preprocessing import normalize
from sklearn.utils import murmurhash3_32

from service.errors import UnacceptableError
from service.fields.column_blocks import FieldLimits
from service.fields.row_encoder import EncodedRows, RowEncoder
from tests.support.field_lists import parse_fields
from tests.support.unicode_texts import make_texts

NAMES = sorted(set(make_texts(400, seed=2)))

# Hashes modulo 2**30 of Vowpal Wabbit 9.11.9: `Workspace("-b 30").hash_feature(name, seed)`, first for the default
# namespace, whose seed is 0, then for the namespace "subject", whose seed is `hash_space("subject")`.
SUBJECT = 3_170_325_535
VW_HASHES = {
    "": (0, 1022841887),
    "0": (0, 1022841887),
    "12": (12, 1022841899),
    "007": (7, 1022841894),
    " 12 ": (12, 1022841899),
    "\t12\n": (12, 1022841899),
    "99999999999": (142010367, 91110430),
    "123456789012345678901234567890": (239012562, 188112625),
    " refund ": (556594915, 706790234),
    "refund": (556594915, 706790234),
    "1 2": (286677097, 153263982),
    "grün": (720732358, 326839722),
    "東京": (381620546, 989017277),
    "a b": (1033158525, 743470365),
    "-3": (405203247, 814861242),
    "1.5": (804691217, 969471541),
    "12a": (837690667, 297018006),
    "a": (1009084850, 1050875727),
    "ab": (465557343, 802862997),
    "abc": (870159354, 855282746),
    "abcd": (65890154, 294523264),
    "abcde": (681286390, 265750395),
}
# Weights that Vowpal Wabbit 9.11.9 learned with `-b 18 --noconstant`: of `-q st` on "1 |s a |t b", of the same on
# "1 |s 3 |t 5", and of `--cubic stu` on "1 |s a |t b |u c". The columns of the features, and that of the cross.
VW_CROSSES = [([220006, 155229], 180175), ([183028, 253778], 172366), ([220006, 155229, 223341], 39600)]


def make_encoder(*fields: dict[str, Any]) -> RowEncoder:
    """Return the encoder of fields without tensors."""
    return RowEncoder(parse_fields(*fields), {}, FieldLimits(columns_max=1 << 30))


def to_csr(encoded: EncodedRows, n_columns: int) -> sparse.csr_array:
    """Return encoded rows as a matrix."""
    rows = encoded.rows
    return sparse.csr_array((rows.values, rows.columns, np.concatenate([[0], rows.ends])), (rows.n_rows, n_columns))


def make_bags(count: int) -> list[dict[str, float]]:
    """Return bags of any names and numbers; some numbers are 0."""
    chance = random.Random(3)
    return [
        {name: chance.choice([0, 1, 2.5, -3, 1e-3, 1e6]) for name in chance.sample(NAMES, chance.randrange(30))}
        for _ in range(count)
    ]


def assert_close(ours: sparse.csr_array, theirs: Any) -> None:
    """Assert that two matrices have the same columns, and values to 1e-12 of the largest number that was added."""
    theirs = sparse.csr_array(theirs)
    theirs.sum_duplicates()
    difference = abs(ours - theirs)
    assert difference.nnz == 0 or difference.max() <= 1e-12 * max(1.0, abs(theirs).max())
    assert theirs.nnz > 1000


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("norm", ["none", "l1", "l2"])
def test_bags_are_those_of_the_feature_hasher(norm: str, *, signed: bool) -> None:
    """Objects of names and numbers, whose entries fall together."""
    bags = make_bags(300)
    theirs = FeatureHasher(n_features=2**8, alternate_sign=signed).transform(bags)
    theirs.sum_duplicates()
    encoder = make_encoder({"name": "bag", "kind": "bag", "bits": 8, "signed": signed, "norm": norm})
    ours = to_csr(encoder.encode_columns({"bag": bags}), 256)
    assert_close(ours, theirs if norm == "none" else normalize(theirs, norm))


def test_lists_of_names_count_one_each() -> None:
    """A list is hashed as the hasher's strings are."""
    chance = random.Random(4)
    lists = [chance.choices(NAMES, k=chance.randrange(20)) for _ in range(300)]
    theirs = FeatureHasher(n_features=2**12, input_type="string").transform(lists)
    encoder = make_encoder({"name": "bag", "kind": "bag", "bits": 12, "signed": True})
    assert_close(to_csr(encoder.encode_columns({"bag": lists}), 2**12), theirs)


def test_listed_bags_are_those_of_the_dict_vectorizer() -> None:
    """Names that were not learned have no entry, and are counted; or they have the column `other`, or are refused."""
    bags = make_bags(300)
    vectorizer = DictVectorizer().fit(bags[:20])
    terms = vectorizer.get_feature_names_out().tolist()
    unknown = sum(name not in set(terms) for bag in bags for name in bag)
    assert unknown > 100
    field = {"name": "bag", "kind": "bag", "terms": {"bytes": "bytes", "ends": "ends"}}
    encoded = [term.encode() for term in terms]
    tensors = {
        "bytes": np.frombuffer(b"".join(encoded), np.uint8),
        "ends": np.cumsum([len(term) for term in encoded]),
    }
    found = RowEncoder(parse_fields(field), tensors, FieldLimits()).encode_columns({"bag": bags})
    assert_close(to_csr(found, len(terms)), vectorizer.transform(bags))
    assert found.unknown.tolist() == [unknown]
    other = RowEncoder(parse_fields(field | {"unknown": "other"}), tensors, FieldLimits())
    column = to_csr(other.encode_columns({"bag": bags}), len(terms) + 1)[:, [len(terms)]].toarray()
    sums = [sum(value for name, value in bag.items() if name not in set(terms)) for bag in bags]
    assert np.abs(column[:, 0] - sums).max() < 1e-6
    refusing = RowEncoder(parse_fields(field | {"unknown": "refuse"}), tensors, FieldLimits())
    with pytest.raises(UnacceptableError, match=r'^Row [0-9]+: "bag" must have names that the model knows[.]$'):
        refusing.encode_columns({"bag": bags})


def test_sums_do_not_depend_on_the_order_of_names() -> None:
    """A bag whose names fall together has the same bits in any order."""
    chance = random.Random(5)
    bag = {name: chance.uniform(-1, 1) * 10.0 ** chance.randrange(-9, 9) for name in NAMES}
    encoder = make_encoder({"name": "bag", "kind": "bag", "bits": 2})
    first = encoder.encode_columns({"bag": [bag]}).rows
    for _ in range(20):
        names = chance.sample(list(bag), len(bag))
        again = encoder.encode_columns({"bag": [{name: bag[name] for name in names}]}).rows
        assert again.values.tobytes() == first.values.tobytes()


@pytest.mark.parametrize("signed", [False, True])
def test_categories_are_hashed_as_bytes(*, signed: bool) -> None:
    """A text is hashed as it is; whole numbers and booleans as their JSON after 0xFF, which no text has."""
    values = ["DE", "", "東京", 7, 7.0, -7, "7", True, "true", 1, False]
    texts = [
        b"DE",
        b"",
        "東京".encode(),
        b"\xff7",
        b"\xff7",
        b"\xff-7",
        b"7",
        b"\xfftrue",
        b"true",
        b"\xff1",
        b"\xfffalse",
    ]
    hashes = [murmurhash3_32(text, seed=5) for text in texts]
    encoder = make_encoder({"name": "c", "kind": "category", "bits": 20, "seed": 5, "signed": signed})
    rows = encoder.encode_columns({"c": values}).rows
    assert rows.columns.tolist() == [abs(h) % 2**20 for h in hashes]
    assert rows.values.tolist() == [-1.0 if signed and h < 0 else 1.0 for h in hashes]
    assert {h < 0 for h in hashes} == {False, True}


@pytest.mark.parametrize("name", VW_HASHES)
def test_names_have_the_hashes_of_vowpal_wabbit(name: str) -> None:
    """Names of digits are numbers, and white space around names does not count."""
    for seed, expected in zip((0, SUBJECT), VW_HASHES[name], strict=True):
        encoder = make_encoder({"name": "bag", "kind": "bag", "bits": 30, "hashing": "vw", "seed": seed})
        assert encoder.encode_columns({"bag": [[name]]}).rows.columns.tolist() == [expected]


@pytest.mark.parametrize(("columns", "expected"), VW_CROSSES)
def test_crosses_are_the_interactions_of_vowpal_wabbit(columns: list[int], expected: int) -> None:
    """A name of digits is its own column with the seed 0, so the columns can be given as names."""
    bags = [{"name": f"bag{i}", "kind": "bag", "bits": 18, "hashing": "vw"} for i in range(len(columns))]
    names = [bag["name"] for bag in bags]
    cross = {"name": "x", "kind": "cross", "fields": names, "bits": 18, "hashing": "vw"}
    encoder = make_encoder(*bags, cross)
    row = {name: {str(column): 2.0} for name, column in zip(names, columns, strict=True)}
    rows = encoder.encode_objects([row]).rows
    assert rows.columns.tolist() == [
        *(i * 2**18 + column for i, column in enumerate(columns)),
        len(columns) * 2**18 + expected,
    ]
    assert rows.values[-1] == 2.0 ** len(columns)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("parts", [2, 3])
def test_crosses_are_hashed_products(parts: int, *, signed: bool) -> None:
    """Every combination of entries has one product, in the column of the hash of their columns."""
    chance = random.Random(6)
    fields = [{"name": f"bag{i}", "kind": "bag", "bits": 3} for i in range(parts)]
    names = [field["name"] for field in fields]
    cross = {"name": "x", "kind": "cross", "fields": names, "bits": 6, "seed": 9, "signed": signed}
    encoder = make_encoder(*fields, cross)
    rows = [{name: chance.choices(NAMES, k=chance.randrange(4)) for name in names} for _ in range(50)]
    got = encoder.encode_objects(rows).rows.to_matrix(encoder.n_columns)
    blocks = [got[:, block.start : block.end] for block in encoder.blocks]
    expected = np.zeros((50, 64))
    for row in range(50):
        for columns in np.ndindex(*[8] * parts):
            value = float(np.prod([blocks[i][row, column] for i, column in enumerate(columns)]))
            h = murmurhash3_32(np.array(columns, "<i4").tobytes(), seed=9)
            expected[row, abs(h) % 64] += -value if signed and h < 0 else value
    assert np.array_equal(blocks[-1], expected)
    assert (expected != 0).sum() > 50
