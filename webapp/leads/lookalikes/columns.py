"""Which column of a table of people is which field, by its name."""

import re
from collections.abc import Iterable, Sequence

from webapp.leads.textnorm import fold_search

_PLAIN = re.compile(r"[\W_]+")

#: Field → the names of its columns, folded, letters and digits alone. The first that a table has is taken.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "id": ("id", "recid", "recordid", "rowid", "personid", "customerid", "contactid", "leadid", "uid", "key"),
    "first": ("firstname", "givenname", "givennames", "forename", "forenames", "first", "fname", "givname", "vorname",
              "prenom", "nombre", "ten"),
    "last": ("lastname", "surname", "familyname", "last", "lname", "sname", "secondname", "nachname", "nomdefamille",
             "apellido", "apellidos", "ho", "cognome"),
    "name": ("fullname", "name", "personname", "contactname", "customername", "displayname", "hoten", "hovaten",
             "tenkhachhang", "clientname"),
    "company": ("company", "companyname", "organization", "organisation", "organizationname", "organisationname",
                "employer", "business", "businessname", "account", "accountname", "org", "firma", "congty"),
    "street_number": ("streetnumber", "streetno", "housenumber", "houseno", "housenum", "stnumber", "streetnum", "hausnummer",
                      "sonha", "number"),
    "address": ("address1", "addressline1", "address", "street", "streetaddress", "streetname", "addr", "addr1",
                "fulladdress", "road", "strasse", "mailingaddress", "homeaddress", "diachi", "line1"),
    "address_2": ("address2", "addressline2", "addr2", "street2", "unit", "apartment", "suite", "building", "line2"),
    "city": ("city", "suburb", "town", "locality", "cityname", "municipality", "ort", "stadt", "thanhpho", "ville"),
    "postcode": ("postcode", "postalcode", "zip", "zipcode", "postal", "pincode", "plz", "pcode", "zippostalcode",
                 "mabuudien"),
    "state": ("state", "stateprovince", "province", "region", "county", "statecode", "tinh", "bundesland"),
    "country": ("country", "countrycode", "nation", "countryname", "quocgia"),
    "date_of_birth": ("dateofbirth", "dob", "birthdate", "birthday", "birth", "dobirth", "bdate", "geburtsdatum",
                      "ngaysinh", "dateofbirthiso"),
    "email": ("email", "emailaddress", "mail", "emailid", "emailaddr", "emailnormalized", "workemail", "email1"),
    "phone": ("phone", "phonenumber", "mobile", "mobilephone", "mobilenumber", "tel", "telephone", "telephonenumber", "cell",
              "cellphone", "phone1", "contactnumber", "phoneno", "mobileno", "sodienthoai", "sdt", "dienthoai"),
}  # fmt: skip


def plain(name: str) -> str:
    """A column's name as it is compared: ``Given Name``, ``given_name`` and ``givenName`` are one."""
    return _PLAIN.sub("", fold_search(name))


def guess(columns: Sequence[str]) -> dict[str, int]:
    """field → position of its column, as far as there is one."""
    positions: dict[str, int] = {}
    for position, column in enumerate(columns):
        positions.setdefault(plain(column), position)
    found = {}
    for field, names in SPELLINGS.items():
        known = next((name for name in names if name in positions), None)
        if known is not None:
            found[field] = positions[known]
    return found


def comparable(fields: Iterable[str]) -> bool:
    """Whether two rows with these fields can be told apart at all: a name, or something that is one person's own."""
    return not {"first", "last", "name", "email", "phone"}.isdisjoint(fields)
