"""Imports, as a manager sees them: upload, columns, progress, result, undo."""

import gc
import io
import re
import resource
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobs import queue
from tests.factories import make_lead, make_workspace
from tests.views.conftest import fragment
from webapp.leads import imports
from webapp.leads.claims import Holder
from webapp.leads.states import Door, ImportState, LeadStatus, Role
from webapp.models import AuditEvent, Import, ImportProblem, Lead
from webapp.security.keys import tenant_of

CSV = """Full name,E-mail,Phone,Comment,Shoe size
Ann Lee,ann@acme.example,+1 202 555 0100,Please send a quote for 50 seats,38
Bob Ray,not an address,,Hello,44
Cara Fox,cara@acme.example,,"What does it cost?
Two lines",40
"""


@pytest.fixture
def folder(app, tmp_path, monkeypatch):
    """Where files wait in this test."""
    settings = app.extensions["settings"].model_copy(update={"imports_dir": str(tmp_path)})
    monkeypatch.setitem(app.extensions, "settings", settings)
    return tmp_path


@pytest.fixture
def manager(client, login, folder):
    return login(client, Role.MANAGER, name="Max Manager")


@pytest.fixture
def rung(monkeypatch):
    heard: list[str] = []
    monkeypatch.setattr("webapp.views.imports.ring", heard.append)
    return heard


def upload(client, content: str | bytes = CSV, name: str = "leads.csv", **fields: str):
    """As a browser sends it; the test client's own way would leave a temporary file open."""
    parts = [f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
    parts.append(
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/csv\r\n\r\n'
    )
    data = content.encode() if isinstance(content, str) else content
    body = "".join(parts).encode() + data + b"\r\n--b--\r\n"
    return client.post("/imports", data=body, content_type="multipart/form-data; boundary=b")


@pytest.fixture
def uploaded(client, manager, session):
    """``uploaded(content)``: the import of a file that was just uploaded."""

    def do(content: str | bytes = CSV, name: str = "leads.csv", **fields: str) -> Import:
        answer = upload(client, content, name, **fields)
        assert answer.status_code == 303, answer.text
        session.rollback()
        found = session.get_one(Import, uuid.UUID(answer.location.split("/")[-2]))
        session.commit()
        return found

    return do


@pytest.fixture
def worked(app, session_factory, folder):
    """Work the queue as its worker does."""

    def do() -> None:
        imports.process(
            session_factory,
            Holder(),
            folder=folder,
            seal=app.extensions["cipher"].seal,
            tenant_of=lambda w: tenant_of(w, default_region="US", duplicate_days=30, idempotency_days=30),
        )
        imports.process_undos(session_factory, Holder())

    return do


def fresh(session, found: Import) -> Import:
    session.rollback()
    return session.get_one(Import, found.id, populate_existing=True)


def started(client, found: Import, **fields: str):
    return client.post(f"/imports/{found.id}/start", data=fields)


class TestUpload:
    def test_the_first_page_invites(self, client, manager):
        page = client.get("/imports")
        assert "No imports yet" in page.text and 'href="/imports/new"' in page.text
        assert 'href="/imports"' in client.get("/queue").text

    def test_a_file_leads_to_its_columns(self, client, session, uploaded, folder):
        found = uploaded(source="trade fair")
        assert (found.filename, found.source, found.created_by) == ("leads.csv", "trade fair", "Max Manager")
        assert found.state is ImportState.UPLOADED
        assert imports.path_of(folder, found.stored_as).read_text() == CSV
        assert session.scalars(sa.select(Lead.id)).all() == []

    @pytest.mark.parametrize(
        ("content", "name", "words"),
        [
            ("", "empty.csv", "The file is empty."),
            ("\ufeff\n \n", "blank.csv", "The file is empty."),
            (b"PK\x03\x04" + b"x" * 100, "book.xlsx", "Excel workbook"),
            (b"%PDF-1.7 x", "a.pdf", "a PDF"),
            (bytes(range(256)) * 20, "a.bin", "not text"),
        ],
    )
    def test_what_is_no_table_is_said_in_words_and_nothing_is_kept(
        self, client, session, manager, folder, content, name, words
    ):
        before = set(folder.iterdir()) if folder.exists() else set()
        answer = upload(client, content, name, source="fair")
        assert answer.status_code == 422 and words in answer.text
        assert 'value="fair"' in answer.text
        assert session.scalars(sa.select(Import.id)).all() == []
        assert (set(folder.iterdir()) if folder.exists() else set()) == before

    def test_no_file_at_all(self, client, manager):
        assert "Choose a file first" in client.post("/imports", data={"file": (io.BytesIO(b""), "")}).text
        assert client.post("/imports", data={}).status_code == 422

    def test_a_source_that_is_none(self, client, session, manager):
        answer = upload(client, source="x" * 101)
        assert answer.status_code == 422 and "100 characters" in answer.text
        assert session.scalars(sa.select(Import.id)).all() == []

    def test_a_file_may_be_larger_than_a_page(self, uploaded):
        rows = "".join(f"person{n}@acme.example,{'x' * 200}\n" for n in range(15_000))
        found = uploaded(f"email,message\n{rows}")
        assert found.size_bytes > 3 << 20

    def test_too_large_is_said_and_nothing_is_kept(self, app, client, session, manager, folder, monkeypatch):
        smaller = app.extensions["settings"].model_copy(update={"max_import_bytes": 2_000})
        monkeypatch.setitem(app.extensions, "settings", smaller)
        before = set(folder.iterdir()) if folder.exists() else set()
        for size in (2_001, 200_000):  # beyond the file's limit, and beyond that of the whole form
            answer = upload(client, "email\n" + "x" * size)
            assert answer.status_code == 413 and "larger than 2.0 kB" in answer.text
        assert session.scalars(sa.select(Import.id)).all() == []
        assert (set(folder.iterdir()) if folder.exists() else set()) == before

    def test_too_many_that_are_not_over(self, client, session, workspace, manager, folder):
        session.add_all(
            Import(workspace_id=workspace.id, filename=f"{n}.csv", format="csv", created_by="Eve") for n in range(20)
        )
        session.commit()
        answer = upload(client)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
        assert "20 imports wait or run already" in answer.text and 'name="file"' in answer.text
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("size", [400_000, 4_000_000])  # held in memory while it comes, and spooled
    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # Werkzeug leaves the spooled file to be collected
    def test_a_full_disk_is_said_and_nothing_is_kept(self, client, session, manager, folder, size):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))  # the kernel refuses what a file has beyond
        try:
            answer = upload(client, CSV + "x" * size)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert answer.status_code == 503 and "no room on the disk" in answer.text and "Try again later" in answer.text
        assert list(folder.iterdir()) == []
        gc.collect()

    def test_the_token_is_asked_for(self, app, client, manager, session, monkeypatch):
        monkeypatch.setitem(app.config, "WTF_CSRF_ENABLED", True)
        assert upload(client).status_code == 400
        assert session.scalars(sa.select(Import.id)).all() == []
        token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/imports/new").text)
        assert token and upload(client, csrf_token=token[1]).status_code == 303

    def test_a_reviewer_sees_but_does_not_touch(self, client, login, session, workspace):
        login(client, Role.REVIEWER)
        assert "Import a file" not in client.get("/imports").text
        assert upload(client).status_code == 403
        assert session.scalars(sa.select(Import.id)).all() == []


class TestColumns:
    def test_they_are_guessed_and_the_rows_shown_as_they_would_come_in(self, client, uploaded):
        page = client.get(f"/imports/{uploaded().id}/columns").text
        for column, field in (("Full name", "name"), ("E-mail", "email"), ("Phone", "phone"), ("Comment", "message")):
            at = CSV.splitlines()[0].split(",").index(column)
            select = page.partition(f'name="c{at}"')[2].partition("</select>")[0]
            assert re.search(rf'value="{field}"\s+selected', select), column
        assert "price inquiry" in page and "Ann Lee" in page
        assert "Not taken in: E-mail is not a valid" in page
        assert "Two lines" in page and "3 rows shown, 1 of them would not be taken in" in page
        assert "38 · 44 · 40" in page  # what stands in a column that is left out

    def test_other_choices_change_the_preview_and_nothing_else(self, client, session, uploaded):
        found = uploaded()
        choices = {"c0": "company", "c1": "email", "c2": "", "c3": "message", "c4": ""}
        page = client.post(f"/imports/{found.id}/columns", data=choices, headers=fragment("preview")).text
        assert '<th scope="col">Company</th>' in page and "<select" not in page
        assert fresh(session, found).mapping["Full name"] == "name"

    @pytest.mark.parametrize(
        ("choices", "words"),
        [
            ({"c0": "name"}, "one column must be the message"),
            ({"c0": "name", "c1": "email", "c2": "email"}, "another column is E-mail already"),
            ({"c0": "nonsense", "c1": "email"}, "there is no such field"),
        ],
    )
    def test_choices_that_make_no_sense(self, client, session, uploaded, choices, words):
        found = uploaded()
        part = client.post(f"/imports/{found.id}/columns", data=choices, headers=fragment("preview")).text
        assert words in part
        answer = started(client, found, **choices)
        assert answer.status_code == 422 and words in answer.text.lower().replace("e-mail", "E-mail")
        assert fresh(session, found).state is ImportState.UPLOADED

    def test_a_wrong_encoding_can_be_put_right(self, client, session, uploaded):
        found = uploaded("name,email\nJosé Núñez,jose@acme.example\n".encode("cp1252"))
        wrong = client.post(
            f"/imports/{found.id}/layout", data={"encoding": "cp1251", "delimiter": ",", "has_header": "on"}
        )
        assert wrong.status_code == 303
        assert "José" not in client.get(f"/imports/{found.id}/columns").text
        client.post(f"/imports/{found.id}/layout", data={"encoding": "cp1252", "delimiter": ",", "has_header": "on"})
        page = client.get(f"/imports/{found.id}/columns").text
        assert "José Núñez" in page and "Western European (Windows-1252)" in page

    def test_without_a_header_the_first_row_is_a_lead(self, client, uploaded):
        found = uploaded("a@acme.example,Hello\nb@acme.example,World\n", name="bare.csv")
        client.post(f"/imports/{found.id}/layout", data={"encoding": "utf-8", "delimiter": ","})
        page = client.get(f"/imports/{found.id}/columns").text
        assert "a@acme.example" in page and "No row can be a lead yet" in page
        part = client.post(f"/imports/{found.id}/columns", data={"c0": "email", "c1": "message"}).text
        assert "2 rows shown" in part

    def test_an_encoding_that_is_none(self, client, uploaded):
        found = uploaded()
        answer = client.post(f"/imports/{found.id}/layout", data={"encoding": "klingon", "delimiter": ","})
        assert answer.status_code == 422 and "not an encoding" in answer.text

    def test_names_without_rows(self, client, uploaded):
        page = client.get(f"/imports/{uploaded('name,email,message' + chr(10)).id}/columns")
        assert "no rows below them" in page.text

    def test_json_is_read_as_well(self, client, uploaded):
        found = uploaded('[{"email": "a@acme.example", "note": "Hi", "extra": {"a": 1}}]', "leads.json")
        page = client.get(f"/imports/{found.id}/columns").text
        assert "a@acme.example" in page and "Separator" not in page

    def test_a_file_that_is_gone_is_said(self, client, uploaded, folder):
        found = uploaded()
        imports.remove(folder, found.stored_as)
        page = client.get(f"/imports/{found.id}/columns")
        assert page.status_code == 200 and "not here any more. Upload it again." in page.text

    def test_markup_in_a_file_stays_text(self, client, uploaded):
        found = uploaded("<b>name</b>,email\n<script>alert(1)</script>,a@acme.example\n", name="<i>.csv")
        page = client.get(f"/imports/{found.id}/columns").text
        assert "<script>alert" not in page and "<b>name" not in page and "<i>.csv" not in page


class TestImporting:
    def test_it_starts_and_is_rung_for(self, client, session, uploaded, rung):
        found = uploaded()
        answer = started(client, found, c0="name", c1="email", c3="message", source="fair")
        assert answer.status_code == 303 and answer.location == f"/imports/{found.id}"
        now = fresh(session, found)
        assert (now.state, now.dry_run, now.source) == (ImportState.QUEUED, False, "fair")
        assert now.mapping == {"Full name": "name", "E-mail": "email", "Comment": "message"}
        assert rung == [queue.IMPORTS]

    def test_the_page_looks_again_until_it_is_over(self, client, uploaded, worked):
        found = uploaded()
        started(client, found)
        part = client.get(f"/imports/{found.id}", headers=fragment("state")).text
        assert 'hx-trigger="every 1s"' in part and "<progress" in part and "<h1>" not in part and "Stop it" in part
        worked()
        part = client.get(f"/imports/{found.id}", headers=fragment("state")).text
        assert "hx-trigger" not in part and "<progress" not in part

    def test_the_result_counts_and_links_to_the_leads(self, client, session, uploaded, worked):
        found = uploaded()
        started(client, found)
        worked()
        page = client.get(f"/imports/{found.id}").text
        figures = dict(re.findall(r"<dt>\s*([^<]+?)\s*</dt>\s*<dd class=\"num\">\s*(?:<a[^>]*>)?([\d,]+)", page))
        assert figures["Rows read"] == "3" and figures["New leads"] == "2" and figures["Not taken in"] == "1"
        link = f"/queue?import_id={found.id}&view=all"
        assert link.replace("&", "&amp;") in page or link in page
        listed = client.get(link).text
        assert "Ann Lee" in listed and "Cara Fox" in listed
        other = client.get(f"/queue?view=all&import_id={uuid.uuid4()}").text
        assert "Ann Lee" not in other
        assert "Undo this import" in page
        assert "leads.csv" in client.get("/imports").text

    def test_what_was_not_taken_in_can_be_downloaded(self, client, uploaded, worked):
        found = uploaded(CSV + "=1+1,=cmd@x,,Hi,1\n")
        started(client, found)
        worked()
        page = client.get(f"/imports/{found.id}").text
        assert "Rows that were not taken in" in page and f"/imports/{found.id}/errors.csv" in page
        answer = client.get(f"/imports/{found.id}/errors.csv")
        lines = answer.text.splitlines()
        assert answer.mimetype == "text/csv" and lines[0] == "\ufeffrow number,field,reason"
        assert [line.split(",")[:2] for line in lines[1:]] == [["2", "email"], ["4", "email"]]
        assert "Row, without the header and blank rows" in client.get(f"/imports/{found.id}").text

    def test_a_trial_writes_nothing_and_can_be_made_real(self, client, session, uploaded, worked):
        found = uploaded()
        started(client, found, dry_run="on")
        worked()
        page = client.get(f"/imports/{found.id}").text
        assert (
            "trial, no lead is written" in page
            and "Would be new leads, at most" in page
            and "Import it for real" in page
        )
        assert "Undo this import" not in page
        assert session.scalars(sa.select(Lead.id)).all() == []
        assert client.get(f"/imports/{found.id}/columns").status_code == 200
        started(client, found)
        worked()
        session.rollback()
        assert len(session.scalars(sa.select(Lead.id)).all()) == 2

    def test_starting_twice_starts_once(self, client, session, uploaded):
        found = uploaded()
        started(client, found)
        answer = client.post(f"/imports/{found.id}/start", data={}, follow_redirects=True)
        assert "started already" in answer.text
        started_events = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "IMPORT_STARTED")).all()
        assert len(started_events) == 1
        assert client.get(f"/imports/{found.id}/columns").status_code == 303

    def test_it_can_be_stopped(self, client, session, uploaded):
        found = uploaded()
        started(client, found)
        answer = client.post(f"/imports/{found.id}/cancel", follow_redirects=True)
        assert "Stopped" in answer.text and fresh(session, found).state is ImportState.CANCELLED
        again = client.post(f"/imports/{found.id}/cancel", follow_redirects=True)
        assert "Not stopped" in again.text and "over already" in again.text

    def test_a_file_that_is_discarded_is_deleted(self, client, session, uploaded, folder):
        found = uploaded()
        assert len(list(folder.iterdir())) == 1
        client.post(f"/imports/{found.id}/cancel")
        assert fresh(session, found).state is ImportState.CANCELLED and list(folder.iterdir()) == []
        assert client.get(f"/imports/{found.id}").status_code == 200

    def test_what_was_given_up_says_what_to_press(self, client, session, uploaded, worked):
        found = uploaded()
        started(client, found)
        session.execute(sa.update(Import).values(tries=5))
        session.commit()
        worked()
        page = client.get(f"/imports/{found.id}").text
        assert "stopped by an error of ours" in page and "Upload the file again" in page
        assert "What came in before stays" not in page

    def test_a_failed_one_says_why(self, client, uploaded, worked, folder):
        found = uploaded('[{"email": "a@acme.example"}, {"email": ', "cut.json")
        started(client, found)
        worked()
        page = client.get(f"/imports/{found.id}").text
        assert "▲" in page and 'role="alert"' in page and "What came in before stays" in page

    def test_what_is_not_ours_is_404(self, client, session, manager):
        other = make_workspace(session)
        row = Import(workspace_id=other.id, filename="x.csv", format="csv", created_by="Eve")
        session.add(row)
        session.commit()
        for path in ("", "/columns", "/errors.csv", "/undo"):
            assert client.get(f"/imports/{row.id}{path}").status_code == 404
        for path in ("/columns", "/layout", "/start", "/cancel", "/undo"):
            assert client.post(f"/imports/{row.id}{path}").status_code == 404

    def test_a_long_list_has_pages(self, client, session, workspace, manager):
        session.add_all(
            Import(workspace_id=workspace.id, filename=f"f{n}.csv", format="csv", created_by="Max") for n in range(60)
        )
        session.commit()
        first = client.get("/imports").text
        following = re.search(r'rel="next"\s+href="([^"]+)"', first)
        assert first.count(".csv</a>") == 50 and following
        assert client.get(following[1]).text.count(".csv</a>") == 10


class TestUndo:
    @pytest.fixture
    def done(self, client, uploaded, worked):
        found = uploaded()
        started(client, found)
        worked()
        return found

    def test_it_says_first_what_goes_and_what_stays(self, client, session, done):
        session.execute(
            sa.update(Lead).where(Lead.name == "Ann Lee").values(status=LeadStatus.APPROVED, decided_by="Ann")
        )
        session.commit()
        page = client.get(f"/imports/{done.id}/undo").text
        assert "1 lead that nobody has worked on" in page and "1 lead that somebody has decided" in page
        assert "Names, phones and companies that the file added to people who were here before stay" in page
        assert len(session.scalars(sa.select(Lead.id)).all()) == 2

    def test_what_came_again_from_elsewhere_stays(self, client, session, workspace, done, worked):
        make_lead(session, workspace, "Please send a quote for 50 seats", name="Ann Lee", email="ann@acme.example")
        page = client.get(f"/imports/{done.id}/undo").text
        assert "1 lead that nobody has worked on" in page and "1 lead that went out already, came again" in page
        client.post(f"/imports/{done.id}/undo")
        worked()
        assert "stayed because they had been worked on" in client.get(f"/imports/{done.id}").text
        session.rollback()
        assert session.scalars(sa.select(Lead.name)).all() == ["Ann Lee"]

    def test_and_then_does_it(self, client, session, done, worked, rung):
        answer = client.post(f"/imports/{done.id}/undo", follow_redirects=True)
        assert "Undoing" in answer.text and rung[-1] == queue.IMPORTS
        assert 'hx-trigger="every 1s"' in answer.text
        worked()
        page = client.get(f"/imports/{done.id}").text
        assert "Undone by Max Manager" in page and "2 leads are gone" in page
        session.rollback()
        assert session.scalars(sa.select(Lead.id)).all() == []

    def test_only_once(self, client, done, worked):
        client.post(f"/imports/{done.id}/undo")
        worked()
        for answer in (
            client.post(f"/imports/{done.id}/undo", follow_redirects=True),
            client.get(f"/imports/{done.id}/undo", follow_redirects=True),
        ):
            assert "has been undone already" in answer.text

    def test_not_after_a_day(self, client, session, done):
        session.execute(sa.update(Import).values(finished_at=sa.func.now() - timedelta(hours=25)))
        session.commit()
        page = client.get(f"/imports/{done.id}").text
        assert "Undo this import" not in page and "24 hours" in page
        assert "24 hours" in client.post(f"/imports/{done.id}/undo", follow_redirects=True).text

    def test_leads_of_other_doors_stay(self, client, session, workspace, done, worked):
        kept = make_lead(session, workspace, door=Door.TRIAGE)
        client.post(f"/imports/{done.id}/undo")
        worked()
        session.rollback()
        assert session.scalars(sa.select(Lead.id)).all() == [kept.id]
        assert session.scalars(sa.select(ImportProblem.row_number)).all() == [2]
