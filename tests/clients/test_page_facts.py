"""HTML → contacts and company facts, without any network."""

import json

import pytest

from tests.fakes import site
from webapp.clients import page_facts
from webapp.leads.states import Door

URL = "https://www.acme.example/contact"


def page(body: str, head: str = "") -> page_facts.PageFacts:
    return page_facts.extract(f"<html><head>{head}</head><body>{body}</body></html>", URL)


def json_ld(*items: object) -> str:
    return "".join(f'<script type="application/ld+json">{json.dumps(item)}</script>' for item in items)


def emails(facts: page_facts.PageFacts) -> list[str | None]:
    return [contact.email for contact in facts.contacts]


class TestStructuredData:
    def test_json_ld_tells_the_company_and_who_is_who(self):
        facts = page_facts.extract(site.CONTACT, URL)
        company = facts.company
        assert (company.name, company.description) == ("Acme GmbH", "Pumps & valves since 1920")
        assert (company.address, company.country) == ("Beispielweg 1, 10115, Berlin", "DE")
        assert company.logo == "https://www.acme.example/logo.svg"
        assert company.website == "https://www.acme.example/"
        assert company.links == ("https://social.example/acme",)
        general, sales, jana = facts.contacts
        assert (general.email, general.phone, general.name) == ("info@acme.example", "+49 30 901820", None)
        assert (sales.email, sales.role) == ("sales@acme.example", "sales")
        assert (jana.name, jana.job_title, jana.company) == ("Jana Müller", "Head of Purchasing", "Acme GmbH")
        assert (jana.email, jana.phone) == ("jana.mueller@acme.example", "+49 30 901821")

    def test_microdata_tells_the_same(self):
        facts = page_facts.extract(site.MICRODATA, URL)
        assert (facts.company.name, facts.company.country) == ("Bäckerei Ähre", "Deutschland")
        assert facts.company.address == "Hauptstraße 5, Köln"
        shop, employee = facts.contacts
        assert (shop.email, shop.phone) == ("laden@aehre.example", "0221 4710")
        assert (employee.name, employee.job_title, employee.email, employee.company) == (
            "Änne Groß", "Meisterin", "aenne@aehre.example", "Bäckerei Ähre",
        )  # fmt: skip

    def test_open_graph_names_the_site(self):
        facts = page_facts.extract(site.OPEN_GRAPH, URL)
        assert (facts.company.name, facts.company.description) == ("Contoso Ltd", "Makers of things")
        assert facts.title == "About Contoso"
        assert [(c.email, c.phone) for c in facts.contacts] == [("desk@contoso.example", "+442079460958")]

    def test_one_broken_script_costs_no_other(self):
        broken = '<script type="application/ld+json">{"@type": "Organization", </script>'
        deep = f'<script type="application/ld+json">{"[" * 20_000}</script>'
        facts = page("", broken + deep + json_ld({"@type": "Corporation", "name": "Acme", "email": "a@acme.example"}))
        assert facts.company.name == "Acme" and emails(facts) == ["a@acme.example"]

    def test_a_partners_address_is_not_the_companys(self):
        ours = {"@type": "Organization", "name": "Acme", "email": "a@acme.example"}
        theirs = {"@type": "Organization", "name": "Partner", "address": "Elsewhere 1", "email": "b@partner.example"}
        facts = page("", json_ld(ours, theirs))
        assert facts.company.address is None
        assert [(c.email, c.company) for c in facts.contacts] == [
            ("a@acme.example", "Acme"),
            ("b@partner.example", "Partner"),
        ]

    def test_the_type_attribute_may_carry_a_charset(self):
        item = json.dumps({"@type": "Dentist", "name": "Dr. Zahn", "telephone": "030 12345", "address": "Weg 1"})
        facts = page(f'<script type="application/ld+json; charset=utf-8">{item}</script>')
        assert facts.company.name == "Dr. Zahn" and facts.contacts[0].phone == "030 12345"

    @pytest.mark.parametrize(
        "item",
        [
            {"@type": ["Person", 7], "name": {"@value": "Jo"}, "email": ["jo@acme.example", "x"]},
            {"@type": "https://schema.org/Person", "givenName": "Jo", "email": "MAILTO:jo@acme.example"},
            {
                "@graph": [
                    [{"@type": "Thing", "author": {"@type": "schema:Person", "name": "Jo", "email": "jo@acme.example"}}]
                ]
            },
        ],
    )
    def test_odd_shapes_are_read(self, item):
        (jo,) = page("", json_ld(item)).contacts
        assert (jo.name, jo.email) == ("Jo", "jo@acme.example")

    @pytest.mark.parametrize(
        "item",
        [[], 7, None, "x", {"@type": None}, {"@type": "Organization", "address": 7, "contactPoint": [None, 3]},
         {"@type": "Person", "worksFor": [[]]}, {"@id": 7}, {"@type": "Organization", "sameAs": ["http://[", 7]}],
    )  # fmt: skip
    def test_nonsense_is_passed_over(self, item):
        assert page("", json_ld(item)).contacts == ()

    def test_a_trap_of_nested_microdata_is_left_alone(self):
        nested = '<div itemprop="email">' * 200 + "x" + "</div>" * 200
        assert page(f'<div itemscope itemtype="https://schema.org/Person">{nested}</div>').contacts == ()


class TestLinksAndText:
    def test_one_address_and_one_number_belong_together(self):
        facts = page('<a href="mailto:Jane@Acme.example">mail</a> <a href="tel:+49-30-12345;ext=1">call</a>')
        assert [(c.email, c.phone) for c in facts.contacts] == [("Jane@acme.example", "+49-30-12345")]

    def test_of_several_nobody_can_tell(self):
        facts = page(
            '<a href="mailto:a@acme.example,b@acme.example?cc=c@acme.example">mail</a> <a href="tel:+493012345">call</a>'
        )
        assert [(c.email, c.phone) for c in facts.contacts] == [
            ("a@acme.example", None),
            ("b@acme.example", None),
            (None, "+493012345"),
        ]

    @pytest.mark.parametrize(
        "written",
        ["jane@acme.example", "jane [at] acme [dot] example", "jane(at)acme.example", "jane {AT} acme {dot} example",
         "jane&#64;acme&#46;example"],
    )  # fmt: skip
    def test_addresses_in_the_text(self, written):
        assert emails(page(f"<p>Mail {written}, please.</p>")) == ["jane@acme.example"]

    def test_words_are_no_disguise(self):
        assert page("<p>Meet jane at acme dot com, or look at example.com.</p>").contacts == ()

    def test_cloudflares_disguise(self):
        key = 0x5A
        hidden = bytes([key, *(byte ^ key for byte in b"jane@acme.example")]).hex()
        facts = page(
            f'<a href="/cdn-cgi/l/email-protection#{hidden}"><span class="__cf_email__" data-cfemail="{hidden}">[x]</span></a>'
        )
        assert emails(facts) == ["jane@acme.example"]

    @pytest.mark.parametrize(
        "body",
        ['<a href="mailto:?subject=Look">share</a>', '<a href="mailto:noreply@acme.example">x</a>', "icon@2x.png",
         "<script>var a = 'bot@acme.example'</script>", '<a href="tel:112">112</a>', "<p>a@b</p>",
         'Fax: <a href="tel:+493012345">+49 30 12345</a>', '<a href="tel:+493012345">Telefax</a>'],
    )  # fmt: skip
    def test_what_is_no_contact(self, body):
        assert page(body).contacts == ()

    def test_somebody_behind_the_same_switchboard_is_not_the_company(self):
        facts = page(
            "",
            json_ld(
                {"@type": "Organization", "name": "Acme", "email": "info@acme.example", "telephone": "030 12345"},
                {"@type": "Person", "name": "Jo Doe", "telephone": "(030) 123 45"},
            ),
        )
        assert [(c.email, c.name) for c in facts.contacts] == [("info@acme.example", None), (None, "Jo Doe")]

    def test_the_companys_number_and_address_are_one_contact(self):
        head = json_ld({"@type": "Organization", "name": "Acme", "telephone": "030 12345"})
        (only,) = page('<a href="mailto:info@acme.example">mail</a>', head).contacts
        assert (only.email, only.phone) == ("info@acme.example", "030 12345")

    @pytest.mark.parametrize(("references", "name"), [(1, "Jo"), (50_000, None)])
    def test_references_are_followed_but_not_a_trap_of_them(self, references, name):
        refs = f"<div itemscope itemtype='https://schema.org/Person' itemref='{'x ' * references}'></div>"
        said = "<div id=x><p itemprop=name>Jo</p><p itemprop=email>jo@acme.example</p></div>"
        (only,) = page(refs + said).contacts
        assert (only.email, only.name) == ("jo@acme.example", name)

    def test_a_directory_is_cut(self):
        assert len(page(" ".join(f"a{n}@acme.example" for n in range(200))).contacts) == page_facts.MAX_CONTACTS

    @pytest.mark.parametrize(
        "html", ["", " ", "\x00", "<?xml version='1.0' encoding='utf-16'?><html/>", "<", "&#xD800;" * 3]
    )
    def test_a_page_that_is_none(self, html):
        assert page_facts.extract(html, URL).contacts == ()


class TestLeads:
    def leads(self, html: str = site.CONTACT, url: str = URL):
        return page_facts.as_leads(page_facts.extract(html, url), asked=url)

    def test_a_contact_is_a_lead_of_source_web(self):
        found = self.leads()
        jana = found.leads[2]
        assert (jana.door, jana.source, jana.name) == (Door.WEB, "web", "Jana Müller")
        assert jana.message == f"Found on {URL}: Jana Müller of Acme GmbH."
        assert jana.attribution == {"landing_page": URL}
        assert jana.attributes["job_title"] == "Head of Purchasing" and jana.attributes["country"] == "DE"
        assert found.result["contacts"] == 3 and found.result["company"]["name"] == "Acme GmbH"
        json.dumps(found.result)

    def test_the_same_contact_of_a_site_keeps_its_id(self):
        ids = [lead.external_id for lead in self.leads().leads]
        assert len(set(ids)) == 3
        assert [lead.external_id for lead in self.leads(url="https://acme.example/other?x=1").leads] == ids
        assert self.leads(url="https://elsewhere.example/").leads[0].external_id != ids[0]
