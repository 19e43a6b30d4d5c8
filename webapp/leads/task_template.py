"""What a follow-up task says: facts, next steps, the message; in English or Vietnamese, as Markdown.

The text of the lead is text here: nothing in it becomes a heading, a link or a step. Next steps are sentences of ours by
intent and priority; a model may choose among them (``task_check``), it never words one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from webapp.leads import vocabulary
from webapp.leads.ports import LeadSnapshot
from webapp.leads.states import Intent, NextAction, Priority, TaskStep

#: Characters of a message that a task repeats.
MAX_MESSAGE = 4_000
#: Characters of a text that a person has written.
MAX_BODY = 10_000

EN, VI = "en", "vi"

#: (English, Vietnamese) of each step.
STEPS: dict[TaskStep, tuple[str, str]] = {
    TaskStep.CALL: ("Call them", "Gọi điện cho khách"),
    TaskStep.WRITE: ("Write to them", "Viết thư trả lời khách"),
    TaskStep.ANSWER_THERE: ("Answer them where they wrote", "Trả lời khách ngay tại nơi họ đã nhắn"),
    TaskStep.ASK_NEEDS: ("Ask what exactly they need", "Hỏi rõ khách cần gì"),
    TaskStep.ASK_QUANTITY: ("Ask how many they need", "Hỏi rõ số lượng"),
    TaskStep.ASK_BUDGET: ("Ask about their budget", "Hỏi về ngân sách"),
    TaskStep.ASK_TIMING: ("Ask by when they need it", "Hỏi khi nào khách cần"),
    TaskStep.ASK_DECIDER: ("Find out who decides", "Tìm hiểu ai là người quyết định"),
    TaskStep.QUOTE: ("Prepare a quote", "Chuẩn bị báo giá"),
    TaskStep.DEMO: ("Propose a time for a demo", "Đề xuất thời gian xem thử sản phẩm"),
    TaskStep.PROPOSE_TIMES: ("Propose two times to talk", "Đề xuất hai khung giờ để trao đổi"),
    TaskStep.CHECK_AVAILABLE: ("Check whether it is available", "Kiểm tra xem còn hàng hay không"),
    TaskStep.LOOK_UP: ("Look up what they have with us", "Xem lại lịch sử của khách với mình"),
    TaskStep.SOLVE: ("Go through the problem with them, step by step", "Cùng khách xem lại vấn đề từng bước"),
    TaskStep.APOLOGISE: ("Say sorry for the trouble first", "Xin lỗi khách về sự cố trước"),
    TaskStep.TELL_LEAD: ("Tell the person responsible at once", "Báo ngay cho người phụ trách"),
    TaskStep.ASK_CONTACT: ("Ask for a way to reach them", "Xin cách liên lạc với khách"),
    TaskStep.PARTNER: ("Pass it on to whoever handles partnerships", "Chuyển cho người phụ trách hợp tác"),
    TaskStep.NOTE: ("Note here what was agreed", "Ghi lại ở đây những gì đã thống nhất"),
    TaskStep.CLOSE: ("Close the task if nothing has to be done", "Đóng việc này nếu không cần làm gì"),
}

_BY_INTENT: dict[Intent, tuple[TaskStep, ...]] = {
    Intent.PURCHASE_INTENT: (TaskStep.CHECK_AVAILABLE, TaskStep.ASK_QUANTITY, TaskStep.QUOTE),
    Intent.INQUIRY_PRICE: (TaskStep.ASK_QUANTITY, TaskStep.QUOTE, TaskStep.ASK_DECIDER),
    Intent.DEMO_REQUEST: (TaskStep.DEMO, TaskStep.ASK_NEEDS),
    Intent.CONTACT_REQUEST: (TaskStep.PROPOSE_TIMES, TaskStep.ASK_NEEDS),
    Intent.INQUIRY: (TaskStep.ASK_NEEDS, TaskStep.ASK_TIMING),
    Intent.SUPPORT: (TaskStep.LOOK_UP, TaskStep.SOLVE),
    Intent.COMPLAINT: (TaskStep.APOLOGISE, TaskStep.LOOK_UP, TaskStep.TELL_LEAD),
    Intent.PARTNERSHIP: (TaskStep.PARTNER,),
}
_FIRST = {NextAction.CALL: TaskStep.CALL, NextAction.EMAIL: TaskStep.WRITE, NextAction.QUALIFY: TaskStep.WRITE}

_INTENT_VI = {
    Intent.PURCHASE_INTENT: "muốn mua",
    Intent.INQUIRY_PRICE: "hỏi giá",
    Intent.DEMO_REQUEST: "muốn xem thử",
    Intent.CONTACT_REQUEST: "muốn được liên hệ",
    Intent.INQUIRY: "hỏi thông tin",
    Intent.SUPPORT: "cần hỗ trợ",
    Intent.COMPLAINT: "khiếu nại",
    Intent.JOB: "việc làm",
    Intent.PARTNERSHIP: "hợp tác",
    Intent.VENDOR_PITCH: "chào hàng",
    Intent.SPAM: "thư rác",
    Intent.UNSUBSCRIBE: "không muốn nhận tin",
    Intent.THANKS: "cảm ơn",
    Intent.ENGAGEMENT: "tương tác",
    Intent.UNKNOWN: "chưa rõ",
}
#: Those that are no names.
_SOURCE_VI = {
    "form": "biểu mẫu",
    "website_form": "biểu mẫu trên website",
    "contact_form": "biểu mẫu liên hệ",
    "csv_import": "tệp CSV",
    "unknown": "chưa rõ",
}
_DUE = {
    Priority.P0: ("now", "ngay bây giờ"),
    Priority.P1: ("today", "trong hôm nay"),
    Priority.P2: ("this week", "trong tuần này"),
    Priority.P3: ("no hurry", "không gấp"),
}
_WORDS = {
    "facts": ("Facts", "Thông tin"),
    "intent": ("Intent", "Nhu cầu"),
    "priority": ("Priority", "Ưu tiên"),
    "confidence": ("Confidence", "Độ tin cậy"),
    "score": ("Score", "Điểm"),
    "email": ("E-mail", "E-mail"),
    "phone": ("Phone", "Điện thoại"),
    "company": ("Company", "Công ty"),
    "source": ("Source", "Nguồn"),
    "decided_by": ("Decided by", "Người duyệt"),
    "steps": ("Next steps", "Việc tiếp theo"),
    "message": ("Message", "Tin nhắn"),
    "short": ("In short", "Tóm tắt"),
    "they_say": ("By their message:", "Theo tin nhắn của khách:"),
    "wrote": ("they wrote", "khách viết"),
}


#: What at the start of a line makes it an item of a list, a rule, or a heading of the line above.
_BLOCK = re.compile(r"^(\d{0,9})([-+=.)])")
_AS_TEXT = r"\1\\\2"


@dataclass(frozen=True, slots=True)
class Step:
    """One next step; ``about``: the lead's own words that it is about, empty for none."""

    step: TaskStep
    about: str = ""


def language_of(lead: LeadSnapshot, wanted: str) -> str:
    """``wanted``: ``en``, ``vi``, or anything else for the lead's own."""
    return wanted if wanted in (EN, VI) else (VI if lead.lang == VI else EN)


def steps_for(lead: LeadSnapshot) -> tuple[Step, ...]:
    """By intent, priority and what there is to reach them by."""
    first = _FIRST.get(lead.next_action)
    if first is None:
        return (Step(TaskStep.CLOSE),)
    if first is TaskStep.CALL and not (lead.phone_e164 or lead.phone):
        first = TaskStep.WRITE
    if first is TaskStep.WRITE and not lead.email:
        first = TaskStep.CALL if lead.phone_e164 or lead.phone else TaskStep.ANSWER_THERE
    steps = [first, *_BY_INTENT.get(lead.intent, (TaskStep.ASK_NEEDS, TaskStep.ASK_DECIDER))]
    if lead.intent is Intent.COMPLAINT:  # before anybody calls
        steps[0], steps[1] = steps[1], steps[0]
    if first is TaskStep.ANSWER_THERE:
        steps.append(TaskStep.ASK_CONTACT)
    return tuple(Step(step) for step in dict.fromkeys([*steps, TaskStep.NOTE]))


def render(
    lead: LeadSnapshot, language: str, *, steps: Sequence[Step] = (), summary: str = "", points: Sequence[str] = ()
) -> str:
    """The text. Without ``steps`` those of the template. ``summary`` and ``points`` have been checked."""
    at = 1 if language == VI else 0
    word = {name: both[at] for name, both in _WORDS.items()}
    parts: list[str] = []
    if summary:
        parts += [f"## {word['short']}", f"{word['they_say']} {escape(one_line(summary, 500))}"]
        parts += ["\n".join(f"- “{escape(one_line(point))}”" for point in points)] if points else []
    parts.append(f"## {word['steps']}")
    lines = [_line(step, at, word["wrote"]) for step in steps or steps_for(lead)]
    parts.append("\n".join(f"{n}. {line}" for n, line in enumerate(lines, 1)))
    parts += [f"## {word['facts']}", _facts(lead, at, word), f"## {word['message']}", _quote(lead.message)]
    return "\n\n".join(part for part in parts if part)


def _line(step: Step, at: int, wrote: str) -> str:
    about = f" ({wrote}: “{escape(one_line(step.about))}”)" if step.about else ""
    return f"{STEPS[step.step][at]}{about}."


def _facts(lead: LeadSnapshot, at: int, word: dict[str, str]) -> str:
    intent = _INTENT_VI[lead.intent] if at else vocabulary.INTENT[lead.intent]
    facts = [
        ("intent", intent),
        ("priority", f"{lead.priority.value} ({_DUE[lead.priority][at]})"),
        ("confidence", f"{lead.confidence:.0%}"),
        ("score", str(lead.score) if lead.score is not None else ""),
        ("email", lead.email or ""),
        ("phone", lead.phone_e164 or lead.phone or ""),
        ("company", lead.company or ""),
        ("source", (at and _SOURCE_VI.get(lead.source.lower())) or vocabulary.source(lead.source)),
        ("decided_by", lead.decided_by or ""),
    ]
    return "\n".join(f"- **{word[name]}:** {escape(one_line(value))}" for name, value in facts if value)


def _quote(message: str) -> str:
    shown = message.strip()
    shown = shown if len(shown) <= MAX_MESSAGE else shown[:MAX_MESSAGE].rstrip() + " …"
    return "\n".join(f"> {_BLOCK.sub(_AS_TEXT, escape(line.strip()))}".rstrip() for line in shown.splitlines())


def escape(text: str) -> str:
    """Somebody's words as text: no links, images or HTML of theirs."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#!|~&" else char for char in text)


def one_line(text: str, longest: int = 200) -> str:
    return " ".join(text.split())[:longest]
