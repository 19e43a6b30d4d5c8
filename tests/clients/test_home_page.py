"""A company's own page against a real site that misbehaves in every way; and mail servers against a real DNS server."""

import socket
import threading
import time

import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.fakes.site import Answer, Site, html, redirect
from webapp.clients import guard
from webapp.clients.home_page import HomePages
from webapp.clients.mail_servers import MailServers
from webapp.leads.errors import Permanent, Transient

LOOPBACK = guard.networks(["127.0.0.0/8"])


@pytest.fixture
def site():
    with Site() as server:
        yield server


def pages(site, path, seconds=3.0):
    return HomePages(seconds=seconds, allow=LOOPBACK, places=(site.url + path,))


def test_a_home_page_tells_the_company(site):
    found = {fact.name: fact.value for fact in pages(site, "/contact").home_page("acme.de")}
    assert found["company_name"] == "Acme GmbH"
    assert found["company_description"] == "Pumps & valves since 1920"
    assert (found["country"], found["city"], found["postal_code"]) == ("DE", "Berlin", "10115")
    assert found["company_social"] == ["https://social.example/acme"]
    assert found["company_logo"].endswith("/logo.svg")


def test_the_number_of_employees_is_read_in_both_forms(site):
    for told, number in (("250", 250), ('{"@type": "QuantitativeValue", "minValue": 51, "maxValue": "200"}', 200)):
        site.pages["/"] = html(f'<script type="application/ld+json">{{"@type": "Organization", "name": "A", "numberOfEmployees": {told}}}</script>')  # fmt: skip
        found = {fact.name: fact.value for fact in pages(site, "/").home_page("acme.de")}
        assert found["company_employees"] == number


def test_garbage_is_a_page_that_says_nothing(site):
    site.pages["/"] = html(b"\x00\xff<<<<html <script type='application/ld+json'>{{{\"@type\": [</script>" * 50)
    assert pages(site, "/").home_page("acme.de") == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (Answer(404, "no"), "no such page"),
        (Answer(200, b"%PDF", {"Content-Type": "application/pdf"}), "application/pdf"),
        (redirect("http://10.0.0.7/"), "private network"),
        (redirect("http://169.254.169.254/latest/meta-data/"), "private network"),
    ],
)
def test_what_is_no_page_to_be_had_is_known_to_be_none(site, page, said):
    site.pages["/"] = page
    with pytest.raises(Permanent, match=said):
        pages(site, "/").home_page("acme.de")


def test_a_redirect_to_ourselves_is_not_followed(site):
    inner = HomePages(seconds=3, places=("http://127.0.0.1:9/",))  # nothing is allowed
    with pytest.raises(Permanent, match="private network"):
        inner.home_page("acme.de")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/bomb", Permanent),
        ("/huge", Permanent),
        ("/drip", Transient),
        ("/drip-headers", Transient),
        ("/broken", Transient),
    ],
)
def test_pages_without_an_end_end_in_time(site, path, error):
    began = time.monotonic()
    with pytest.raises(error):
        pages(site, path, seconds=0.8).home_page("acme.de")
    assert time.monotonic() - began < 10


def test_the_next_place_is_tried_where_nobody_listens(site):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = f"http://127.0.0.1:{gone.getsockname()[1]}/"
    both = HomePages(seconds=3, allow=LOOPBACK, places=(dead, site.url + "/contact"))
    assert both.home_page("acme.de")


class Dns:
    """A name server: ``zone`` name → MX text, None for a name without, an rcode; names that are missing do not exist.
    ``mute``: never answers."""

    def __init__(self, zone=None, *, mute=False):
        self.zone, self.mute = zone or {}, mute
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                data, sender = self.socket.recvfrom(4096)
            except OSError:
                return
            if self.mute:
                continue
            asked = dns.message.from_wire(data)
            question = asked.question[0]
            answer = dns.message.make_response(asked)
            known = self.zone.get(question.name.to_text().rstrip("."), dns.rcode.NXDOMAIN)
            if isinstance(known, dns.rcode.Rcode):
                answer.set_rcode(known)
            elif isinstance(known, dict) and (record := known.get(question.rdtype.name)):
                answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype.name, record))
            self.socket.sendto(answer.to_wire(), sender)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def ask(server, domain, seconds=2.0):
    return MailServers(seconds=seconds, nameservers=["127.0.0.1"], port=server.port).mail_server(domain)


@pytest.mark.parametrize(
    ("known", "takes", "said"),
    [
        ({"MX": "10 mail.acme.de."}, True, "mail goes to mail.acme.de"),
        ({"MX": "0 ."}, False, "takes no mail"),
        ({"A": "192.0.2.1"}, True, "own address"),
        ({}, False, "no mail server"),
        (dns.rcode.NXDOMAIN, False, "no such domain"),
    ],
)
def test_a_domain_takes_mail_or_does_not(known, takes, said):
    with Dns({"acme.de": known}) as server:
        (fact,) = ask(server, "acme.de")
    assert (fact.name, fact.value) == ("email_mx", takes)
    assert said in fact.note


def test_a_dead_dns_says_nothing_about_the_domain():
    with Dns(mute=True) as server, pytest.raises(Transient, match="does not answer"):
        ask(server, "acme.de", seconds=0.4)
    with Dns({"acme.de": dns.rcode.SERVFAIL}) as server, pytest.raises(Transient):
        ask(server, "acme.de")
