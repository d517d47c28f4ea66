"""Facts of a shared log are handed on when they change, and not more often than they are looked at."""

from collections.abc import Mapping

from service.errors import LogUnavailableError
from service.learn.followed_facts import LOOK_SECONDS, FollowedFacts
from tests.support.memory_facts import MemoryFacts


class FlakyFacts(MemoryFacts):
    """Facts of a database that comes and goes, with the number of looks."""

    is_lost = False
    looks = 0

    def read_changed(self, known: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
        """See SharedFacts."""
        self.looks += 1
        if self.is_lost:
            raise LogUnavailableError("the database cannot be reached")
        return super().read_changed(known)


def test_each_change_is_handed_on_once() -> None:
    """The first value too; other facts are left alone, and a lost database changes nothing."""
    facts, one, two, now = FlakyFacts(), list[bytes](), list[bytes](), 100.0
    followed = FollowedFacts(facts, {"one": one.append, "two": two.append})

    def look() -> tuple[list[bytes], list[bytes]]:
        nonlocal now
        now += LOOK_SECONDS
        followed.look(now)
        return one, two

    assert look() == ([], [])
    facts.change("one", lambda _: b"a")
    facts.change("other", lambda _: b"x")
    assert look() == look() == ([b"a"], [])
    facts.change("one", lambda _: b"b")
    facts.change("one", lambda _: b"a")
    facts.change("two", lambda _: b"")
    facts.is_lost = True
    assert look() == ([b"a"], [])
    facts.is_lost = False
    assert look() == look() == ([b"a", b"a"], [b""])


def test_looks_have_pauses() -> None:
    facts = FlakyFacts()
    followed = FollowedFacts(facts, {"one": print})
    for step in range(40):
        followed.look(100 + step * LOOK_SECONDS / 4)
    assert facts.looks == 10


def test_a_log_that_is_not_shared_has_no_facts() -> None:
    found: list[bytes] = []
    FollowedFacts(None, {"one": found.append}).look(100)
    assert found == []
