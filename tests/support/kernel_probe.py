"""Hash all results of the arithmetic, and count vector registers, for the processor of this process.

    python -m tests.support.kernel_probe

prints {"target": ..., "digests": {name: sha256}, "registers": {name: count}} as JSON. The inputs come from the bytes of
a hash function, so they are the same with every release of NumPy and on every processor.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numba
import numpy as np

from service.compiler import TARGET
from service.fields.object_plan import ObjectPlan
from service.softmax import derivatives
from service.softmax.calibration import KINDS, CalibratedModel, Calibration
from service.softmax.calibration_learner import CalibrationLearner
from service.softmax.explainer_factory import create_explainer
from service.softmax.fitting import fit
from service.softmax.input_stage import Stage
from service.softmax.kernels.activations import activation_forward
from service.softmax.kernels.answer_counts import count_answers, count_details
from service.softmax.kernels.cosine import cos_forward
from service.softmax.kernels.exp_log import exp_forward, log1p_forward, log_forward
from service.softmax.kernels.heads import predict_forward
from service.softmax.kernels.logarithm import log_lanes_forward
from service.softmax.kernels.network import ACTIVATIONS, LayerArrays
from service.softmax.kernels.random_features import draw_features
from service.softmax.linear_learner import LinearLearner
from service.softmax.linear_model import LinearModel
from service.softmax.network_learner import NETWORK_RULES, NetworkLearner
from service.softmax.parameters import LinearParameters, NetworkParameters
from service.softmax.row_blocks import MemoryBlocks
from service.softmax.scores import FORMS as FORMS_OF_SCORES
from service.softmax.scores import compute_score_forms
from service.softmax.sparse_explainer import SparseExplainer
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights
from tests.support.field_artifacts import SPARSE_FIELDS, field_artifact
from tests.support.folds import FORMS, RULES
from tests.support.mixtures import MixtureState
from tests.support.networks import RULES as NETWORK
from tests.support.reference import DTYPES, HEADS, Array
from tests.support.sparse_models import SPARSE_RULES, rows_of_matrix
from tests.support.unicode_texts import make_texts

# (B, N, K): one vector and several, every panel width, more rows than a block, and shapes that fill no tile. They are
# small, because without fused multiply-add in hardware each operation is a call.
SHAPES = ((1, 4, 3), (5, 30, 2), (17, 64, 10), (70, 9, 16), (9, 5, 33), (67, 20, 49), (3, 97, 97), (130, 3, 8))
# The hidden layers of networks: one, several, and widths of every number of vectors.
HIDDEN = ((7,), (17, 33), (50, 8, 3))
Dtypes = Sequence[type[np.floating]]
REGISTERS = ("zmm", "ymm", "xmm", "vfmadd")


def numbers(name: str, dtype: type[np.floating], *shape: int, step: float = 2.0**-12) -> Array:
    """Return multiples of `step` within 2**15 steps of 0, selected by a hash of the name."""
    data = hashlib.shake_128(name.encode()).digest(2 * math.prod(shape))
    return (np.frombuffer(data, "<i2").reshape(shape) * step).astype(dtype)


def build_linear_model(head: str, dtype: type[np.floating], N: int, K: int, *, staged: bool) -> LinearModel:
    """Return a model of deterministic weights; with a stage its features have other units."""
    columns = 1 if head == "sigmoid" else K
    weights, bias = numbers(f"W {N} {K}", dtype, N, columns), numbers(f"b {N} {K}", dtype, columns)
    if not staged:
        return LinearModel(head, weights, bias)
    mean, scale = numbers(f"mean {N}", np.float64, N), np.abs(numbers(f"scale {N}", np.float64, N)) + 0.3
    return LinearModel(head, weights, bias, Stage(mean, scale, 4.5))


def build_rows(dtype: type[np.floating], B: int, N: int) -> Array:
    """Return rows (B, N) of ordinary values; every fifth is so small that denormals occur, every seventh large."""
    X = numbers(f"X {B} {N}", dtype, B, N, step=2.0**-13)
    X[::5] *= dtype(2.0**-130)
    X[3::7] *= dtype(16)
    return X


def all_results(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield all results under the name of the kernel that computes them."""
    for dtype in dtypes:
        x = numbers("exp", dtype, 1, 40_001, step=2.0**-8)
        out = np.empty_like(x)
        exp_forward(-np.abs(x), out)
        yield "exp", out
        for head in HEADS:
            for B, N, K in SHAPES:
                for staged in (False, True):
                    model, X = build_linear_model(head, dtype, N, K, staged=staged), build_rows(dtype, B, N)
                    P, labels = model.classify(X)
                    yield "predictions", P
                    yield "labels", np.array(labels, np.int64)
                    yield "log-probabilities", model.log_probabilities(X)
                    Y = np.abs(numbers(f"Y {B} {K}", np.float64, B, model.n_logits, step=2.0**-15))
                    for name, value in zip(("dW", "db", "dX", "losses"), model.gradients(X, Y), strict=False):
                        yield "losses" if name == "losses" else "gradients", value
    for head in HEADS if np.float64 in dtypes else ():  # these rows are computed in float64
        X = build_rows(np.float32, 40, 5)
        X[::6, 2] = 3e38
        yield "overflowed rows", build_linear_model(head, np.float32, 5, 20, staged=False).predict(X)
    x = np.abs(numbers("log", np.float64, 20_000, step=2.0**-10)) + 2.0**-20
    for kernel, values in ((log_forward, x), (log1p_forward, x / 32)):
        out = np.empty_like(values)
        kernel(values, out)
        yield "logarithms", out


def folds(kind: str, regret: float, dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield losses, states and predictions of linear learners, for every head, rule and form."""
    for case, (dtype, head, name, form) in enumerate(itertools.product(dtypes, HEADS, RULES, FORMS)):
        B, N, K = 12, (3, 9, 20)[case % 3], 1 if head == "sigmoid" else (3, 17, 50, 8)[case % 4]
        weights = numbers(f"W {N} {K}", dtype, N, K) * (form != "running")
        mean, scale = numbers(f"mean {N}", np.float64, N), np.abs(numbers(f"scale {N}", np.float64, N)) + 0.3
        start = LinearParameters(head, weights, numbers(f"b {N} {K}", dtype, K))  # type: ignore[arg-type]  # a head's name
        learned = Stage(mean, scale) if form == "delta" else None
        rule = replace(RULES[name], regret=regret)
        learner = LinearLearner(start, form, rule, np.full(K, 0.5), learned)
        X, Y = build_rows(dtype, B, N), np.abs(numbers(f"Y {B} {K}", np.float64, B, K, step=2.0**-15))
        h = np.abs(numbers(f"h {B}", np.float64, B)) + 0.1
        yield kind, learner.fold(X, Y=Y, weights=h)
        if head != "sigmoid":
            learner.add_classes(1)
        for _, tensor in sorted(learner.tensors().items()):
            yield kind, tensor
        served = learner.parameters()
        for array in served.arrays().values():
            yield kind, array
        yield kind, served.build_model().predict(X)
        yield kind, served.build_model().gradients(X, np.zeros((B, served.bias.size))).dD


def build_network(head: str, dtype: type[np.floating], sizes: tuple[int, ...], *, staged: bool) -> NetworkParameters:
    """Return a network of deterministic weights, with every activation in turn."""
    shapes = list(itertools.pairwise(sizes))
    affine = [
        (numbers(f"W {n} {a} {b}", dtype, a, b), numbers(f"b {n} {b}", dtype, b)) for n, (a, b) in enumerate(shapes)
    ]
    names = itertools.cycle(ACTIVATIONS)
    hidden = tuple(LayerArrays(W / dtype(4), b, name) for (W, b), name in zip(affine[:-1], names, strict=False))
    stage = Stage(np.full(sizes[0], 0.25), np.full(sizes[0], 3.0), 4.5) if staged else None
    return NetworkParameters(head, hidden, *affine[-1], stage)  # type: ignore[arg-type]  # a head's name


def networks(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield predictions, gradients and learned states of networks, for every head, rule, depth and activation."""
    for dtype in dtypes:
        Z, A = numbers("activations", dtype, 3, 1600, step=2.0**-11), np.empty((3, 1600), dtype)
        for code in ACTIVATIONS.values():
            activation_forward(Z, code, A)
            yield "networks", A
    for case, (dtype, head, name, hidden) in enumerate(itertools.product(dtypes, HEADS, NETWORK_RULES, HIDDEN)):
        B, N, K = (1, 12, 70)[case % 3], (3, 9, 20)[case % 3], 1 if head == "sigmoid" else (3, 17, 50, 8)[case % 4]
        served = build_network(head, dtype, (N, *hidden, K), staged=case % 2 == 0)
        X, Y = build_rows(dtype, B, N), np.abs(numbers(f"Y {B} {K}", np.float64, B, K, step=2.0**-15))
        found = served.build_model().gradients(X, Y)
        yield from (("networks", value) for layer in found.layers for value in layer)
        yield from (("networks", value) for value in (found.dX, found.losses, served.build_model().predict(X)))
        learner = NetworkLearner(served, NETWORK[name], np.full(K, 0.5))
        yield "networks", learner.fold(X[:12].copy(), Y=Y[:12])
        yield from (("networks", tensor) for _, tensor in sorted(learner.tensors().items()))
        P, V = derivatives.softmax(X, 1.5), numbers(f"V {B} {N}", dtype, B, N)
        yield "derivatives", P
        yield "derivatives", derivatives.softmax_jacobian(P)
        yield "derivatives", derivatives.softmax_product(P, V)
        yield "derivatives", derivatives.log_softmax_backward(P, V)


def explanations(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield explanations of models and networks for every head, and scores in all forms."""
    for case, (dtype, head) in enumerate(itertools.product(dtypes, HEADS)):
        for B, N, K in SHAPES[case % 2 :: 2]:
            X, columns = build_rows(dtype, B, N), 1 if head == "sigmoid" else K
            Y = np.abs(numbers(f"Y {B} {columns}", np.float64, B, columns, step=2.0**-15))
            deep = build_network(head, dtype, (N, *HIDDEN[case % 3], columns), staged=case % 2 == 0)
            for model in (build_linear_model(head, dtype, N, K, staged=case % 2 == 1), deep.build_model()):
                found = create_explainer(model).explain(X, Y)
                whole = (found.logits, found.contributions, found.sensitivities, found.losses, found.loss_gradients)
                yield from (("explanations", array) for array in whole if array is not None)
    for T, sigmoid in ((1.0, False), (1.5, False), (0.5, True)):
        first = compute_score_forms("logits", numbers("scores", np.float64, 9, 7), sigmoid=sigmoid, temperature=T)
        for form in FORMS_OF_SCORES:
            again = compute_score_forms(form, first[form], sigmoid=sigmoid, temperature=T)
            yield from (("explanations", array) for array in again.values())


def calibrations(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield predictions of calibrated models, and learned calibrations, for both heads that have one."""
    for case, (dtype, head) in enumerate(itertools.product(dtypes, KINDS)):
        first = Calibration("temperature", (1.3,)) if head == "softmax" else Calibration("platt", (0.7, 0.4))
        for B, N, K in SHAPES:
            model, X = (
                CalibratedModel(build_linear_model(head, dtype, N, K, staged=case % 2 == 0), first),
                build_rows(dtype, B, N),
            )
            Y = np.abs(numbers(f"Y {B} {K}", np.float64, B, model.n_logits, step=2.0**-15))
            P, labels = model.classify(X)
            calibrator = CalibrationLearner(head, first, learn=True)
            Z = numbers(f"Z {B} {K}", dtype, B, model.n_logits)
            losses = calibrator.fold(Z, np.zeros(B), None, Y, np.abs(numbers(f"h {B}", np.float64, B)), learning=True)
            found = (P, np.array(labels, np.int64), model.logits(X), model.losses(X, Y), losses)
            yield from (("calibrations", value) for value in (*found, *calibrator.tensors().values()))


def calibrated_explanations(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield explanations of calibrated models, linear ones and networks."""
    for case, (dtype, head) in enumerate(itertools.product(dtypes, KINDS)):
        first = Calibration("temperature", (1.3,)) if head == "softmax" else Calibration("platt", (0.7, 0.4))
        for B, N, K in SHAPES[case % 2 :: 2]:
            X, columns = build_rows(dtype, B, N), 1 if head == "sigmoid" else K
            Y = np.abs(numbers(f"Y {B} {columns}", np.float64, B, columns, step=2.0**-15))
            deep = build_network(head, dtype, (N, *HIDDEN[case % 3], columns), staged=case % 2 == 0)
            for model in (build_linear_model(head, dtype, N, K, staged=case % 2 == 1), deep.build_model()):
                found = create_explainer(CalibratedModel(model, first)).explain(X, Y)
                whole = (found.logits, found.sensitivities, found.losses, found.loss_gradients)
                yield from (("calibrated explanations", array) for array in whole if array is not None)


def random_numbers(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield cosines, logarithms, and the random features that are drawn with them."""
    for dtype in dtypes:
        x = numbers("cos", dtype, 1, 10_001, step=2.0**-6)
        for name, kernel, values in (
            ("cosines", cos_forward, x),
            ("logarithms in lanes", log_lanes_forward, np.abs(x) + dtype(2.0**-20)),
        ):
            out = np.empty_like(values)
            kernel(values, out)
            yield name, out
        for N, M, narrow in ((1, 64, True), (5, 64, True), (40, 128, True), (130, 64, False)):
            features = draw_features(N, N, M, narrow=narrow, dtype=dtype)
            yield from (("random features", array) for array in features)


def histories(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield losses of labels, and counts of the answers in buckets of events."""
    for dtype, head, (B, N, K) in itertools.product(dtypes, ("softmax", "sigmoid"), SHAPES):
        model, X = build_linear_model(head, dtype, N, K, staged=False), build_rows(dtype, B, N)
        C, seqs = model.n_classes, 1 + np.arange(B) // 3
        labels, outcomes = np.arange(B) % C, np.abs(numbers(f"outcomes {B}", np.float64, 6, B, step=2.0**-15))
        outcomes[1::4] = outcomes[1::4] > 0.5  # hits are 0 or 1
        losses, answers = model.label_losses(X, labels)
        sums, wanted, found = np.zeros((48, 8)), np.zeros((48, C), np.uint32), np.zeros((48, C), np.uint32)
        count_answers(0, B, seqs, 1, 0, outcomes, labels, np.arange(C), sums, wanted, found)
        calibration, confusion, drift = np.zeros((48, 10, 3)), np.zeros((48, C, C), np.uint32), np.zeros((48, N))
        stage = np.stack([numbers(f"mean {N}", np.float64, N), np.abs(numbers(f"scale {N}", np.float64, N))])
        details = calibration, confusion, drift
        count_details(0, B, seqs, 1, 0, outcomes, labels, answers, np.arange(C), X, stage, *details)
        yield from (("histories", array) for array in (losses, answers, sums, wanted, found, *details))


def mixtures(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield scores, states and predictions of mixtures of experts, narrow and wide, with and without an offset."""
    cases = ((1, 5, False, 1), (10, 40, False, 2), (17, 130, True, 1), (3, 1, False, 1), (2, 9, True, 2))
    for dtype, (K, N, wide, heads) in itertools.product(dtypes, cases):
        X, Y = build_rows(dtype, 20, N), np.abs(numbers(f"Y 20 {K}", np.float64, 20, K, step=2.0**-15))
        h = np.abs(numbers("h 20", np.float64, 20)) + 0.1
        offsets = numbers(f"offsets 67 {K}", dtype, 67, K) if heads > 1 else None
        state = MixtureState(N, K, wide=wide, heads=heads, dtype=dtype)
        first = None if offsets is None else offsets[:20]
        yield from (("mixtures", array) for array in state.fold(X, Y=Y, weights=h, offsets=first))
        yield from (("mixtures", array) for array in state.learned())
        rows = build_rows(dtype, 67, N)
        yield "mixtures", state.logits(rows, offsets)
        yield from (("mixtures", array) for array in state.predict(rows, offsets)[:2])
        if dtype == np.float32:
            yield "mixture blocks", state.predict_block(rows, offsets)


def mixture_explanations(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield explanations of mixtures of experts, narrow and wide, with and without an offset."""
    cases = ((1, 5, False, 2), (10, 40, False, 1), (17, 130, True, 2), (3, 1, False, 1))
    for dtype, (K, N, wide, heads) in itertools.product(dtypes, cases):
        X, Y = build_rows(dtype, 20, N), np.abs(numbers(f"Y 20 {K}", np.float64, 20, K, step=2.0**-15))
        offset = None
        if heads > 1:
            offset = build_linear_model("sigmoid" if K == 1 else "softmax", dtype, N, K, staged=True)
        state = MixtureState(N, K, wide=wide, heads=heads, dtype=dtype)
        state.fold(X, Y=Y, offsets=None if offset is None else offset.logits(X))
        found = create_explainer(state.model(offset)).explain(X, Y)
        whole = (found.logits, found.sensitivities, found.losses, found.loss_gradients, found.experts)
        yield from (("explanations of mixtures", array) for array in whole if array is not None)


def build_sparse_rows(dtype: type[np.floating], B: int, N: int) -> SparseRows:
    """Return the rows of `build_rows` with a third of their columns."""
    return rows_of_matrix(build_rows(dtype, B, N) * (numbers(f"present {B} {N}", np.float64, B, N) > 2.5).astype(dtype))


def build_sparse_weights(N: int, K: int) -> SparseWeights:
    """Return deterministic weights, of which every third row has changed."""
    single, columns = np.float32, np.arange(0, N, 3, dtype=np.int32)
    weights = SparseWeights.from_matrix(numbers(f"W {N} {K}", single, N, K), numbers(f"b {N} {K}", single, K))
    return weights.with_changes(
        columns, numbers(f"D {N} {K}", single, len(columns), K), numbers(f"d {N} {K}", single, K)
    )


def sparse_answers(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield answers, losses and explanations of sparse models, for every head and width."""
    for case, (dtype, head) in enumerate(itertools.product(dtypes, HEADS)):
        for B, N, K in (*SHAPES[case % 2 :: 2], (9, 12, 1), (9, 12, 2), (9, 12, 4), (9, 12, 7)):
            columns = 1 if head == "sigmoid" else K
            weights, rows = build_sparse_weights(N, columns), build_sparse_rows(dtype, B, N)
            model = SparseModel(head, weights, None, np.dtype(dtype))  # type: ignore[arg-type]  # a head's name
            Y = np.abs(numbers(f"Y {B} {columns}", np.float64, B, columns, step=2.0**-15))
            P, labels = model.classify(rows)
            explained = SparseExplainer(model).explain(rows, Y)
            found = (P, np.array(labels, np.int64), model.logits(rows), model.losses(rows, Y), *explained[5:9])
            yield from (("sparse answers", array) for array in found)


def sparse_folds(_: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield losses and states of sparse learners, for every head, rule and width, with and without a limited regret."""
    for case, (head, name, regret) in enumerate(itertools.product(HEADS, SPARSE_RULES, (0.0, 0.5))):
        B, N, K = 12, (3, 9, 20)[case % 3], 1 if head == "sigmoid" else (2, 3, 17, 50, 8, 10)[case % 6]
        start = SparseParameters(head, build_sparse_weights(N, K))  # type: ignore[arg-type]  # a head's name
        first = np.abs(numbers(f"first {N}", np.float64, N + 1)) if case % 2 else None
        learner = SparseLearner(start, replace(SPARSE_RULES[name], regret=regret), np.full(K, 0.5), first)
        Y, h = np.abs(numbers(f"Y {B} {K}", np.float64, B, K, step=2.0**-15)), np.abs(numbers("h 12", np.float64, B))
        yield "sparse folds", learner.fold(build_sparse_rows(np.float32, B, N), Y=Y, weights=h + 0.1)
        if head != "sigmoid":
            learner.add_classes(1)
        yield from (("sparse folds", tensor) for _, tensor in sorted(learner.tensors().items()))
        yield from (("sparse folds", tensor) for tensor in learner.parameters().tensors())


def encodings(dtypes: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield encoded rows of every kind of field: as objects, as columns, in one pass, and as rows of models.

    The pass over the text of a row takes a fifth of the time to compile, and its arithmetic is that of the others. So
    it is left out unless all dtypes are asked for.
    """
    encoder = field_artifact(SPARSE_FIELDS).row_encoder
    assert encoder is not None
    texts, plan = make_texts(1000, 7), ObjectPlan(encoder)
    rows = [build_object(n, texts[n::200]) for n in range(200)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    found = [encoder.encode_objects(rows), encoder.encode_columns(columns)]
    is_whole = dtypes == DTYPES
    for row in rows if is_whole else ():
        encoded = plan.encode(json.dumps([row], ensure_ascii=False).encode(), 0)
        found += [] if encoded is None else [encoded]
    assert not is_whole or len(found) > len(rows) // 8  # the others are not usual
    for one in found:
        yield from (("encodings", array) for array in (*one.rows, one.missing, one.unknown))
        yield from (("encodings", array) for array in encoder.to_model_rows(one.rows, np.float32))


def build_object(n: int, texts: Sequence[str]) -> dict[str, object]:
    """Return a row with a value of every kind of field, some missing and some unknown; every other one is usual."""
    if n % 2:
        texts = ["".join(one for one in text if one.isascii() and (one.isalnum() or one == " ")) for text in texts]
    return {
        "age": None if n % 7 == 0 else n * 1.5 - 40,
        "member": (True, False, None)[n % 3],
        "country": ("DE", "PT", 7, True, "FR", None)[n % 6],
        "subject": f"{texts[0]} late refund",
        "basket": {"milk": n / 8, texts[1][:9]: -2.5},
        "picture": [n / 4, -1.0, n / 3 if n % 4 else 2.5],
        "city": texts[2][:5],
        "body": texts[3],
        "tags": [texts[4][:3], "17", f"tag {n % 5}"],
    }


def fits(_: Dtypes) -> Iterator[tuple[str, Array]]:
    """Yield fits of linear models and networks, for every head that can be trained, to dense and to sparse rows."""
    activations = itertools.cycle(ACTIVATIONS)
    for head, (B, N, K) in itertools.product(
        ("softmax", "sigmoid", "multilabel"), ((70, 9, 3), (67, 20, 10), (9, 3, 2))
    ):
        C = 2 if head == "sigmoid" else K
        labels = numbers(f"labels {B} {K}", np.float64, B, K) > 0 if head == "multilabel" else np.arange(B) % 5 % C
        X, weights = build_rows(np.float32, B, N), np.abs(numbers(f"h {B}", np.float64, B)) + 0.1
        dense = MemoryBlocks(X, labels, weights)
        sparse = MemoryBlocks(build_sparse_rows(np.float32, B, N), labels, weights, N)
        for found in (
            fit(dense, head, C, iterations_max=9),  # type: ignore[arg-type]  # a head's name
            fit(sparse, head, C, iterations_max=9),  # type: ignore[arg-type]
            fit(dense, head, C, hidden=(5, 4), activation=next(activations), iterations_max=9),  # type: ignore[arg-type]
        ):
            layers = (array for layer in found.hidden for array in (layer.weights, layer.bias))
            whole = (*layers, found.weights, found.bias, np.array([found.objective, found.loss, found.gradient]))
            yield from (("fits", array) for array in whole)


def digests(dtypes: Dtypes = DTYPES) -> dict[str, str]:
    """Return the sha256 of each kind of result, over shapes, dtypes and little-endian bytes."""
    # hashlib has no public name for the type of its hashes.
    hashes: dict[str, hashlib._Hash] = {}
    learned = folds("folds", 0.0, dtypes), folds("folds with a limit of the regret", 0.5, dtypes)
    others = (
        networks,
        explanations,
        calibrations,
        calibrated_explanations,
        random_numbers,
        mixtures,
        mixture_explanations,
        histories,
        sparse_answers,
        sparse_folds,
        encodings,
        fits,
    )
    kinds = all_results(dtypes), *learned, *(kind(dtypes) for kind in others)
    for name, value in itertools.chain(*kinds):
        little = value.astype(value.dtype.newbyteorder("<"))
        head = f"{value.dtype.kind}{value.dtype.itemsize} {value.shape}"
        digest = hashes.setdefault(name, hashlib.sha256())
        digest.update(head.encode())
        digest.update(little.tobytes())
    return {name: digest.hexdigest() for name, digest in sorted(hashes.items())}


def registers() -> dict[str, int]:
    """Count vector registers and fused multiply-adds in the code of the predict kernel.

    Code from the cache cannot be inspected, so the kernel is compiled again here.
    """
    source = predict_forward
    fresh = numba.njit([source.signatures[0]], nogil=True, error_model="numpy")(source.py_func)
    code = fresh.inspect_asm(fresh.signatures[0])
    return {name: code.count(name) for name in REGISTERS}


if __name__ == "__main__":
    print(json.dumps({"target": TARGET, "digests": digests(), "registers": registers()}))  # noqa: T201
