"""What of a model's suggestion may stand in a task: nothing but the lead's own words, and a report of them.

The model reads a stranger's message, so what it answers is as little to be trusted as the message itself. Therefore
steps are chosen from a closed list and never worded; quotations must stand in the message, letter by letter; and the
summary may use the lead's own words and those of a small vocabulary of reporting, no other: no number, name, date,
address or claim that the lead did not give can be in it, and no sentence that tells somebody to do something.
"""

import re
import unicodedata
from collections.abc import Iterable

from webapp.leads.ports import LeadSnapshot, Suggestion
from webapp.leads.task_template import Step, one_line

MAX_SUMMARY, MAX_QUOTE, MAX_POINTS, MAX_STEPS = 400, 160, 4, 6

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*", re.UNICODE)
_ADDRESS = re.compile(
    r"\S+@\S+|(?:https?:)?//\S+|\bwww\.\S+|\b[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}(?:/\S*)?\b", re.IGNORECASE
)
_FORBIDDEN_CHARS = re.compile(r"[<>\[\]{}|`*#~\\^$%=\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_MASK = re.compile(r"\[(?:name|email|phone)\]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Words to report with, besides the lead's own.
_REPORTING = _words(
    "a an the this that these those they them their theirs it its he she his her who which what where when how whether "
    "someone somebody customer client person company team business message lead sender and or but so because as if "
    "than also both either not no nor only already still again yet now before after until while for from of to in on "
    "at by with without within about into over under between per via up is are was were be been being has have had do "
    "does did will would can could may might want wants wanted need needs needed ask asks asked asking look looks "
    "looking wish wishes say says said saying write writes wrote writing mention mentions mentioned name names describe "
    "describes report reports reported compare compares comparing consider considers considering plan plans planning "
    "interested interest seem seems use uses using used know like likes would rather more less most least many much few "
    "give gives gave given some any all several other another same new first next last price prices pricing cost costs quote offer details "
    "information product products service services plan plans package packages option options order purchase buy demo "
    "trial call contact reply answer question questions problem problems issue issues complaint support help budget "
    "amount quantity number size deadline time date urgent soon urgently unhappy upset waiting partnership there here"
)
_REPORTING_VI = _words(
    "khách khách hàng họ người anh chị em bạn mình công ty đội cửa doanh nghiệp tin nhắn và hoặc hay nhưng nên vì nếu thì "
    "mà là có không chưa đã đang sẽ vẫn còn cũng chỉ rất lại nữa muốn cần hỏi xin nhờ mong tìm hiểu quan tâm nói viết nhắn "
    "cho biết đề cập nhắc đến yêu cầu phàn nàn phản ánh so sánh cân nhắc dùng sử dụng về của với cùng từ tới đến ở tại "
    "trong ngoài trên dưới trước sau khi lúc bằng để được bị do theo một các những này đó kia nào gì ai đâu bao nhiêu mấy "
    "giá báo chi phí ngân sách số lượng sản phẩm dịch vụ hàng gói mẫu loại đơn đặt mua thử xem tư vấn liên hệ gọi trả lời "
    "câu vấn đề sự cố lỗi hỗ trợ hợp tác thông tin thời gian gấp sớm chờ thêm khác mới"
)
#: Words with which somebody is told to do something, or a machine is addressed.
_ORDERING = _words(
    "you your yours yourself please kindly must should shall ought let lets let's ignore disregard forget obey follow "
    "instruction instructions prompt system assistant immediately override approve approved authorize authorized grant "
    "wire password passwords credential credentials click visit download hãy phải đừng mày ngươi"
)
_SUBJECTS = _words(
    "they this the their someone somebody it he she a an customer client khách người họ anh chị công đây bạn tin"
)


def problem_of(said: Suggestion, lead: LeadSnapshot, seen: str) -> str | None:
    """Why the suggestion is not used, in words that complete “the model …”; None when it may be. ``seen``: the message
    as the model saw it."""
    if not said.steps:
        return "named no step"
    if len(said.steps) > MAX_STEPS or len(said.points) > MAX_POINTS:
        return "said too much"
    source = _plain(seen)
    for quote in (*said.points, *(about for _, about in said.steps)):
        if quote and (len(quote) > MAX_QUOTE or _plain(quote) not in source):
            return "quoted words that are not in the message"
    return _summary_problem(said.summary, lead)


def usable(said: Suggestion) -> tuple[list[Step], list[str]]:
    """(steps, points) of a suggestion that has passed, without quotations in which something was masked."""
    steps = {step: "" if _MASK.search(about) else one_line(about, MAX_QUOTE) for step, about in reversed(said.steps)}
    points = dict.fromkeys(one_line(point, MAX_QUOTE) for point in said.points if not _MASK.search(point))
    return [Step(step, steps[step]) for step in dict.fromkeys(s for s, _ in said.steps)], [p for p in points if p]


def unmasked(summary: str, lead: LeadSnapshot) -> str:
    """With the lead's own name where the model saw a mask, and plain words for the rest."""
    known = {"[name]": lead.display_name, "[email]": "their e-mail address", "[phone]": "their phone number"}
    if lead.lang == "vi":
        known |= {"[email]": "địa chỉ e-mail của khách", "[phone]": "số điện thoại của khách"}
    return _MASK.sub(lambda found: known[found[0]], summary)


def _summary_problem(summary: str, lead: LeadSnapshot) -> str | None:
    if not summary.strip() or len(summary) > MAX_SUMMARY:
        return "wrote no summary of a usable length"
    summary = _MASK.sub(" they ", summary)
    own = _own_text(lead)
    if _FORBIDDEN_CHARS.search(summary.replace("%", "") if "%" in own else summary):
        return "wrote markup or signs that a summary needs none of"
    for address in _ADDRESS.findall(summary):
        if _plain(address).strip(".,;") not in _plain(own):
            return "named an address that the lead did not give"
    own_words = {_stem(word) for word in _found(own)}
    said = _found(summary)
    for word in said:
        if any(character.isdigit() for character in word):
            if word not in _found(own) and _digits(word) not in {_digits(one) for one in _found(own)}:
                return "named a number that the lead did not give"
        elif word in _ORDERING:
            return "told somebody to do something"
        elif word not in _REPORTING and word not in _REPORTING_VI and _stem(word) not in own_words:
            return "said something that is not in the lead’s own fields"
    for sentence in re.split(r"(?<=[.!?;])\s+", summary.strip()):
        first = _found(sentence)[:1]
        if first and first[0] not in _SUBJECTS and not _names_them(first[0], lead):
            return "told somebody to do something"
    return None


def _own_text(lead: LeadSnapshot) -> str:
    """All that the lead itself gave, and no more."""
    amount = [f"{lead.budget:.0f}", f"{lead.budget:,.0f}"] if lead.budget else []
    given: Iterable[str | None] = (
        lead.message, lead.name, lead.first_name, lead.last_name, lead.author_name, lead.email, lead.phone,
        lead.phone_e164, lead.company, lead.job_title, lead.city, *amount,
    )  # fmt: skip
    return "\n".join(part for part in given if part)


def _names_them(word: str, lead: LeadSnapshot) -> bool:
    return word in _found(" ".join(part for part in (lead.name, lead.author_name, lead.company) if part))


def _plain(text: str) -> str:
    """To compare by: composed, folded case, single spaces, straight quotes."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("“", '"').replace("”", '"')
    return " ".join(text.split())


def _found(text: str) -> list[str]:
    return _WORD.findall(_plain(text))


def _digits(word: str) -> str:
    return re.sub(r"\D", "", word) if not re.search(r"[^\W\d_]", word) else word


def _stem(word: str) -> str:
    """English endings off, so that “asks” is “ask”; other languages have none of these."""
    word = re.sub(r"['’]s$", "", word)
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
