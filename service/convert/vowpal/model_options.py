"""The meaning of the options of a readable model. Those that change predictions in another way are refused by name.

--oaa K                             one binary model for each of K classes, at weights that follow each other
--quadratic ui, --cubic uix,        products of the features of namespaces, known by their first letters
--interactions ui
--noconstant                        there is no bias
--named_labels a,b,  --indexing 0   the names of the classes, or the number of the first one
--link logistic, --probabilities,   how predictions are shown; the probabilities are the same
--scores, --ftrl and its constants  how it was trained
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import ConversionError
from service.record import NAME_CHARACTERS_MAX
from service.store.artifact.reasons import shorten_reason

# Weights of a class follow those of the class before it, so a table has at most so many classes.
MIN_CLASSES, CLASSES_MAX = 2, 1 << 16
OPTION_CHARACTERS_MAX: Final = 64
COUNT: Final = re.compile("[0-9]{1,5}")
INTERACTIONS: Final = {"--quadratic": (2,), "--cubic": (3,), "--interactions": (2, 3)}
# Options without influence on the probabilities of a trained model, and how many words follow each.
TRAINING: Final = {
    **dict.fromkeys(("--probabilities", "--scores", "--ftrl", "--adaptive", "--normalized", "--invariant"), 0),
    **dict.fromkeys(("--sgd", "--bfgs", "--save_resume"), 0),
    **dict.fromkeys(("--ftrl_alpha", "--ftrl_beta", "--power_t", "--learning_rate", "--initial_t", "--l1", "--l2"), 1),
    **dict.fromkeys(("--random_seed", "--oaa_subsample", "--decay_learning_rate", "--passes"), 1),
}
# Options whose only accepted word changes nothing.
USUAL: Final = {"--link": ("logistic", "identity"), "--loss_function": ("logistic",), "--hash": ("strings",)}
USUAL_SEEDS: Final = {"--hash_seed": "0"}
REFUSED: Final = {
    "--hash": "--hash all, which hashes names of digits as texts",
    "--hash_seed": "--hash_seed, which changes all hashes",
    "--loss_function": "a --loss_function that is not logistic",
    "--link": "a --link that is not logistic",
}


@dataclass(frozen=True)
class ModelOptions:
    """The options that predictions need.

    Attributes:
        n_classes: K of `--oaa K`, or 0 for a binary model.
        interactions: The first letters of the namespaces of each interaction.
        has_constant: Whether there is a bias.
        labels: The names of the classes of `--oaa`; empty for a binary model.
    """

    n_classes: int
    interactions: tuple[str, ...]
    has_constant: bool
    labels: tuple[str, ...]

    @property
    def shift(self) -> int:
        """The weights of a feature are 2**shift for all classes, the smallest power of two that has room for them."""
        return max(0, self.n_classes - 1).bit_length()

    @property
    def words(self) -> tuple[str, ...]:
        """The options by which Vowpal Wabbit makes the same features."""
        oaa = ("--oaa", str(self.n_classes), "--scores") if self.n_classes else ()
        crosses = [word for letters in self.interactions for word in ("--interactions", letters)]
        return (*oaa, *crosses, *(() if self.has_constant else ("--noconstant",)))


def parse_options(words: Sequence[str]) -> ModelOptions:
    """Return the meaning of the options of a model.

    Raises:
        ConversionError: An option changes predictions in a way that Softstep does not know, or its words are wrong.
    """
    interactions: list[str] = []
    single: dict[str, str] = {}
    has_constant = True
    for name, values in split_options(words):
        if name in INTERACTIONS:
            interactions += [check_letters(name, letters) for letters in values]
        elif name in {"--oaa", "--named_labels", "--indexing"} and len(values) == 1:
            single[name] = values[0]
        elif name == "--noconstant" and not values:
            has_constant = False
        elif not is_harmless(name, values):
            raise ConversionError(f"the model uses {REFUSED.get(name) or show_option(name)}, and Softstep does not")
    if len({"".join(sorted(letters)) for letters in interactions}) < len(interactions):
        raise ConversionError("the model has two interactions of the same namespaces")
    labels = list_labels(single)
    return ModelOptions(len(labels), tuple(interactions), has_constant, labels)


def list_labels(options: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the classes of `--oaa`; none of a binary model."""
    if "--oaa" not in options:
        return ()
    count, first = options["--oaa"], options.get("--indexing", "1")
    if not COUNT.fullmatch(count) or not MIN_CLASSES <= int(count) <= CLASSES_MAX:
        raise ConversionError(f"--oaa of the model must have from {MIN_CLASSES} to {CLASSES_MAX} classes")
    if first not in {"0", "1"}:
        raise ConversionError("--indexing of the model must be 0 or 1")
    named = options.get("--named_labels")
    labels = named.split(",") if named else [str(int(first) + k) for k in range(int(count))]
    if len(labels) != int(count) or len(set(labels)) < int(count) or not all(map(is_name, labels)):
        raise ConversionError("the model must have one name of its own for each class of --oaa")
    return tuple(labels)


def split_options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option with the words that follow it."""
    name, values = "", list[str]()
    for word in words:
        if word.startswith("--"):
            if name:
                yield name, values
            name, equals, value = word.partition("=")
            values = [value] if equals else []
        elif name:
            values.append(word)
        else:
            raise ConversionError("the options of the model must begin with --")
    if name:
        yield name, values


def show_option(name: str) -> str:
    """Return the name of an option for a sentence."""
    return shorten_reason(name[:OPTION_CHARACTERS_MAX])


def is_harmless(name: str, values: Sequence[str]) -> bool:
    """Return whether an option changes no probability."""
    if name in USUAL:
        return len(values) == 1 and values[0] in USUAL[name]
    if name in USUAL_SEEDS:
        return list(values) == [USUAL_SEEDS[name]]
    return TRAINING.get(name) == len(values)


def check_letters(name: str, letters: str) -> str:
    """Return the letters of an interaction.

    Raises:
        ConversionError: They are not two or three different ASCII letters or digits.
    """
    if len(letters) not in INTERACTIONS[name]:
        raise ConversionError(f"{name} of the model must have {' or '.join(map(str, INTERACTIONS[name]))} letters")
    if len(set(letters)) < len(letters):
        raise ConversionError(f"{name} of the model crosses a namespace with itself, and Softstep does not")
    if not (letters.isascii() and letters.isalnum()):
        raise ConversionError(f"{name} of the model must have letters or digits, and no wildcard")
    return letters


def is_name(label: str) -> bool:
    """Return whether a label can be the name of a class."""
    return 0 < len(label) <= NAME_CHARACTERS_MAX
