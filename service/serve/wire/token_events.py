"""Turn posted tokens and their labels into events, whichever of a model's versions issued them.

A token of format 2 names its version. One of format 1 does not, so the served versions are tried, beginning with the
one that opened the last such token.

A token that cannot be opened refuses itself alone. A label or weight that is not valid refuses all tokens; the label of
a token that cannot be opened is not looked at, because the classes that it may name are unknown.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from service.errors import (
    ExpiredTokenError,
    InvalidTokenError,
    OtherVersionTokenError,
    SoftstepError,
    TooLargeError,
    VersionNotServedError,
)
from service.serve.wire.feedback_body import FeedbackParser, PostedEvent, PostedTokens
from service.serve.wire.feedback_tokens import INVALID_MESSAGE, TokenCipher, decode_token, issuer_of
from service.softmax.sparse_rows import Rows

# Failed attempts to open tokens of format 1 in one request, each some 4 us, so together about half a second. Forged
# tokens cost as many as versions are served; genuine ones of two versions never need more.
ATTEMPTS_MAX: Final = 131_072

# These follow the token and its number, as the messages of feedback_tokens.py do.
OTHER_VERSION_MESSAGE: Final = (
    "was issued by another version than the path names; post it to the model without a version."
)
NOT_SERVED_MESSAGE: Final = (
    "was issued by a version of the model that is not served; load that version, or post the row itself with its label."
)
ATTEMPTS_MESSAGE: Final = "There are too many tokens of an earlier release; send several requests."


class TokenIssuer(NamedTuple):
    """A served version that issues tokens.

    Attributes:
        sealer: Opens its tokens.
        parser: Parses feedback for it, with its current classes.
    """

    sealer: TokenCipher
    parser: FeedbackParser


class TokenEvent(NamedTuple):
    """The event that a token becomes, and the version that issued the token."""

    version: int
    event: PostedEvent


class TokenReader:
    """Reads the tokens of one request.

    Args:
        issuers: The served versions of the model.
        version: The version that the path names, or None if it names none.
    """

    def __init__(self, issuers: Mapping[int, TokenIssuer], version: int | None) -> None:
        self._issuers: Final = issuers
        self._version: Final = version
        self._order = sorted(issuers, reverse=True)
        self._attempts = 0

    def read_tokens(
        self, posted: PostedTokens, first: int = 0, stop: int | None = None
    ) -> list[TokenEvent | SoftstepError]:
        """Return for each token from `first` to before `stop` its event, or the error for which it alone is refused.

        Raises:
            UnacceptableError: A label or a weight is not valid.
            TooLargeError: There are too many tokens of format 1 that several versions may have issued.
        """
        return [self._read_token(number, posted) for number in range(len(posted.tokens))[first:stop]]

    def _read_token(self, number: int, posted: PostedTokens) -> TokenEvent | SoftstepError:
        try:
            version, (id_, X) = self._open_token(posted.tokens[number])
            if self._version not in {None, version}:
                raise OtherVersionTokenError(OTHER_VERSION_MESSAGE)
        except (InvalidTokenError, VersionNotServedError) as reason:
            return type(reason)(f"Token {number} {reason}")
        return TokenEvent(version, self._issuers[version].parser.make_token_event(id_, X, posted, number))

    def _open_token(self, text: str) -> tuple[int, tuple[bytes, Rows]]:
        """Return the version that issued a token, and the id and the row of its event."""
        token = decode_token(text)
        version = issuer_of(token)
        if version is None:
            return self._try_versions(token)
        issuer = self._issuers.get(version)
        if issuer is None:
            raise VersionNotServedError(NOT_SERVED_MESSAGE)
        return version, issuer.sealer.open_token(token)

    def _try_versions(self, token: bytes) -> tuple[int, tuple[bytes, Rows]]:
        """Open a token that does not name its version."""
        order = self._order
        for place, version in enumerate(order):
            try:
                opened = self._issuers[version].sealer.open_token(token)
            except ExpiredTokenError:  # only the version that issued a token notices that
                raise
            except InvalidTokenError:
                self._attempts += 1
                if self._attempts > ATTEMPTS_MAX:
                    raise TooLargeError(ATTEMPTS_MESSAGE) from None
            else:
                order.insert(0, order.pop(place))
                return version, opened
        raise InvalidTokenError(INVALID_MESSAGE)
