"""The lead page's "What we know": facts in words, sources and contradictions beside them, nothing hostile let through."""

import sqlalchemy as sa

from tests.factories import make_lead
from tests.views.test_pages import text_of
from webapp.models import Lead
from webapp.views.knowledge import said_pairs


def fact(name, value, provider="home page", confidence=0.7, note=""):
    told = {"name": name, "value": value, "provider": provider, "confidence": confidence, "note": note}
    return told | {"at": "2026-11-27T08:00:00+00:00"}


def shown(client, session, workspace, *facts):
    lead = make_lead(session, workspace)
    session.execute(sa.update(Lead).where(Lead.id == lead.id).values(facts=list(facts)))
    session.commit()
    return client.get(f"/queue/{lead.id}").text


def test_facts_are_grouped_and_said_in_words(client, session, workspace, reviewer):
    html = shown(
        client, session, workspace,
        fact("industry", "real_estate"), fact("country", "VN"), fact("email_mx", False, "DNS"),
        fact("company_employees", 1234), fact("crm_customer", True, "Twenty"), fact("phone_carrier", "Viettel"),
    )  # fmt: skip
    text = text_of(html)
    for words in ("Real estate", "Vietnam", "none: mail cannot arrive", "1,234", "already a customer", "Viettel"):
        assert words in text or words.replace("Vietnam", "Vietnam") in text, words
    assert text.index("In the CRM") < text.index("Place") < text.index("How to reach them")
    assert "real_estate" not in text and "True" not in text


def test_who_contradicts_is_seen_with_the_note_that_tells_why(client, session, workspace, reviewer):
    html = shown(
        client, session, workspace,
        fact("country", "DE", "home page", 0.8), fact("country", "US", "phone number", 0.4, "by its country code"),
    )  # fmt: skip
    text = " ".join(text_of(html).split())
    assert "Sources disagree on 1 fact;" in text
    assert "Germany" in text and "United States – phone number, 40 % sure" in text
    assert "by its country code" in text.lower()


def test_who_said_it_is_named_in_words_not_by_a_library(client, session, workspace, reviewer):
    html = shown(
        client, session, workspace,
        fact("country", "DE", "phonenumbers"), fact("email_valid", True, "email-validator"), fact("city", "Ulm", "Acme"),
    )  # fmt: skip
    text = " ".join(text_of(html).split())
    assert "numbering plans, " in text and "how the address is written, " in text and "Acme, " in text
    assert "phonenumbers" not in html and "email-validator" not in html


def test_links_of_strangers_are_links_only_where_they_lead_to_the_web(client, session, workspace, reviewer):
    bad = ["javascript:alert(1)", "https://acme.example/x", "data:text/html,x", "https://[bad", '"><svg onload=1>']
    html = shown(client, session, workspace, fact("company_social", bad), fact("company_name", "<b onload=1>Acme"))
    assert html.count('rel="noopener noreferrer nofollow"') == 1
    assert 'href="https://acme.example/x"' in html
    assert "<svg" not in html.split("h-known")[1].split("</section>")[0] and "<b onload" not in html


def test_nothing_known_shows_no_empty_section(client, session, workspace, reviewer):
    assert "What we know" not in shown(client, session, workspace)


def test_the_api_tells_the_facts_of_one_lead(client, session, workspace, headers):
    lead = make_lead(session, workspace)
    session.execute(sa.update(Lead).where(Lead.id == lead.id).values(facts=[fact("city", "Huế")]))
    session.commit()
    assert client.get(f"/api/v1/leads/{lead.id}", headers=headers).json["facts"] == [fact("city", "Huế")]
    assert "facts" not in client.get("/api/v1/leads", headers=headers).json["leads"][0]


def test_a_run_says_what_it_found_out_in_the_words_of_the_lead_s_page() -> None:
    said = said_pairs(
        {
            "email_free": False,
            "email_role": False,
            "country": "VN",
            "phone_e164": "+84912345678",
            "language": "vi",
            "phone_type": "mobile",
            "time_zone": "Asia/Ho_Chi_Minh",
        }
    )
    assert said == [
        ("Language", "Vietnamese"), ("Country", "Vietnam"), ("Mail service", "the company's own"),
        ("Kind of number", "mobile"), ("Number", "+84912345678"), ("Time zone", "Asia/Ho_Chi_Minh"),
    ]  # fmt: skip
