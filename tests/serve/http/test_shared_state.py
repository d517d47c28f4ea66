"""What the connections of a worker share."""

import asyncio

from service.serve.http.shared_state import CHECKED_PER_TURN, CLOSED_PER_TURN, SharedState
from tests.support.server_pair import Pair

TURNS_MAX = 10_000


class Client:
    """A connection whose time is over, or is not.

    Args:
        closed: The turns in which such connections were closed.
        turns: The number of turns so far.
        is_over: Whether its time is over.
    """

    def __init__(self, closed: list[int], turns: list[int], *, is_over: bool) -> None:
        self.closed, self.turns, self.is_over = closed, turns, is_over
        self.looks = 0

    def is_late(self, now: float) -> bool:
        """Whether its time is over."""
        self.looks += 1
        return self.is_over and now > 0

    def expire(self) -> None:
        """Note the turn."""
        self.closed.append(self.turns[0])


def check(shared: SharedState, clients: list[Client], turns: list[int]) -> None:
    """Let a worker look at connections until it has seen all of them."""

    async def run() -> None:
        shared.tick(clients, 0)
        while not all(client.looks for client in clients):
            assert turns[0] < TURNS_MAX
            turns[0] += 1
            await asyncio.sleep(0)

    asyncio.run(run())


def test_thousands_of_clients_do_not_fill_a_turn(pair: Pair) -> None:
    """A turn looks at some connections and closes a few of them; every one has its turn, and is looked at once."""
    turns, closed = [0], list[int]()
    clients = [Client(closed, turns, is_over=number % 7 == 0) for number in range(2000)]
    check(pair.worker.shared, clients, turns)
    assert {client.looks for client in clients} == {1}
    assert len(closed) == len(range(0, 2000, 7))
    assert max(closed.count(turn) for turn in closed) == CLOSED_PER_TURN
    turns, closed = [0], []
    check(pair.worker.shared, [Client(closed, turns, is_over=False) for _ in range(2000)], turns)
    assert turns[0] >= 2000 // CHECKED_PER_TURN
