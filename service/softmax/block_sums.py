"""Sums over blocks of rows by several threads, with the same bits for any number of threads.

The blocks are divided into segments of neighbors. A segment adds its rows in order to sums of its own, and segments are
added in order. How many there are depends on the number of blocks and parameters, not on the threads.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.classifier import Head
from service.softmax.row_blocks import BlockLabels, RowBlock, RowBlocks

# More threads than segments have nothing to do, and each segment has sums of its own.
SEGMENTS_MAX: Final = 16
# Numbers in the sums of all segments, 256 MiB; two segments are allowed anyway.
SEGMENT_NUMBERS_MAX: Final = 2**25
SEGMENTS_MIN: Final = 2

NO_LABELS: Final = np.empty(0, np.int32)
NO_TARGETS: Final = np.empty((0, 0), np.uint8)


class LabelSums(NamedTuple):
    """The sums that an objective needs of labels and weights.

    Attributes:
        weight: The sum of all weights.
        classes: (C,), the weight of the rows of each class; for multilabel, of the rows that have label 1.
    """

    weight: float
    classes: Doubles


def count_segments(n_blocks: int, n_parameters: int) -> int:
    """Return the number of segments."""
    return min(n_blocks, SEGMENTS_MAX, max(SEGMENTS_MIN, SEGMENT_NUMBERS_MAX // n_parameters))


def sum_blocks(
    blocks: RowBlocks,
    n_parameters: int,
    add_block: Callable[[RowBlock, Doubles], float],
    pool: ThreadPoolExecutor | None = None,
) -> tuple[float, Doubles]:
    """Return the sum of losses, and sums (n_parameters,) over all blocks.

    Args:
        blocks: The rows.
        n_parameters: The number of sums.
        add_block: Adds a block to sums (n_parameters,), and returns its loss.
        pool: The threads, or None for the caller's.
    """
    count = count_segments(blocks.n_blocks, n_parameters)

    def add_segment(number: int) -> tuple[float, Doubles]:
        loss, sums = 0.0, np.zeros(n_parameters)
        for i in range(number * blocks.n_blocks // count, (number + 1) * blocks.n_blocks // count):
            loss += add_block(blocks.read_block(i), sums)
        return loss, sums

    segments: Iterable[tuple[float, Doubles]] = (pool.map if pool else map)(add_segment, range(count))
    loss, sums = 0.0, np.zeros(n_parameters)
    for part_loss, part_sums in segments:
        loss += part_loss
        sums += part_sums
    return loss, sums


def sum_labels(blocks: RowBlocks, head: Head, n_classes: int) -> LabelSums:
    """Return the sums of weights, and check all labels and weights.

    Raises:
        ValueError: A label is out of range or has another shape, a weight is negative or not finite, or all are 0.
    """
    classes, weight = np.zeros(n_classes), 0.0
    for i in range(blocks.n_blocks):
        _, labels, weights = blocks.read_block(i)
        several = head == "multilabel"
        if labels.shape != ((len(weights), n_classes) if several else (len(weights),)):
            raise ValueError("labels must be (b,) numbers of classes, or (b, K) for a multilabel head")
        if labels.min() < 0 or labels.max() >= (2 if several else n_classes):
            raise ValueError("a label is out of range")
        if not (np.isfinite(weights).all() and weights.min() >= 0):
            raise ValueError("weights must be finite and at least 0")
        if several:
            classes += np.add.reduce(labels * weights[:, None], axis=0)
        else:
            classes += np.bincount(labels, weights, n_classes)
        weight += float(np.cumsum(weights)[-1])  # in order; NumPy's sum depends on the processor
    if not 0 < weight < np.inf:
        raise ValueError("the sum of all weights must be positive and finite")
    return LabelSums(weight, classes)


def kernel_labels(block: RowBlock) -> tuple[BlockLabels, BlockLabels]:
    """Return the labels and the targets of a block as kernels take them."""
    labels = block.labels
    return (NO_LABELS, labels) if labels.ndim == 2 else (labels, NO_TARGETS)  # noqa: PLR2004  # a matrix
