"""How many examples property tests try: a part of them in `make test`, and all of them in `make properties`."""

from hypothesis import settings

# The profile of hypothesis that `make properties` chooses; tests/conftest.py registers it.
THOROUGH = "thorough"


def examples(count: int) -> int:
    """Return a quarter of a number of examples, or all of them in the thorough profile."""
    return count if settings.get_current_profile_name() == THOROUGH else count // 4
