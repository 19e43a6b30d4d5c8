"""The closed list of industries, and how words and codes of the official classifications become one of them."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from webapp.leads.types import Fact, best

#: Slug → how people read it.
NAMES: dict[str, str] = {
    "software": "Software and IT",
    "finance": "Banking and finance",
    "insurance": "Insurance",
    "healthcare": "Health care",
    "education": "Education",
    "manufacturing": "Manufacturing",
    "construction": "Construction",
    "real_estate": "Real estate",
    "retail": "Retail",
    "ecommerce": "Online retail",
    "logistics": "Transport and logistics",
    "automotive": "Automotive",
    "hospitality": "Hotels and hospitality",
    "food": "Food and restaurants",
    "travel": "Travel",
    "media": "Media and entertainment",
    "marketing": "Marketing and advertising",
    "professional_services": "Professional services",
    "legal": "Legal",
    "energy": "Energy and utilities",
    "agriculture": "Agriculture",
    "telecom": "Telecommunications",
    "government": "Government",
    "nonprofit": "Non-profit",
    "other": "Other",
}

#: Words that speak for an industry, English and Vietnamese, as parts of a company's name or description. Whole words,
#: a hyphen for a space; "s" at the end is read as a plural.
_WORDS: dict[str, str] = {
    "software": "software saas platform app developer it-services cloud cybersecurity data analytics phần-mềm "
    "công-nghệ-thông-tin erp crm-system devops tech technologies",
    "finance": "bank banking finance financial investment capital fintech lending credit wealth-management asset-management "
    "accounting-software ngân-hàng tài-chính chứng-khoán",
    "insurance": "insurance insurer reinsurance underwriting bảo-hiểm versicherung",
    "healthcare": "clinic hospital health healthcare medical dental dentist pharma pharmacy pharmaceutical biotech nursing "
    "physiotherapy veterinary phòng-khám bệnh-viện nha-khoa y-tế dược",
    "education": "school university college education academy training-center tutoring kindergarten edtech e-learning "
    "trường-học đại-học giáo-dục trung-tâm-anh-ngữ",
    "manufacturing": "manufacturing manufacturer factory industrial machinery steel plastics textile packaging chemicals "
    "electronics-manufacturer valves pumps nhà-máy sản-xuất cơ-khí may-mặc",
    "construction": "construction builder contractor architecture architect roofing plumbing civil-engineering interior-design "
    "xây-dựng nội-thất kiến-trúc",
    "real_estate": "real-estate realty property-management properties realtor apartments bất-động-sản nhà-đất immobilien",
    "ecommerce": "e-commerce ecommerce online-shop online-store webshop marketplace dropshipping thương-mại-điện-tử",
    "retail": "retail retailer supermarket boutique clothing fashion furniture-store jewelry cửa-hàng siêu-thị thời-trang",
    "logistics": "logistics freight shipping courier warehouse warehousing trucking supply-chain transport vận-tải kho-bãi "
    "giao-nhận spedition",
    "automotive": "automotive automobile car-dealer dealership auto-parts vehicles garage ô-tô xe-máy",
    "hospitality": "hotel hostel resort homestay hospitality spa khách-sạn",
    "food": "restaurant cafe coffee bakery catering food beverage brewery nhà-hàng quán-ăn cà-phê thực-phẩm đồ-uống",
    "travel": "travel tourism tour-operator airline cruise travel-agency du-lịch lữ-hành",
    "media": "media publishing publisher newspaper film studio broadcasting music games gaming entertainment truyền-thông "
    "báo-chí",
    "marketing": "marketing advertising branding seo public-relations creative-agency digital-agency quảng-cáo tiếp-thị",
    "legal": "law-firm lawyer lawyers attorney attorneys solicitor notary legal luật-sư văn-phòng-luật rechtsanwalt",
    "professional_services": "consulting consultancy consultants accounting accountants audit recruitment staffing "
    "human-resources architects-office engineering-services tư-vấn kế-toán kiểm-toán nhân-sự",
    "energy": "energy solar wind-power oil gas electricity utility utilities renewable điện-lực năng-lượng dầu-khí",
    "agriculture": "agriculture farm farming agritech livestock seeds fertilizer nông-nghiệp thủy-sản chăn-nuôi",
    "telecom": "telecom telecommunications telco broadband isp mobile-operator viễn-thông",
    "government": "government ministry municipality city-council public-sector embassy ủy-ban chính-phủ",
    "nonprofit": "nonprofit non-profit charity foundation ngo church quỹ-từ-thiện phi-lợi-nhuận",
}

#: NAICS (2022) by the longest prefix that is listed.
_NAICS = {
    "11": "agriculture", "21": "energy", "22": "energy", "23": "construction", "31": "manufacturing", "311": "food",
    "312": "food", "32": "manufacturing", "33": "manufacturing", "3361": "automotive", "3362": "automotive",
    "3363": "automotive", "42": "retail", "44": "retail", "45": "retail", "441": "automotive", "4541": "ecommerce",
    "48": "logistics", "481": "travel", "49": "logistics", "51": "media", "5112": "software", "5132": "software",
    "517": "telecom", "518": "software", "519": "media", "5192": "software", "52": "finance", "524": "insurance",
    "53": "real_estate", "54": "professional_services", "5411": "legal", "5415": "software", "5418": "marketing",
    "55": "professional_services", "56": "professional_services", "5615": "travel", "61": "education",
    "62": "healthcare", "71": "media", "721": "hospitality", "72": "food", "722": "food", "811": "automotive",
    "8131": "nonprofit", "813": "nonprofit", "81": "other", "92": "government",
}  # fmt: skip
#: SIC (1987), likewise.
_SIC = {
    "01": "agriculture", "02": "agriculture", "07": "agriculture", "10": "energy", "12": "energy", "13": "energy",
    "15": "construction", "16": "construction", "17": "construction", "20": "food", "21": "manufacturing",
    "22": "manufacturing", "23": "manufacturing", "24": "manufacturing", "25": "manufacturing", "26": "manufacturing",
    "27": "media", "28": "manufacturing", "2834": "healthcare", "29": "energy", "3": "manufacturing",
    "371": "automotive", "40": "logistics", "41": "logistics", "42": "logistics", "44": "logistics", "45": "travel",
    "47": "logistics", "472": "travel", "48": "telecom", "483": "media", "49": "energy", "50": "retail",
    "51": "retail", "52": "retail", "53": "retail", "54": "retail", "55": "automotive", "56": "retail", "57": "retail",
    "58": "food", "59": "retail", "5961": "ecommerce", "60": "finance", "61": "finance", "62": "finance",
    "63": "insurance", "64": "insurance", "65": "real_estate", "67": "finance", "70": "hospitality",
    "731": "marketing", "737": "software", "73": "professional_services", "75": "automotive", "78": "media",
    "79": "media", "80": "healthcare", "81": "legal", "82": "education", "83": "nonprofit", "86": "nonprofit",
    "87": "professional_services", "9": "government",
}  # fmt: skip


_INDUSTRY = {words.replace("-", " "): slug for slug, listed in _WORDS.items() for words in listed.split()}
_LONGEST = max(phrase.count(" ") for phrase in _INDUSTRY) + 1


def _phrases(text: str) -> Iterator[tuple[str, str]]:
    """(words, industry) in the order of the text; of phrases that begin at one word, the longest."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold())
    at = 0
    while at < len(words):
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            phrase = " ".join(words[at : at + length])
            slug = _INDUSTRY.get(phrase) or (_INDUSTRY.get(phrase[:-1]) if phrase.endswith("s") else None)
            if slug:
                yield phrase, slug
                at += length - 1
                break
        at += 1


def of_code(code: str) -> str | None:
    """The industry of a NAICS code, or of a SIC code of four digits; None when it is neither.

    Both have codes of four digits; providers that send one number send NAICS with six, so four are read as SIC."""
    digits = re.sub(r"\D", "", code)
    table = _SIC if len(digits) == 4 else _NAICS
    for length in range(min(len(digits), 4), 0, -1):
        if digits[:length] in table:
            return table[digits[:length]]
    return None


@lru_cache(maxsize=2048)
def of_text(text: str) -> tuple[str, str] | None:
    """(industry, the words that say so) of a company's name, description or somebody's word for its business. The one
    that is named most often, of equals the first; None when nothing says anything."""
    if text.strip().lower().replace(" ", "_") in NAMES:
        return text.strip().lower().replace(" ", "_"), text.strip()
    found: dict[str, list[str]] = {}
    for phrase, slug in _phrases(text[:2_000]):
        found.setdefault(slug, []).append(phrase)
    if not found:
        return None
    most = max(found, key=lambda one: len(found[one]))
    return most, ", ".join(dict.fromkeys(found[most]))


def of_words(text: str) -> tuple[str, str] | None:
    """Like :func:`of_text`, for a provider's own field: a code, one of our names, or a phrase."""
    if re.fullmatch(r"\s*\d{2,6}\s*", text):
        slug = of_code(text)
        return (slug, f"code {text.strip()}") if slug else None
    named = next((slug for slug, name in NAMES.items() if name.casefold() == text.strip().casefold()), None)
    return (named, text.strip()) if named else of_text(text)


def facts(company: str | None, learned: Sequence[Fact]) -> tuple[Fact, ...]:
    """``industry`` by the words in the company's name and description, with them as evidence."""
    known = best(learned)
    found = []
    for text, provider, sure in (
        (company, "company name", 0.5),
        *(
            (str(known[name].value), known[name].provider, most)
            for name, most in (("company_name", 0.5), ("company_description", 0.6))
            if name in known
        ),
    ):
        said = of_text(text) if text else None
        if said:
            found.append(Fact("industry", said[0], provider, sure, note=f"because of “{said[1][:120]}”"))
    return tuple(found)
