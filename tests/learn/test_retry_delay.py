"""The delay of a stream whose learning failed."""

import pytest

from service.learn.retry_delay import DELAY_SECONDS, DELAY_SECONDS_MAX, RetryDelay


@pytest.mark.parametrize("failures", [1, 3, 40])
def test_a_delay_doubles_up_to_a_bound(failures: int) -> None:
    """After a success it starts again at the shortest delay."""
    delay = RetryDelay()
    for _ in range(failures):
        delay.record_failure("why", 10.0)
    assert delay.due == 10.0 + min(DELAY_SECONDS * 2 ** (failures - 1), DELAY_SECONDS_MAX)
    delay.record_success()
    delay.record_failure("why", 20.0)
    assert (delay.due, delay.reason) == (20.0 + DELAY_SECONDS, "why")
