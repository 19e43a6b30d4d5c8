"""A person's name in its parts: Western order by a library, Vietnamese order (family, middle, given) by the family name.

Vietnamese people are addressed by their given name, which stands last; reading "Nguyễn Thị Lan" in Western order would
greet a third of the country as "Nguyễn".
"""

import re
import unicodedata
from functools import lru_cache

from nameparser import HumanName

from webapp.leads.types import Fact

_PROVIDER = "name as written"
#: Longer ones are no person's.
_LONGEST = 120


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The usual family names, without their marks; nine in ten Vietnamese have one of them.
_FAMILY = _words(
    "nguyen tran le pham hoang huynh phan vu vo dang bui do ho ngo duong ly dinh doan trinh truong lam mai cao ta ha "
    "luong luu to chau quach kieu thai dao phung trieu"
)
#: Letters that are Vietnamese and hardly anything else.
_MARKED = re.compile(r"[ăâđêôơưĂÂĐÊÔƠƯảãạằẳẵặấầẩẫậẻẽẹếềểễệỉĩịỏõọốồổỗộớờởỡợủũụứừửữựỳỷỹỵ]")
_HONORIFICS = {
    "anh": "Anh", "chị": "Chị", "cô": "Cô", "chú": "Chú", "bác": "Bác", "ông": "Ông", "bà": "Bà",
    "mr": "Mr", "mrs": "Mrs", "ms": "Ms", "miss": "Miss", "mx": "Mx", "dr": "Dr", "prof": "Prof", "sir": "Sir",
    "herr": "Herr", "frau": "Frau", "mme": "Mme", "monsieur": "M.", "madame": "Mme", "señor": "Sr", "señora": "Sra",
}  # fmt: skip
_COMPANY = re.compile(
    r"\b(?:ltd|llc|inc|gmbh|corp|s\.?a\.?r\.?l|plc|co\.|jsc|tnhh|cty|công ty|company|shop|store|team|sales|support|"
    r"marketing|info|admin|test)\b",
    re.IGNORECASE,
)
_NOT_A_NAME = re.compile(r"[@\d/\\<>{}|_=+#]|https?:")


def name_facts(name: str | None, *, vietnamese: bool = False) -> tuple[Fact, ...]:
    """``first_name``, ``last_name`` and ``honorific`` as far as ``name`` has them. ``vietnamese``: something else about
    the lead is (its language, its number), so that an unmarked family name is read as one."""
    if not name or len(name) > _LONGEST or _NOT_A_NAME.search(name) or _COMPANY.search(name):
        return ()
    words = unicodedata.normalize("NFC", name).replace(" ,", ",").split()
    title = _HONORIFICS.get(words[0].rstrip(".").lower(), "") if words else ""
    if title:
        words = words[1:]
    if not words or len(words) > 8:
        return ()
    if _is_family(words, vietnamese or bool(_MARKED.search(name))):
        first, last, sure, note = words[-1], words[0], 0.9, "Vietnamese order: family name first"
    elif len(words) == 1 and title:
        first, last, sure, note = words[0], "", 0.7, ""
        if title in ("Mr", "Mrs", "Ms", "Dr", "Prof", "Herr", "Frau", "Mme", "M."):
            first, last = "", words[0]
    else:
        first, last, title = _western(" ".join(words), title)
        sure, note = (0.85, "") if first and last else (0.6, "one word only")
    return tuple(
        Fact(fact, value, _PROVIDER, sure, note=note)
        for fact, value in (("honorific", title), ("first_name", first), ("last_name", last))
        if value
    )


def _is_family(words: list[str], vietnamese: bool) -> bool:
    """Does the name begin with its family name, as Vietnamese ones do? "Le Roy" and "Lan Nguyen" do not."""
    return vietnamese and len(words) > 1 and _folded(words[0]) in _FAMILY and "," not in words[0]


@lru_cache(maxsize=1024)
def _folded(word: str) -> str:
    plain = unicodedata.normalize("NFD", word.lower().replace("đ", "d"))
    return "".join(char for char in plain if not unicodedata.combining(char))


@lru_cache(maxsize=2048)
def _western(name: str, title: str) -> tuple[str, str, str]:
    """(first, last, title). The library is asked only where the words alone do not tell: it takes half a millisecond."""
    words = name.split()
    if len(words) == 1:
        return words[0], "", title
    if len(words) == 2 and all(word.replace("-", "").replace("'", "").isalpha() for word in words):
        return words[0], words[1], title
    parsed = HumanName(name)
    return parsed.first, parsed.last, title or parsed.title
