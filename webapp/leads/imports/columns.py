"""Which column is which field of a lead, and a row as the lead it tells of."""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from webapp.leads import amounts, dedupe
from webapp.leads.errors import Invalid, Problem
from webapp.leads.imports.reading import Row
from webapp.leads.intake import MAX_MESSAGE, LeadIn, text_problem
from webapp.leads.states import Door
from webapp.leads.textnorm import fold_search

Seal = Callable[[Any], Any]

SHORT, LONG, MAX_ID = 500, 2_000, 128
#: Most problems told of one row.
_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a lead that a column can be. ``group``: lead | person | attribution | consent, for choosing from a
    list; ``limit``: characters."""

    name: str
    label: str
    group: str
    limit: int = SHORT


FIELDS = (
    Field("message", "Message", "lead", MAX_MESSAGE),
    Field("name", "Name", "person"),
    Field("first_name", "First name", "person"),
    Field("last_name", "Last name", "person"),
    Field("email", "E-mail", "person", 320),
    Field("phone", "Phone", "person"),
    Field("company", "Company", "person"),
    Field("job_title", "Job title", "person"),
    Field("address", "Address", "person"),
    Field("postal_code", "Postal code", "person"),
    Field("city", "City", "person"),
    Field("state_province", "State or province", "person"),
    Field("country", "Country", "person"),
    Field("date_of_birth", "Date of birth", "person"),
    Field("monthly_salary_min", "Monthly salary, from", "person"),
    Field("monthly_salary_max", "Monthly salary, to", "person"),
    Field("current_credit", "Current credit", "person"),
    Field("budget", "Budget", "lead"),
    Field("source", "Source", "lead"),
    Field("lead_id", "Your own id", "lead", MAX_ID),
    Field("callback_url", "Where to post the result", "lead", 2_000),
    Field("utm_source", "UTM source", "attribution"),
    Field("utm_medium", "UTM medium", "attribution"),
    Field("utm_campaign", "UTM campaign", "attribution"),
    Field("utm_term", "UTM term", "attribution"),
    Field("utm_content", "UTM content", "attribution"),
    Field("gclid", "Google click id", "attribution"),
    Field("fbclid", "Facebook click id", "attribution"),
    Field("landing_page", "Landing page", "attribution", LONG),
    Field("referrer", "Referrer", "attribution", LONG),
    Field("consent", "Consent", "consent"),
    Field("consent_at", "Consent given at", "consent"),
)
FIELD = {known.name: known for known in FIELDS}
_ATTRIBUTES = (
    "first_name", "last_name", "job_title", "address", "postal_code", "city", "state_province", "country",
    "date_of_birth", "monthly_salary_min", "monthly_salary_max", "current_credit",
)  # fmt: skip
_ATTRIBUTION = tuple(known.name for known in FIELDS if known.group == "attribution")

#: Spellings of column names, folded: letters and digits alone, without marks.
_SPELLINGS: dict[str, str] = {
    "message": "message note notes text comment comments body remark remarks inquiry enquiry request question "
    "description details content msg yourmessage leadmessage noidung tinnhan loinhan ghichu yeucau binhluan nachricht "
    "bemerkung bemerkungen kommentar anfrage notiz mitteilung mensaje comentario comentarios nota consulta messaggio "
    "mensagem observacao remarque commentaire demande",
    "name": "name fullname contactname leadname customername customer contact person personname yourname hoten hovaten "
    "tenkhachhang tendaydu khachhang vollername kunde kontakt ansprechpartner nombrecompleto nomecompleto nomcomplet "
    "nominativo",
    "first_name": "firstname givenname forename fname first vorname ten tendem nombre prenom nome primeironome",
    "last_name": "lastname surname familyname lname last nachname familienname zuname ho apellido apellidos nomdefamille "
    "cognome sobrenome",
    "email": "email emailaddress mail emails workemail businessemail contactemail primaryemail eaddress youremail "
    "emailadresse mailadresse diachiemail thudientu correo correoelectronico courriel adressemail adresseemail "
    "posta postaelettronica enderecodeemail",
    "phone": "phone mobile tel phonenumber telephone telephonenumber mobilephone mobilenumber cell cellphone cellnumber "
    "workphone homephone contactnumber phoneno mobileno whatsapp zalo sdt sodienthoai dienthoai didong sodidong telefon "
    "telefonnummer handy handynummer mobiltelefon mobil telefono movil celular telefone numerodetelephone portable "
    "cellulare",
    "company": "company companyname organization organisation organizationname organisationname account accountname "
    "business businessname employer firm congty tencongty doanhnghiep tochuc firma firmenname unternehmen empresa "
    "compania societe entreprise azienda societa",
    "job_title": "jobtitle title position role jobrole jobfunction designation chucvu chucdanh vitri berufsbezeichnung "
    "beruf cargo puesto poste fonction ruolo",
    "address": "address addressline1 address1 street streetaddress mailingaddress diachi adresse strasse anschrift "
    "direccion indirizzo endereco rue",
    "postal_code": "postalcode postcode zip zipcode mabuuchinh mabuudien plz postleitzahl codigopostal codepostal cap cep",
    "city": "city town locality thanhpho tinhthanh stadt ort ciudad ville citta cidade",
    "state_province": "state province stateprovince region county tinh bundesland estado provincia provincie",
    "country": "country countryname countrycode nation quocgia nuoc land staat pais pays paese",
    "date_of_birth": "dateofbirth dob birthdate birthday ngaysinh geburtsdatum geburtstag fechadenacimiento "
    "datedenaissance datadinascita datadenascimento",
    "monthly_salary_min": "monthlysalarymin salarymin minsalary luongtu",
    "monthly_salary_max": "monthlysalarymax salarymax maxsalary luongden",
    "current_credit": "currentcredit creditscore credit",
    "budget": "budget amount value dealvalue dealsize estimatedvalue expectedrevenue ngansach budgetusd budgeteur "
    "presupuesto orcamento etat",
    "source": "source leadsource origin channel utmchannel nguon kenh quelle herkunft kanal fuente origen canal fonte "
    "origem provenance",
    "lead_id": "leadid id externalid recordid crmid customerid contactid leadnumber leadno reference referenceid ref "
    "malead makhachhang kundennummer kundennr idcliente",
    "utm_source": "utmsource",
    "utm_medium": "utmmedium medium",
    "utm_campaign": "utmcampaign campaign campaignname chiendich kampagne campana campagne",
    "utm_term": "utmterm keyword",
    "utm_content": "utmcontent",
    "gclid": "gclid googleclickid",
    "fbclid": "fbclid facebookclickid",
    "landing_page": "landingpage landingpageurl pageurl page",
    "referrer": "referrer referer",
    "consent": "consent optin marketingconsent gdprconsent gdpr newsletter dongy einwilligung zustimmung consentimiento "
    "consentement consenso",
    "consent_at": "consentat consentdate optindate optintime consenttime einwilligungam",
}
_FIELD_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_FIELD_OF |= {re.sub("[^a-z0-9]", "", name): name for name in FIELD}


def guess_field(column: str) -> str | None:
    """The field that a column of this name most likely is."""
    folded = re.sub("[^a-z0-9]", "", fold_search(column))
    return _FIELD_OF.get(folded)


def guess(columns: Sequence[str]) -> dict[str, str]:
    """Column → field, by their names; each field once, the first column that is called so."""
    mapping: dict[str, str] = {}
    taken: set[str] = set()
    for column in columns:
        found = guess_field(column)
        if found and found not in taken:
            mapping[column] = found
            taken.add(found)
    return mapping


def check_mapping(columns: Sequence[str], mapping: Mapping[str, Any]) -> dict[str, str]:
    """The mapping without what stays unmapped ("" or None). Invalid, with every problem, for a column that is not
    there, a field that does not exist or is named twice, and when no row could become a lead by it."""
    problems: list[Problem] = []
    chosen: dict[str, str] = {}
    for column, wanted in mapping.items():
        if wanted in (None, ""):
            continue
        if column not in columns:
            problems.append(Problem(str(column)[:SHORT], "there is no such column"))
        elif not isinstance(wanted, str) or wanted not in FIELD:
            problems.append(Problem(str(column), "there is no such field"))
        elif wanted in chosen.values():
            problems.append(Problem(str(column), f"another column is {FIELD[wanted].label} already"))
        else:
            chosen[column] = wanted
    if not problems and not {"message", "email", "phone"} & set(chosen.values()):
        problems.append(Problem("mapping", "one column must be the message, the e-mail or the phone"))
    if problems:
        raise Invalid("The columns cannot be read that way.", details=tuple(problems))
    return chosen


def _no_callbacks(url: str) -> str | None:
    return "cannot be used here"


@dataclass(slots=True)
class Mapper:
    """Makes leads of rows. ``seal`` encrypts the sensitive values of a JSON object in a copy of it
    (``FieldCipher.seal``). ``columns``: those that ``mapping`` was chosen from; ``open_ended``: other names, which
    the file's first rows did not have, are guessed as they come. ``callback_problem``: why an address for the result is
    refused (webapp.leads.callbacks)."""

    mapping: Mapping[str, str]
    seal: Seal
    door: Door = Door.IMPORT
    source: str = "import"
    import_id: uuid.UUID | None = None
    open_ended: bool = False
    columns: Sequence[str] = ()
    callback_problem: Callable[[str], str | None] = _no_callbacks
    _known: frozenset[str] = field(default=frozenset(), init=False)

    def __post_init__(self) -> None:
        self._known = frozenset((*self.mapping, *self.columns))

    def lead(self, row: Row) -> LeadIn | tuple[Problem, ...]:
        """The lead, or what keeps the row from being one."""
        if row.values is None:
            return (row.problem or Problem("row", "cannot be read"),)
        found, problems = self._fields(row.values)
        if not (found.get("message", "").strip() or found.get("email") or found.get("phone")):
            problems.append(Problem("row", "a lead needs a message, an e-mail or a phone"))
        if email := found.get("email"):
            try:
                dedupe.checked_email(email)
            except ValueError as error:
                problems.append(Problem("email", str(error)))
        budget = _checked(problems, "budget", found, _amount)
        consent_at = _checked(problems, "consent_at", found, _moment)
        if (url := found.get("callback_url")) and (wrong := self.callback_problem(url)):
            problems.append(Problem("callback_url", wrong))
        problems += _storable(row.values)
        if problems:
            return tuple(problems[:_MOST_PROBLEMS])
        return self._lead(row.values, found, budget, consent_at)

    def _lead(
        self, values: dict[str, Any], found: dict[str, str], budget: float | None, consent_at: datetime | None
    ) -> LeadIn:
        attributes = {name: found[name] for name in _ATTRIBUTES if name in found}
        payload = values
        if attributes:
            sealed = self.seal(attributes)
            if sealed != attributes:
                payload = values | {
                    column: sealed[name]
                    for column, name in self._mapped(values)
                    if column in values and name in sealed and sealed[name] != attributes[name]
                }
            attributes = sealed
        name = found.get("name") or " ".join(part for part in (found.get("first_name"), found.get("last_name")) if part)
        return LeadIn(
            door=self.door,
            message=found.get("message", ""),
            source=found.get("source") or self.source,
            name=name or None,
            email=found.get("email"),
            phone=found.get("phone"),
            company=found.get("company"),
            budget=budget,
            external_id=found.get("lead_id"),
            attributes=attributes,
            attribution={name: found[name] for name in _ATTRIBUTION if name in found},
            consent=_consent(found.get("consent")),
            consent_at=consent_at,
            import_id=self.import_id,
            callback_url=found.get("callback_url"),
            payload=self.seal(payload),
        )

    def _mapped(self, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """The columns that are fields; not all of them need be in ``values``."""
        if not self.open_ended or values.keys() <= self._known:
            return self.mapping.items()
        pairs = [(column, name) for column, name in self.mapping.items() if column in values]
        taken = {name for _, name in pairs}
        for column in values:
            name = None if column in self._known else _cached_guess(column)
            if name and name not in taken:
                pairs.append((column, name))
                taken.add(name)
        return pairs

    def _fields(self, values: dict[str, Any]) -> tuple[dict[str, str], list[Problem]]:
        found: dict[str, str] = {}
        problems: list[Problem] = []
        for column, name in self._mapped(values):
            value = values.get(column)
            if value is None or value == "":
                continue
            if not isinstance(value, str):
                if isinstance(value, bool):
                    value = "yes" if value else "no"
                elif isinstance(value, int | float):
                    # A number's point groups nothing, also before three digits.
                    value = f"{value:f}" if name == "budget" and isinstance(value, float) else str(value)
                else:
                    problems.append(Problem(name, "must be text"))
                    continue
            if name != "message":
                value = value.strip()
            if len(value) > FIELD[name].limit:
                problems.append(Problem(name, f"must have at most {FIELD[name].limit:,} characters"))
            elif value:
                found[name] = value
        return found, problems


_cached_guess = lru_cache(maxsize=1024)(guess_field)


def _checked(problems: list[Problem], name: str, found: Mapping[str, str], parse: Callable[[str], Any]) -> Any:
    if name not in found:
        return None
    try:
        return parse(found[name])
    except ValueError as error:
        problems.append(Problem(name, str(error)))
        return None


@lru_cache(maxsize=4096)  # a file's budgets are round, and few
def _amount(text: str) -> float:
    """``$1,234.50``, ``1.234,50 €``, ``20k`` (leads.amounts). ValueError otherwise."""
    amount = amounts.read(text)
    if amount is None:
        raise ValueError("must be one amount of 0 or more, of at most 15 digits, such as 12,500 or 20k")
    return amount


def _moment(text: str) -> datetime:
    """An ISO 8601 date or time; one without a zone is taken to be UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a date or time such as 2026-03-31T09:00:00Z") from None
    if not 1900 <= moment.year <= 2200:
        raise ValueError("must lie between 1900 and 2200")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_YES = frozenset(["yes", "y", "true", "1", "x", "ja", "j", "co", "si", "oui", "sim"])
_NO = frozenset(["no", "n", "false", "0", "nein", "khong", "non", "nao"])


def _consent(text: str | None) -> str | None:
    if text is None:
        return None
    folded = fold_search(text)
    return "yes" if folded in _YES else "no" if folded in _NO else text


def _storable(values: Mapping[str, Any]) -> list[Problem]:
    """What PostgreSQL cannot hold, by column."""
    problems = []
    for column, value in values.items():
        if isinstance(value, str) and value.isascii() and "\x00" not in value:
            continue
        if reason := _unstorable(value):
            problems.append(Problem(str(column)[:SHORT].replace("\x00", ""), reason))
        elif reason := text_problem(column):
            problems.append(Problem("row", f"has a name that {reason}"))
    return problems


def _unstorable(value: Any) -> str | None:
    if isinstance(value, str):
        return text_problem(value)
    if isinstance(value, dict):
        return next(filter(None, (_unstorable(part) for pair in value.items() for part in pair)), None)
    if isinstance(value, list):
        return next(filter(None, map(_unstorable, value)), None)
    return None
