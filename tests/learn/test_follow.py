"""Following a stream: whatever is forgotten, skipped, rolled back or interrupted, the state is that of its lineage."""

from hypothesis import settings

from tests.learn.machine import Following

TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
