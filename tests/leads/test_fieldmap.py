"""Templates over a lead."""

import pytest

from tests.clients.support import a_lead
from webapp.leads import fieldmap
from webapp.leads.kinds.base import Mapped

FOUND = fieldmap.document(
    a_lead(
        company=None, facts={"company_name": "Acme", "score": 3}, attribution={"utm_source": "ads"},
        attributes={"plan": "Pro"}, assignee_name=None,
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("email", "ana@example.com"), ("company | facts.company_name", "Acme"), ("attribution.utm_source", "ads"),
        ("attributes.plan", "Pro"), ("first_name", "Ana"), ("last_name", "Nguyễn"), ("score", "74"),
        ("Lead from {source}: {name}", "Lead from website_form: Ana Nguyễn"), ("for {assignee.name}", None),
        ('{assignee.name | "nobody"} has it', "nobody has it"), ("", None), ("job_title", None), ("nonsense", None),
        ("a..b", None), ("qualified", "true"),
        ("{priority} · {words.intent}: {display_name}", "P1 · Price inquiry: Ana Nguyễn"), ("intent", "inquiry_price"),
        ("words.source", "Website form"), ("words.priority", "Today"), ("words.lang", "Vietnamese"),
    ],
)  # fmt: skip
def test_a_template_yields_what_the_lead_has(template: str, text: str | None) -> None:
    assert fieldmap.fill(template, FOUND) == text


def test_what_cannot_work_is_named_in_words() -> None:
    known = (Mapped("title", "Title", "name", needed=True), Mapped("city", "City", "city"))
    given = {"title": "", "city": "x..y", "other": "name", "<b>": "name", "t": "{name"}
    closed = fieldmap.problems_of(given, known, open_fields=False)
    assert {problem.field for problem in closed} == {"title", "city", "other", "<b>", "t"}
    opened = fieldmap.problems_of(given, known, open_fields=True)
    assert {problem.field for problem in opened} == {"title", "city", "<b>", "t"}


def test_the_destination_s_own_templates_come_first_and_an_empty_one_leaves_the_field_out() -> None:
    known = (Mapped("a", "A", "name"), Mapped("b", "B", "email"))
    complete = fieldmap.complete(known, {"b": "", "c": "phone"})
    assert fieldmap.filled(complete, FOUND) == {"a": "Ana Nguyễn", "c": "+14155552671"}


@pytest.mark.parametrize("name", ["name", "city.x"])
def test_a_field_is_not_set_beside_its_own_part(name: str) -> None:
    known = (Mapped("name.firstName", "First name", "first_name"), Mapped("city", "City", "city"))
    (problem,) = fieldmap.problems_of({name: "company"}, known, open_fields=True)
    assert (problem.field, problem.reason.startswith("cannot be set beside")) == (name, True)
    assert fieldmap.problems_of({"name.middle": "company", "named": "company"}, known, open_fields=True) == ()
