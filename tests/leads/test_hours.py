"""Working hours: weekends, holidays, nights, changes of the clocks; and times that are due in them."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.leads import hours, sla
from webapp.leads.errors import Invalid
from webapp.leads.hours import ALWAYS, DAYS, Calendar
from webapp.leads.states import Priority

NINE_TO_FIVE = "09:00-17:00"


def calendar(zone: str = "UTC", days: str = NINE_TO_FIVE, weekend: str = "", **over: object) -> Calendar:
    week = {day: weekend if day in ("sat", "sun") else days for day in DAYS}
    return hours.read({"time_zone": zone, "week": week, **over})


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def due(one: Calendar, start: str, minutes: float, zone: str = "UTC") -> str:
    found = hours.add(one, at(start, zone), minutes * 60)
    assert found is not None and found.tzinfo is UTC
    return found.astimezone(ZoneInfo(zone)).strftime("%a %d %b %H:%M")


# 2026-11-27 is a Friday.
@pytest.mark.parametrize(
    ("start", "minutes", "expected"),
    [
        ("2026-11-25T10:00", 60, "Wed 25 Nov 11:00"),
        ("2026-11-25T16:30", 60, "Thu 26 Nov 09:30"),  # the rest of it in the morning
        ("2026-11-25T16:00", 60, "Wed 25 Nov 17:00"),  # just done when the day ends
        ("2026-11-25T17:00", 60, "Thu 26 Nov 10:00"),
        ("2026-11-25T20:00", 60, "Thu 26 Nov 10:00"),
        ("2026-11-25T03:00", 60, "Wed 25 Nov 10:00"),
        ("2026-11-27T16:30", 60, "Mon 30 Nov 09:30"),  # over the weekend
        ("2026-11-28T12:00", 15, "Mon 30 Nov 09:15"),
        ("2026-11-25T10:00", 24 * 60, "Mon 30 Nov 10:00"),  # three working days
    ],
)
def test_a_time_is_due_in_working_hours(start: str, minutes: float, expected: str) -> None:
    assert due(calendar(), start, minutes) == expected


def test_around_the_clock_is_plain_time() -> None:
    assert due(ALWAYS, "2026-11-28T23:30", 60) == "Sun 29 Nov 00:30"
    assert hours.is_open(ALWAYS, at("2026-12-25T03:00")) and hours.next_open(ALWAYS, at("2026-12-25T03:00"))


def test_hours_are_those_of_the_time_zone() -> None:
    saigon = calendar("Asia/Ho_Chi_Minh")
    assert hours.is_open(saigon, at("2026-11-25T02:00")) and not hours.is_open(saigon, at("2026-11-25T10:00"))
    assert hours.add(saigon, at("2026-11-25T10:00"), 60 * 60) == at("2026-11-26T03:00")


def test_the_first_moment_counts_and_the_last_does_not() -> None:
    one = calendar()
    assert hours.is_open(one, at("2026-11-25T09:00")) and not hours.is_open(one, at("2026-11-25T17:00"))
    assert hours.next_open(one, at("2026-11-25T09:30")) == at("2026-11-25T09:30")
    assert hours.next_open(one, at("2026-11-27T17:00")) == at("2026-11-30T09:00")


def test_a_break_at_noon_is_no_working_time() -> None:
    one = calendar(days="09:00-12:00, 13:30-18:00")
    assert due(one, "2026-11-25T11:30", 60) == "Wed 25 Nov 14:00"
    assert hours.worked(one, at("2026-11-25T11:00"), at("2026-11-25T14:00")) == 90 * 60


class TestNights:
    night = calendar(days="22:00-06:00")

    def test_a_shift_lasts_into_the_next_day(self) -> None:
        assert hours.is_open(self.night, at("2026-11-26T02:00")) and not hours.is_open(
            self.night, at("2026-11-26T12:00")
        )
        assert due(self.night, "2026-11-25T23:30", 60) == "Thu 26 Nov 00:30"
        assert due(self.night, "2026-11-26T05:30", 60) == "Thu 26 Nov 22:30"

    def test_it_belongs_to_the_day_it_starts_on(self) -> None:
        assert hours.is_open(self.night, at("2026-11-28T05:00"))  # Friday's, on a Saturday
        assert not hours.is_open(self.night, at("2026-11-29T05:00"))
        off = calendar(days="22:00-06:00", days_off="2026-11-25")
        assert hours.is_open(off, at("2026-11-25T05:00")) and not hours.is_open(off, at("2026-11-26T05:00"))

    def test_midnight_ends_and_begins_a_day(self) -> None:
        one = calendar(days="00:00-24:00")
        assert due(one, "2026-11-25T23:30", 60) == "Thu 26 Nov 00:30"
        assert due(one, "2026-11-27T23:30", 60) == "Mon 30 Nov 00:30"
        assert due(calendar(days="18:00-00:00"), "2026-11-25T23:30", 60) == "Thu 26 Nov 18:30"


class TestHolidays:
    def test_public_holidays_of_the_country_are_kept(self) -> None:
        vietnam = calendar("Asia/Ho_Chi_Minh", country="vn")
        # Reunification Day and Labour Day 2026 are a Thursday and a Friday.
        assert due(vietnam, "2026-04-29T16:30", 60, "Asia/Ho_Chi_Minh") == "Mon 04 May 09:30"
        assert due(calendar("Asia/Ho_Chi_Minh"), "2026-04-29T16:30", 60, "Asia/Ho_Chi_Minh") == "Thu 30 Apr 09:30"
        assert "2026-04-30" in [day.isoformat() for day, _ in hours.public_holidays(vietnam, 2026)]

    def test_those_of_a_part_of_the_country_too(self) -> None:
        bavaria, germany = calendar(country="DE", subdivision="BY"), calendar(country="DE")
        assert hours.is_holiday(bavaria, date(2026, 1, 6)) and not hours.is_holiday(germany, date(2026, 1, 6))

    def test_own_days_off_and_holidays_that_are_worked(self) -> None:
        one = calendar(country="US", days_off="2026-11-25, 2026-12-24", days_on="2026-11-26")
        assert hours.is_holiday(one, date(2026, 11, 25)) and not hours.is_holiday(one, date(2026, 11, 26))
        assert due(one, "2026-11-24T16:30", 60) == "Thu 26 Nov 09:30"


class TestChangesOfTheClocks:
    # Berlin: forward on 29 March 2026 at 2:00, back on 25 October at 3:00.
    day = calendar("Europe/Berlin", weekend=NINE_TO_FIVE)

    def test_office_hours_stay_at_their_wall_clock_time(self) -> None:
        assert hours.add(self.day, at("2026-03-28T16:30", "Europe/Berlin"), 3600) == at("2026-03-29T07:30")
        assert hours.add(self.day, at("2026-10-24T16:30", "Europe/Berlin"), 3600) == at("2026-10-25T08:30")

    def test_a_night_with_a_change_is_an_hour_shorter_or_longer(self) -> None:
        night = calendar("Europe/Berlin", days="22:00-06:00", weekend="22:00-06:00")
        evening, morning = "T22:00", "T06:00"
        for first, second, expected in (
            ("2026-03-27", "2026-03-28", 8), ("2026-03-28", "2026-03-29", 7), ("2026-10-24", "2026-10-25", 9),
        ):  # fmt: skip
            start, end = at(first + evening, "Europe/Berlin"), at(second + morning, "Europe/Berlin")
            assert hours.worked(night, start, end) == expected * 3600

    def test_a_shift_that_begins_in_the_skipped_hour(self) -> None:
        odd = calendar("Europe/Berlin", weekend="02:30-05:00")
        assert hours.next_open(odd, at("2026-03-29T00:00", "Europe/Berlin")) == at("2026-03-29T01:30")
        only = calendar("Europe/Berlin", weekend="02:15-02:45")
        assert hours.worked(only, at("2026-03-29T00:00"), at("2026-03-30T00:00")) == 30 * 60


def test_without_working_hours_ahead_nothing_is_due() -> None:
    days = [(date(2026, 11, 20) + timedelta(days=n)).isoformat() for n in range(398)]
    shut = calendar(days_off=days)
    assert hours.add(shut, at("2026-11-25T10:00"), 60) is None and hours.next_open(shut, at("2026-11-25T10:00")) is None


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("time_zone", {"time_zone": "Mars/Base"}), ("mon", {"week": {"mon": "9 to 5"}}),
        ("mon", {"week": {"mon": "09:00-25:00"}}), ("tue", {"week": {"tue": "09:00-09:00"}}),
        ("wed", {"week": {"wed": "09:00-12:00, 11:00-13:00"}}), ("thu", {"week": {"thu": "09:60-12:00"}}),
        ("week", {"week": {}}), ("country", {"country": "XX"}), ("subdivision", {"country": "DE", "subdivision": "ZZ"}),
        ("days_off", {"days_off": "Christmas"}),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(field: str, stored: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refused:
        hours.read(stored)
    assert [problem.field for problem in refused.value.details] == [field]


def test_the_stored_form_reads_back() -> None:
    one = calendar(
        "Asia/Tokyo", days="22:00-06:00, 09:00-17:00", country="JP", days_off="2026-12-31", days_on="2026-11-03"
    )
    assert hours.read(one.as_json()) == one and hours.read(ALWAYS.as_json()) == ALWAYS
    assert hours.read_text("nonsense") is None and hours.read_text('{"time_zone": "x"}') is None


_shift = st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda s: s[0] != s[1])
_moments = st.integers(0, 365 * 24 * 60).map(lambda n: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n))


@settings(max_examples=60, deadline=None)
@given(
    week=st.lists(st.lists(_shift, max_size=1), min_size=7, max_size=7).filter(any),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Ho_Chi_Minh", "Australia/Lord_Howe"]),
    start=_moments,
    minutes=st.integers(1, 3_000),
)
def test_the_working_time_until_it_is_due_is_what_was_asked_for(
    week: list[list[tuple[int, int]]], zone: str, start: datetime, minutes: int
) -> None:
    one = Calendar(zone, tuple(tuple(day) for day in week))
    found = hours.add(one, start, minutes * 60)
    if found is not None:
        assert found > start
        assert hours.worked(one, start, found) == pytest.approx(minutes * 60)
        assert hours.is_open(one, found - timedelta(microseconds=1))


class TestTargets:
    def test_each_priority_has_its_own(self) -> None:
        one = sla.Sla(calendar())
        assert one.due(Priority.P0, at("2026-11-27T16:50")) == at("2026-11-30T09:05")
        assert one.due(Priority.P1, at("2026-11-27T16:50")) == at("2026-11-30T12:50")
        assert one.due(Priority.P3, at("2026-11-27T16:50")) is None

    def test_what_is_stored_counts_and_nonsense_does_not(self) -> None:
        settings_of = {"hours": calendar("Asia/Tokyo").as_json(), "sla": {"P0": 5, "P3": 60, "P2": None}}
        one = sla.of_settings(settings_of)
        assert (one.calendar.time_zone, one.minutes[Priority.P0], one.minutes[Priority.P2]) == ("Asia/Tokyo", 5, None)
        assert one.minutes[Priority.P1] == 240
        assert sla.read_text("{", "[]") == sla.DEFAULT and sla.read_text(None, '{"P9": 1}') == sla.DEFAULT

    @pytest.mark.parametrize(
        ("said", "minutes"), [("15", 15), ("15 min", 15), ("4h", 240), ("2.5 hours", 150), ("1 hour", 60), ("90m", 90)]
    )
    def test_they_are_read_as_people_write_them(self, said: str, minutes: int) -> None:
        assert sla.targets_from({"P0": said})["P0"] == minutes

    @pytest.mark.parametrize("said", ["soon", "0", "-5", "nan", "inf", "1e9", "5 weeks", "h"])
    def test_others_are_named(self, said: str) -> None:
        with pytest.raises(Invalid) as refused:
            sla.targets_from({"P0": "15", "P2": said})
        assert [problem.field for problem in refused.value.details] == ["P2"]
