"""Generic data services against faithful stand-ins: every shape, every refusal, every way to misbehave."""

import gzip
import socket
import threading
import time

import pytest

from tests.fakes.company_data import KEY, CompanyDataFake
from tests.fakes.server import Response
from tests.fakes.tls import some_authorities
from webapp.clients import guard
from webapp.clients.data_service import DataServices
from webapp.leads import fact_mapping
from webapp.leads.enrichment_settings import PRESETS
from webapp.leads.errors import NotFound, Permanent, Transient
from webapp.leads.ports import Refused, Service, Throttled, Unreached

LOOPBACK = guard.networks(["127.0.0.0/8"])


@pytest.fixture
def fake():
    with CompanyDataFake() as server:
        yield server


def services(seconds=3.0, allow=LOOPBACK):
    return DataServices(lambda sealed: sealed.removeprefix("sealed:"), seconds=seconds, allow=allow)


def clearbit(fake, **over):
    values = {"url": f"{fake.url}/clearbit/companies/find?domain={{domain}}", "auth": "header",
              "auth_name": "Authorization", "auth_prefix": "Bearer ", "secret": f"sealed:{KEY}"}  # fmt: skip
    return Service(**(values | over))


PATHS = {"clearbit": "/clearbit/companies/find?domain={domain}", "apollo": "/apollo/organizations/enrich?domain={domain}",
         "pdl": "/pdl/company/enrich?website={domain}", "hunter": "/hunter/email-verifier?email={email}"}  # fmt: skip


class TestShapes:
    @pytest.mark.parametrize("name", ["clearbit", "apollo", "pdl"])
    def test_the_shipped_mappings_read_the_company_out_of_each_services_answer(self, fake, name):
        preset = next(one for one in PRESETS if one.name == name)
        service = Service(fake.url + PATHS[name], preset.auth, preset.auth_name, preset.auth_prefix, f"sealed:{KEY}")
        facts, note = fact_mapping.read(preset.mapping, services().ask(service, "acme-pumps.de"), trust=0.8)
        found = {fact.name: fact.value for fact in facts}
        assert found["company_name"] == "Acme Pumps GmbH"
        assert (found["country"], found["city"].casefold(), found["postal_code"]) == ("DE", "berlin", "10115")
        assert found["company_employees"] == 240
        assert found["industry"] == "manufacturing"
        assert note == ""

    @pytest.mark.parametrize(
        ("email", "said"),
        [("jo@acme-pumps.de", "deliverable"), ("gone@acme-pumps.de", "undeliverable"), ("all@acme-pumps.de", "risky")],
    )
    def test_an_email_check_tells_whether_mail_arrives(self, fake, email, said):
        preset = next(one for one in PRESETS if one.name == "hunter")
        service = Service(
            fake.url + PATHS["hunter"], preset.auth, preset.auth_name, preset.auth_prefix, f"sealed:{KEY}"
        )
        facts, _ = fact_mapping.read(preset.mapping, services().ask(service, email), trust=0.8)
        assert {fact.name: fact.value for fact in facts} == {"email_deliverable": said, "email_mx": True}

    def test_the_subject_cannot_leave_its_place_in_the_address(self, fake):
        with pytest.raises(NotFound):
            services().ask(clearbit(fake), "x.de&admin=1#/../")
        assert fake.calls()[0].query == {"domain": "x.de&admin=1#/../"}


class TestRefusals:
    def test_an_unknown_company_is_no_failure(self, fake):
        with pytest.raises(NotFound):
            services().ask(clearbit(fake), "nobody.de")

    def test_a_wrong_key_is_the_services_refusal_of_us(self, fake):
        with pytest.raises(Refused) as refused:
            services().ask(clearbit(fake, secret="sealed:wrong"), "acme-pumps.de")
        assert refused.value.destination_wide

    def test_a_429_says_how_long_to_wait(self, fake):
        fake.fail_next(kind="429", retry_after="17")
        with pytest.raises(Throttled) as busy:
            services().ask(clearbit(fake), "acme-pumps.de")
        assert busy.value.retry_after == 17

    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            (Response(500, {"error": "x"}), "problem of its own"),
            (Response(503, text="<html>"), "problem of its own"),
            (Response(200, text="<html>not JSON"), "no JSON"),
            (Response(200, text='{"a": ' * 50_000), "no JSON"),
            (Response(200, text='{"a": "' + "x" * 1_000_000 + '"}'), "larger than 512 KiB"),
            (Response(302, headers={"Location": "http://169.254.169.254/latest/meta-data/"}), "redirects"),
            (Response(302, headers={"Location": "http://127.0.0.1:1/"}), "redirects"),
            (Response(202, {}), "still looking"),
        ],
    )
    def test_answers_that_are_none_are_failures_for_now(self, fake, raw, said):
        fake.raw = raw
        with pytest.raises(Transient, match=said):
            services().ask(clearbit(fake), "acme-pumps.de")
        assert len(fake.calls()) == 1

    @pytest.mark.parametrize("kind", ["hang", "reset_before"])
    def test_no_answer_ends_in_time(self, fake, kind):
        fake.fail_next(kind=kind, seconds=30)
        began = time.monotonic()
        with pytest.raises(Transient):
            services(0.5).ask(clearbit(fake), "acme-pumps.de")
        assert time.monotonic() - began < 10

    def test_an_answer_that_drips_ends_in_time(self):
        over = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as server:

            def drip():
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                    while not over.wait(0.02):
                        try:
                            connection.sendall(b"a")
                        except OSError:
                            return

            thread = threading.Thread(target=drip, daemon=True)
            thread.start()
            try:
                url = f"http://127.0.0.1:{server.getsockname()[1]}/{{domain}}"
                with pytest.raises(Transient, match="did not answer within"):
                    services(0.5).ask(Service(url), "acme.de")
            finally:
                over.set()
                thread.join(5)

    def test_a_gzip_bomb_is_cut_off(self, fake):
        bomb = gzip.compress(b'{"a": "' + b" " * 50_000_000 + b'"}')

        class Raw(Response):
            def encoded(self):
                return bomb

        fake.raw = Raw(200, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
        with pytest.raises(Transient, match="larger than"):
            services().ask(clearbit(fake), "acme-pumps.de")

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:9/{domain}", "http://169.254.169.254/{domain}", "http://[::1]/{domain}"]
    )
    def test_private_addresses_are_not_asked(self, url):
        with pytest.raises(Permanent, match="private network"):
            services(allow=()).ask(Service(url), "acme.de")


def test_an_authority_of_ones_own_counts_besides_the_usual_ones(tmp_path, monkeypatch):
    contexts = some_authorities(tmp_path, monkeypatch)
    for context in (contexts.usual, contexts.own):
        with CompanyDataFake(context=context) as fake:
            assert services().ask(clearbit(fake), "acme-pumps.de")["name"] == "Acme Pumps GmbH"
    with CompanyDataFake(context=contexts.unknown) as fake:
        with pytest.raises(Unreached, match="certificate is not valid"):
            services().ask(clearbit(fake), "acme-pumps.de")
        assert fake.requests == []
