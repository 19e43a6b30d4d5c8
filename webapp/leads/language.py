"""Which language a text is in, by what each of its words says about it."""

import re
from typing import Final

_VI_BARE_WORDS = """
khong ko hok hong hem hom kg dc duoc minh mik mk anh chi em ben cho gia nhieu nhiu bao nha nhe voi cua
roi giup gi nao nay vay sao xin tu van goi lai can mua ban hang muon lay dat chot cty cong ty ng nguoi
thi chua con cam on oi ad shop la co o toi bn sdt dien thoai ngay gap khi neu de den di ra vao ve them
mot hai nhan gui tien loi hoi lam tuyen hop tac va cac nhung trong ngoai sau truoc
"""
_VI_BARE = frozenset(_VI_BARE_WORDS.split())
_EN_COMMON_WORDS = """
the you your is are for and with this that have can we i my our of to in on it a an be do does how what
please from at or if not would could any us me by was will about has
"""
_EN_COMMON = frozenset(_EN_COMMON_WORDS.split())
_LOANS_WORDS = """
shop size ship online email mail zoom app web website link inbox sale fanpage menu file excel zalo
facebook fb tiktok video laptop camera pro vip combo team group admin ok oke hotline internet wifi
massage spa photo seo google marketing sir data demo gps pin code freeship form logo fan like
"""
_LOANS = frozenset(_LOANS_WORDS.split())
_VI_SYLLABLE = re.compile(
    r"(?:ngh|ng|nh|gh|gi|kh|ph|qu|th|tr|ch|[bcdghklmnpqrstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?"
)

_VOWELS = frozenset("aeiou")

#: What a word says: nothing, being no word; nothing; diacritics; … How many there are.
_NONE: Final = 0
_WORD: Final = 1
_MARKED: Final = 2
_SHAPED: Final = 3
_FOREIGN: Final = 4
_BOTH: Final = 5
_ENGLISH: Final = 6
_BARE: Final = 7
SIGNS: Final = 8


def sign_of(word: str) -> int:
    """What a casefolded word says about the language of its text; 0 for what is no word."""
    if not word.isalpha():
        return _NONE
    if not word.isascii():
        return _MARKED
    if word in _EN_COMMON:
        return _BOTH if word in _VI_BARE else _ENGLISH
    if word in _VI_BARE:
        return _BARE
    if _VI_SYLLABLE.fullmatch(word):
        return _SHAPED
    if len(word) > 2 and word not in _LOANS and not _VOWELS.isdisjoint(word):
        return _FOREIGN
    return _WORD


def language(signs: list[int]) -> tuple[str, bool]:
    """Of a text with so many words of each sign: ``en``, ``vi`` or ``mixed`` (English when nothing speaks for
    Vietnamese), and whether diacritics are left out."""
    total = sum(signs) - signs[_NONE]
    marked, shaped, foreign, both = signs[_MARKED], signs[_SHAPED], signs[_FOREIGN], signs[_BOTH]
    english, bare = signs[_ENGLISH], signs[_BARE]
    english += both
    bare += both
    if total > 1 and english * 4 <= min(total, bare * 4) and (bare + shaped + english) * 4 >= total * 3:
        bare += shaped  # a bare Vietnamese text of rarer words
    elif bare and not english and not foreign:
        bare += shaped  # the rest are loans, sizes and abbreviations, which either language has
    if (marked * 5 < total and bare * 3 < total) or (not marked and bare <= english):
        return "en", False
    mixed = foreign + english >= 3 or (foreign >= 2 and foreign * 8 >= total)
    return "mixed" if mixed else "vi", marked * 6 < total
