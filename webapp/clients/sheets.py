"""Google Sheets: one row for each lead, found by the lead's id in column A and written by the names in row 1.

Row 1 and column A are read before each write, so colleagues may move rows and columns and add their own; cells of other
columns are left as they are. Values are written RAW: a lead's ``=FORMULA`` stays text. Whoever calls sees to it that one
delivery at a time writes to a spreadsheet (``Kind.one_at_a_time``).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from webapp.clients.google_tokens import NEW_KEY, ServiceAccount
from webapp.clients.http import Answer, HttpClient
from webapp.leads.ports import DeliveryRequest, OutcomeUnknown, Receipt, Refused, Unreached, Unusable
from webapp.leads.states import DeliveryOperation

SCOPE = "https://www.googleapis.com/auth/spreadsheets"
#: As webapp.leads.kinds.sheets reserves them: the header of column A, and of the one that says whether a lead counts.
KEY, STATUS = "Lead ID", "Lead status"
ACTIVE, TAKEN_BACK = "active", "taken back"
#: Some 200,000 rows with a key of 36 characters.
MAX_READ = 8 * 1_048_576

#: Written as a number, so that the column can be sorted by it. What begins with a zero or is long is a name of something.
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,8})(\.\d{1,6})?")
_ANOTHER_TAB = "Choose another tab in its settings."
_SWITCHED_OFF = (
    "the Google Sheets API is switched off in the service account's project",
    "Switch it on there, in Google Cloud.",
)
#: What a refusal holds → (what is wrong, what to do).
_IN_WORDS = {
    "has not been used in project": _SWITCHED_OFF,
    "SERVICE_DISABLED": _SWITCHED_OFF,
    "protected cell": ("a part of the tab is protected against the service account", "Unprotect it there."),
    "exceeds grid limits": ("the tab has no room for another column; add columns there", _ANOTHER_TAB),
    "number of cells in the workbook": ("the spreadsheet is full", "Choose another spreadsheet in its settings."),
}


@dataclass(frozen=True, slots=True)
class _Tab:
    """What a tab holds: its header, and the rows (from 1) by what stands in column A; the first of those that repeat."""

    header: Sequence[str]
    rows: Mapping[str, int]


class SheetsClient:
    reconciles = True

    def __init__(
        self, http: HttpClient, account: ServiceAccount, *, spreadsheet: str, tab: str, columns: Sequence[str] = ()
    ) -> None:
        """``columns``: those that a header has from the beginning, whatever the first lead fills."""
        self._http = http
        self._account = account
        self._spreadsheet = spreadsheet
        self._tab = tab
        self._columns = list(columns)

    def send(self, request: DeliveryRequest) -> Receipt:
        tab = self._read()
        row = tab.rows.get(str(request.lead.lead_id))
        if row is None and request.withdrawn:
            return Receipt()
        if row is None and request.operation is not DeliveryOperation.SEND and request.remote.get(request.action):
            raise Refused("its row was deleted in the sheet; it is not written again")
        shown = self.render(request)
        values = shown if not request.withdrawn else {name: shown[name] for name in (KEY, STATUS)}
        header = self._headed(tab.header, values)
        if row is None:
            return self._append(header, values)
        return self._put(f"A{row}", _row(header, values), values)

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """:meth:`send` looks for the row in any case; one that is there already may be as an earlier lead left it."""
        return None

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        """Column → what it holds."""
        status = TAKEN_BACK if request.withdrawn else ACTIVE
        return {KEY: str(request.lead.lead_id), STATUS: status, **request.fields}

    def probe(self) -> str:
        """Reads, and writes the header, or its first cell as it is: whether the account may write is seen by that."""
        tab = self._read()
        if self._headed(tab.header, ()) == tab.header:
            self._put("A1", [KEY], {})
        found = len(tab.rows) - (KEY in tab.rows)
        rows = f"{found:,} {'row' if found == 1 else 'rows'}"
        return f"The tab {self._tab} can be read and written; it has {rows}."

    def _read(self) -> _Tab:
        ranges = [self._range("1:1"), self._range("A:A")]
        query = urlencode([("majorDimension", "ROWS"), ("prettyPrint", "false"), *(("ranges", one) for one in ranges)])
        answer = self._call("GET", f"/values:batchGet?{query}")
        if answer.cut:
            raise Unusable("the tab has too many rows; begin another one", remedy=_ANOTHER_TAB)
        try:
            head, keys = (found.get("values") or [] for found in answer.data["valueRanges"])
            header = [str(cell) for cell in head[0]] if head else []
            rows: dict[str, int] = {}
            for number, cells in enumerate(keys, start=1):
                if cells and cells[0] != "":
                    rows.setdefault(str(cells[0]), number)
        except (TypeError, KeyError, ValueError, AttributeError):
            raise Unreached("answered something that is not Google's", exchange=answer.exchange) from None
        return _Tab(header, rows)

    def _headed(self, header: Sequence[str], wanted: Iterable[str]) -> Sequence[str]:
        """The header with our columns and all that is ``wanted``; what it lacks is written at its end."""
        if header and header[0].strip() and _folded(header[0]) != _folded(KEY):
            words = f"column A of the tab holds “{header[0][:40]}”; leave it empty for “{KEY}”, or take another tab"
            raise Unusable(words, remedy=_ANOTHER_TAB)
        there = {_folded(name) for name in header if name.strip()}
        complete = [KEY, *header[1:]]
        ours = {_folded(name): name for name in (*wanted, *self._columns, STATUS, KEY)}
        lacking = [ours.pop(_folded(name), "") for name in (KEY, STATUS, *self._columns, *wanted)]
        complete += [name for name in lacking if name and _folded(name) not in {*there, _folded(KEY)}]
        if complete != list(header):
            old = [*header, *[""] * (len(complete) - len(header))]
            # Null leaves a cell as it is.
            self._put("A1", [new if new != was else None for new, was in zip(complete, old, strict=True)], {})
        return complete

    def _append(self, header: Sequence[str], values: Mapping[str, Any]) -> Receipt:
        options = urlencode({"valueInputOption": "RAW", "insertDataOption": "INSERT_ROWS"})
        path = f"/values/{quote(self._range('A1'), safe='')}:append?{options}"
        body = {"majorDimension": "ROWS", "values": [_row(header, values)]}
        answer = self._call("POST", path, json_body=body, shown=dict(values))
        updates = answer.data.get("updates") if isinstance(answer.data, dict) else None
        if not isinstance(updates, dict) or not updates.get("updatedRange"):
            raise OutcomeUnknown("answered something that is not Google's", exchange=answer.exchange)
        return Receipt(_cell(str(updates["updatedRange"])), answer.exchange)

    def _put(self, cell: str, row: Sequence[Any], values: Mapping[str, Any]) -> Receipt:
        path = f"/values/{quote(self._range(cell), safe='')}?valueInputOption=RAW"
        body = {"majorDimension": "ROWS", "values": [row]}
        answer = self._call("PUT", path, json_body=body, shown=dict(values))
        if not isinstance(answer.data, dict) or not answer.data.get("updatedRange"):
            raise OutcomeUnknown("answered something that is not Google's", exchange=answer.exchange)
        return Receipt(_cell(str(answer.data["updatedRange"])), answer.exchange)

    def _range(self, cells: str) -> str:
        """In A1 notation, where an apostrophe in a name is doubled."""
        return f"'{self._tab.replace(chr(39), chr(39) * 2)}'!{cells}"

    def _call(self, method: str, path: str, **body: Any) -> Answer:
        """With an access token; once more with a new one where it is refused."""
        token = self._account.token()
        try:
            return self._once(method, path, token, **body)
        except Refused as error:
            if error.exchange.http_status != 401:
                raise self._in_words(error) from None
        try:
            return self._once(method, path, self._account.token(refused=token), **body)
        except Refused as error:
            raise self._in_words(error) from None

    def _once(self, method: str, path: str, token: str, **body: Any) -> Answer:
        headers = {"Authorization": f"Bearer {token}"}
        where = f"/v4/spreadsheets/{self._spreadsheet}{path}"
        return self._http.call(method, where, headers=headers, max_body=MAX_READ, **body)

    def _in_words(self, error: Refused) -> Refused | Unusable:
        """Unusable where it is about the spreadsheet, whatever the lead."""
        status, said = error.exchange.http_status, error.exchange.excerpt or ""
        share = f"Share it with {self._account.email} as an editor, or put its address right in its settings."
        known = next((known for sign, known in _IN_WORDS.items() if sign in said), None)
        if known is None and status == 404:
            known = f"there is no such spreadsheet, or it is not shared with {self._account.email}", share
        elif known is None and status == 403:
            known = f"the spreadsheet is not shared with {self._account.email} as an editor", share
        elif known is None and status == 400 and "Unable to parse range" in said:
            known = f"the spreadsheet has no tab called {self._tab}", _ANOTHER_TAB
        elif known is None and status == 401:
            known = "Google does not accept the service account's access", NEW_KEY
        return error if known is None else Unusable(known[0], remedy=known[1])


def _row(header: Sequence[str], values: Mapping[str, Any]) -> list[Any]:
    """A row in the header's order; None, which leaves a cell as it is, where there is nothing to write."""
    found = {_folded(name): _typed(text) for name, text in values.items()}
    return [found.pop(_folded(name), None) if name.strip() else None for name in header]


def _typed(text: Any) -> Any:
    if isinstance(text, str) and _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _cell(updated: str) -> str:
    """``Leads!A12`` of ``Leads!A12:H12``."""
    return updated.partition(":")[0][:200]
