"""Parse the bodies of `:explain`, and bound what a response may hold.

{"instances": [[5.1, 3.5, 1.4, 0.2]], "labels": ["setosa"], "top": 2, "min_seq": 0}

The rows alone are required, in any form of `:predict` (wire/predict_body.py). "seq": n in place of "min_seq" asks for a
state of the past. sparse_explain_body.py parses requests to models of sparse rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from service.errors import TooLargeError, UnacceptableError
from service.serve.models.served_model import ServedModel
from service.serve.wire.json_grammar import known_fields
from service.serve.wire.labels import LabelParser
from service.serve.wire.predict_body import FORMS, convert_rows, parse_min_seq, parse_seq
from service.settings import Settings
from service.softmax.arrays import Doubles
from service.softmax.calibration import uncalibrated_model
from service.softmax.logit_targets import logit_targets
from service.softmax.mixture_model import MixtureModel
from service.softmax.sparse_rows import Rows, count_rows
from service.store.log.feedback_payload import Targets

FIELDS: Final = (*FORMS, "labels", "top", "min_seq", "seq", "parameters", "signature_name")
# A model with more features is wide: by default each row lists only its top features.
WIDE_FROM: Final = 64
WIDE_TOP: Final = 10
# Numbers of matrices that are in memory at one time.
BLOCK_CELLS: Final = 1 << 18
# Numbers that may be computed for each one that a response may hold: `top` cuts the matrices after they are made.
COMPUTED_PER_CELL: Final = 16
# How text counts among numbers: ten characters as one. An entry of `top` has eighty, and those of its feature's name;
# an entry of `experts` has a hundred beside its probabilities.
NUMBER_CHARACTERS: Final = 10
ENTRY_CELLS: Final = 8
EXPERT_CELLS: Final = 10
MATRICES: Final = frozenset(("contributions", "sensitivities"))
# More numbers than these take longer than the event loop should (about 0.2 ms, most of it writing them).
INLINE_CELLS: Final = 4096
NO_CONTRIBUTIONS: Final = (
    "The logits of a network or a mixture are no sums over features, so it has no contributions; ask for sensitivities."
)
# The time of a row before its logits are differentiated, in predictions: at most so many.
FORWARDS: Final = 3


class ExplainBody(NamedTuple):
    """A request to explain.

    Attributes:
        X: B rows in the model's dtype.
        Y: Targets (B, K), or None.
        top: How many features each row lists.
        min_seq: The seq that the request waits for; 0 if none.
        seq: The seq of the state that explains; None for the served one.
        values: Sparse rows as the body has them, each an object or a list of values; their columns are named by these.
    """

    X: Rows
    Y: Doubles | None
    top: int
    min_seq: int = 0
    seq: int | None = None
    values: Sequence[object] = ()


class ExplainParser(ABC):
    """Parses requests to explain one served model; subclasses know the form of its rows.

    Args:
        served: The model.
        settings: The limits.

    Attributes:
        is_linear: Whether the logits are sums over features, which have contributions then.
        inline_rows: How many rows the event loop explains itself.
    """

    is_linear: bool
    inline_rows: int

    def __init__(self, served: ServedModel, settings: Settings) -> None:
        self._served: Final = served
        self._settings: Final = settings
        self._labels: Final = LabelParser(served.classes, multilabel=served.thresholds is not None)
        label = [len(name) for name in served.classes]
        characters = max(label) if served.thresholds is None else sum(label)
        self._row_cells: Final = 2 * served.model.n_logits + served.model.n_classes + characters // NUMBER_CHARACTERS

    @property
    @abstractmethod
    def _default_top(self) -> int:
        """How many features each row lists if the request does not say."""

    @abstractmethod
    def check_outputs(self, rows: int, wanted: Collection[str]) -> None:
        """Check whether so many rows of the outputs with these names can be answered.

        Raises:
            UnacceptableError: The model has no such output.
            TooLargeError: The outputs would have more numbers than the limit.
        """

    @abstractmethod
    def _count_cells(self, parsed: ExplainBody) -> tuple[int, int]:
        """Return how many numbers the response to a request has, and how many are computed for it."""

    def _parse_usual(self, body: bytes) -> ExplainBody | None:
        """Return the request of a body with nothing but rows, or None if unsure."""
        X = self._served.tables.parse_usual(body)
        return None if X is None else ExplainBody(X, None, self._default_top)

    def _list_values(self, _members: dict[str, Any]) -> Sequence[object]:
        """Return the rows as the members of the body have them, if their columns are named by these."""
        return ()

    def parse_explain(self, body: bytes) -> ExplainBody:
        """Parse the body of a request.

        Raises:
            MalformedError: The bytes are not JSON of our grammar.
            UnacceptableError: They are, but this model cannot explain them.
            TooLargeError: There are more rows, or would be more numbers in the response, than the limit.
        """
        tables, n_features = self._served.tables, self._served.model.n_features
        usual = self._parse_usual(body)
        if usual is not None:
            return self._bounded(usual)
        fields = known_fields(tables.parse_document(body, self._settings.rows_max), FIELDS)
        if fields.keys().isdisjoint(FORMS):
            raise UnacceptableError('The body must have "instances": a list of rows.')
        top = fields.get("top", self._default_top)
        if type(top) is not int or top < 1:
            raise UnacceptableError('"top" must be a number of features, a whole number from 1.')
        X = convert_rows(fields, tables)
        Y = self._parse_targets(fields["labels"], count_rows(X)) if "labels" in fields else None
        values = self._list_values(fields)
        return self._bounded(ExplainBody(X, Y, min(top, n_features), *_parse_seqs(fields), values))

    def _bounded(self, parsed: ExplainBody) -> ExplainBody:
        """Return a request whose response is within the limits."""
        self._check_cells(*self._count_cells(parsed))
        return parsed

    def _check_cells(self, cells: int, computed: int) -> None:
        """Raise TooLargeError if so many numbers, or so many computed numbers, pass the limit."""
        cells_max = self._settings.answer_cells_max
        if cells > cells_max:
            raise TooLargeError(
                f"A response may have at most {cells_max} numbers; send fewer rows or ask for fewer features."
            )
        if computed > cells_max * COMPUTED_PER_CELL:
            raise TooLargeError(
                f"A response may need at most {cells_max * COMPUTED_PER_CELL} computed numbers; send fewer rows."
            )

    def _parse_targets(self, labels: object, rows: int) -> Doubles:
        """Return targets (B, K) of labels as in feedback; the sigmoid head has one logit, that of its second class."""
        kind, targets = self._labels.parse_labels(labels, rows)
        if kind == Targets.INDEX:
            classes, targets = targets, np.zeros((rows, self._labels.n_classes))
            targets[np.arange(rows), classes] = 1
        return logit_targets(targets, self._served.manifest.head)


class DenseExplainParser(ExplainParser):
    """Parses requests to explain a model whose rows are dense.

    The event loop explains no row of a heavy model, which it should not even pack, nor of a mixture, one row of which
    takes longer than the event loop should.

    Args:
        served: The model.
        settings: The limits.

    Attributes:
        block_rows: How many rows are explained at a time.
    """

    def __init__(self, served: ServedModel, settings: Settings) -> None:
        super().__init__(served, settings)
        model = served.dense_model
        K, C, N = model.n_logits, model.n_classes, model.n_features
        self._top: Final = N if N <= WIDE_FROM else WIDE_TOP
        self.is_linear = model.is_linear
        self._sizes: Final = {"logits": K, "contributions": K * N if self.is_linear else 0, "sensitivities": C * N}
        self._matrix_cells: Final = self._sizes["contributions"] + self._sizes["sensitivities"]
        with_slopes = self._matrix_cells + K * N  # the slopes of the logits
        hidden = K * sum(layer.outputs for layer in model.layers[:-1])
        inline_rows, expert_cells = min(INLINE_CELLS // self._matrix_cells, served.inline_rows // (FORWARDS + K)), 0
        mixture = uncalibrated_model(model)
        if isinstance(mixture, MixtureModel):
            members, arrays = mixture.experts.guard.size, mixture.experts
            hidden = members * C * N + arrays.features.size
            inline_rows, expert_cells = 0, members * (C + EXPERT_CELLS)
        self._row_computed: Final = with_slopes + hidden
        self._expert_cells: Final = expert_cells
        self.inline_rows = inline_rows
        self.block_rows: Final = max(1, BLOCK_CELLS // with_slopes)
        features = [len(name) for name in served.artifact.column_names]
        self._names_length: Final = max(features), sum(features)

    @property
    def _default_top(self) -> int:
        return self._top

    def check_outputs(self, rows: int, wanted: Collection[str]) -> None:
        """Check whether so many rows of the outputs with these names can be answered; see the base class."""
        if "contributions" in wanted and not self.is_linear:
            raise UnacceptableError(NO_CONTRIBUTIONS)
        computed = self._row_computed if MATRICES.intersection(wanted) else 0
        cells = sum(self._sizes.get(name, self._served.model.n_classes) for name in wanted)
        self._check_cells(rows * cells, rows * computed)

    def _count_cells(self, parsed: ExplainBody) -> tuple[int, int]:
        top, (longest, total) = parsed.top, self._names_length
        per_feature = self._matrix_cells // self._served.model.n_features + (parsed.Y is not None) + ENTRY_CELLS
        names = min(total, longest * top) // NUMBER_CHARACTERS
        cells = self._row_cells + self._expert_cells + top * per_feature + names
        rows = count_rows(parsed.X)
        return rows * cells, rows * self._row_computed


def _parse_seqs(fields: dict[str, Any]) -> tuple[int, int | None]:
    """Return `min_seq`, or 0, and `seq`, or None, of the fields of a body.

    Raises:
        UnacceptableError: A value is not a seq, or both are there.
    """
    if "seq" not in fields:
        return parse_min_seq(fields), None
    if "min_seq" in fields:
        raise UnacceptableError('The body may have one of "min_seq" and "seq", not both.')
    return 0, parse_seq(fields, "seq")
