"""What a long step says when it has ended."""

import pytest
from longrun_training import terminal


@pytest.mark.parametrize(("duration", "said"), [(0.04, "0.0 s"), (59.44, "59.4 s"), (59.6, "1 min 00 s"), (119.7, "2 min 00 s"), (65.2, "1 min 05 s")])
def test_durations_are_said_as_people_do(duration: float, said: str) -> None:
    """A minute has no sixtieth second."""
    assert terminal._seconds(duration) == said
