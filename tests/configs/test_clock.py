from configs.clock import clock


def test_seconds_are_rounded_and_hours_shown_where_there_are_some() -> None:
    assert [clock(s) for s in (0, 59.6, 75, 3725.2)] == ["0:00", "1:00", "1:15", "1:02:05"]
