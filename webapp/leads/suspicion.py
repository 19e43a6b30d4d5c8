"""Does a message talk to a machine rather than to us? Suspected prompt injection, found without asking a model.

A suspicion changes no intent: it keeps the lead from going out by itself, whatever the confidence and the workspace's
thresholds, and is told on its page. So a false one costs a look, a missed one is still held by everything else (closed
schema, no tools, a model that is alone gives a draft at best).

The text is looked at as it is, without what hides words in it (invisible and look-alike characters, letters spaced
out), and once decoded (base64, hexadecimal, percent and HTML escapes, ROT13, backwards).
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any
from urllib.parse import unquote

from ahocorasick_rs import AhoCorasick, Implementation

from webapp.leads.states import OPEN_STATUSES, LeadStatus, status_for
from webapp.leads.textnorm import fold_search
from webapp.leads.types import Verdict

#: Confidence of what a person has to look at first: below every workspace's default threshold.
FOR_REVIEW = 0.69
#: The tag that a suspected message's verdict carries.
INJECTION = "injection"
#: The tag of the rules' own that is as good a reason.
_ATTACK = "attack"
REASON = "part of the message addresses the machine (suspected prompt injection)"
#: Longest part of a message that is looked at; intake takes no longer ones.
_LONGEST = 20_000

_I = re.DOTALL
_NOUN = (
    r"(?:instru[ck]|istruzion|anweisung|prompt|(?:rule|direction|directive|command|guideline|context|constraint|restriction"
    r"|safeguard|guardrail|programming|training)s?\b)"
)
_MACHINE = (
    r"(?:ai|a\.i\.?|llm|gpt|chatgpt|claude|gemini|copilot|bot|chatbot|classifier|language\s+model|assistant|machine)"
)
_VERDICT = (
    r"(?:purchase[_ ]intent|demo[_ ]request|inquiry[_ ]price|contact[_ ]request|qualified|hot\b|hottest|approved|new_auto|auto\b"
    r"|p0\b|verified|legitimate|trusted|safe\b|clean\b|not\s+spam|high[- ](?:confidence|intent|value)|sales[- ]ready)"
)
#: In Vietnamese "ai" is "who" as well, "may" any device, and people ask an admin for much: what follows one that is told what to
#: do, what may stand before it, and who runs the machine.
_TOLD = r"(?=\s*(?::|(?:dang\s+)?(?:doc|xu\s+ly)\b|(?:(?:hay|phai)\s+)?(?:phan\s+loai|danh\s+dau|bo\s+qua|cham\s+diem|duyet\s+(?:lead|tin))\b))"
_TO = r"(?:(?:cho|toi|den|voi|he\s+thong)\s+)?"
_OWNER = r"(?:he\s+thong|quan\s+tri\s+vien|admin|nha\s+phat\s+trien)\b"
#: What it does, in words for people, and how that looks in folded text (lower case, no diacritics). Alternatives that begin
#: with ``\b`` stand in a group of their own: ``re`` then looks for the beginning of a word once instead of for each of them,
#: which is three times as fast.
_SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "tells a machine to drop its instructions",
        re.compile(
            rf"(?:\b(?:ignor\w*|disregard\w*|forget|override|overrule|bypass|neglect|discard|unlearn|do\s+not\s+(?:follow|obey)"
            rf"|don['’]?t\s+(?:follow|obey)|stop\s+(?:following|obeying))\b.{{0,60}}?\b{_NOUN}"
            rf"|\b{_NOUN}\w*\b.{{0,30}}\b(?:no\s+longer\s+appl|are\s+(?:void|obsolete|superseded)|is\s+(?:void|superseded))"
            r"|\b(?:instru[ck]|istruzion|anweisung|prompt|rule|directive|command|guideline|constraint|restriction|safeguard|guardrail)\w*\b.{0,30}\bare\s+cancel"
            r"|\b(?:bo\s+qua|quen(?:\s+het)?|phot\s+lo|lam\s+ngo|huy\s+bo|xoa\s+bo|khong\s+(?:can\s+)?(?:tuan\s+theo|lam\s+theo)|dung\s+(?:tuan\s+theo|lam\s+theo))\b"
            r".{0,40}\b(?:huong\s+dan|chi\s+dan|chi\s+thi|lenh|cau\s+lenh|quy\s+tac|quy\s+dinh|rang\s+buoc|chi\s+lenh|ngu\s+canh|prompt)\b"
            r")|(?:忽略|无视|無視|忘记|忘记).{0,20}(?:指令|指示|提示|规则|規則|说明)|(?:指示|指令|命令|ルール).{0,10}無視"
            r"|игнориру\w*.{0,40}(?:инструкц|правил|указан)|забудь.{0,30}(?:инструкц|правил)|\u1106\u116e\u1109\u1175"
            r"|(?:ignora|olvida|oublie[rz]?|dimentica|ignoriere|vergiss|missachte)\b.{0,40}\b(?:instru|istruz|consigne|regles?|reglas|regole|anweisung|vorgaben|regeln)",
            _I,
        ),
    ),
    (
        "gives a machine another role",
        re.compile(
            r"(?:\byou(?:\s+are|['’]re)\s+(?:now|no\s+longer|hereby|going\s+to\s+(?:act|play))\s+(?:an?|the|my|in\s+(?:\w+\s+){0,3}?(?:mode|role|character|simulation)\b|acting|bound|under|dan\b)"
            r"|\b(?:act|behave|respond|reply|answer)\s+as\s+(?:if\s+you|though\s+you|an?\s+(?:\w+\s+){0,3}?(?:ai|bot|model|assistant|terminal|admin\w*|system|classifier|judge|dan))\b"
            r"|\bpretend\s+(?:to\s+be|you(?:\s+are|'re)?|that\s+you)\b|\brole[- ]?play\w*\b|\bdeveloper\s+mode\b|\bjailbr[eo]a?k\w*|\bdo\s+anything\s+now\b"
            r"|\byour\s+(?:new|only|real|true|actual|sole)\s+(?:role|task|job|instructions?|purpose|goal|objective|identity|persona)\b"
            r"|\bnew\s+(?:system\s+)?(?:instructions?|directives?|rules)\s*(?::|for\s+you|from)|\bfrom\s+now\s+on,?\s+you\b"
            r"|\bas\s+an?\s+(?:ai|llm|language\s+model|large\s+language)\b|\bif\s+you\s+are\s+an?\s+(?:ai|llm|bot|language|automated|large)\b"
            r"|\b(?:opposite\s+day|simulat(?:e|ion)\s+(?:mode|a|an|the|of)\b.{0,40}\b(?:classif|assistant|ai|model))"
            r"|\bban\s+(?:bay\s+gio|gio\s+day|tu\s+(?:gio|bay\s+gio|nay)|hien\s+(?:tai|gio))\s+(?:la|se|hay|phai|khong)\b"
            r"|\btu\s+(?:gio|bay\s+gio|nay)(?:\s+tro\s+di)?,?\s+(?:ban|hay|may|he\s+thong|ai)\b"
            r"|\b(?:dong\s+vai|nhap\s+vai|gia\s+vo|gia\s+lam)\b|\bvai\s+tro\s+moi\b|\bhuong\s+dan\s+moi\b|\bche\s+do\s+(?:nha\s+phat\s+trien|quan\s+tri|lap\s+trinh|debug|admin|bao\s+tri|khong\s+gioi\s+han)\b"
            r")|(?:你现在是|你是一个|扮演|角色扮演)|ты\s+теперь|(?:ahora\s+eres|tu\s+es\s+maintenant|du\s+bist\s+jetzt)",
            _I,
        ),
    ),
    (
        "addresses the machine",
        re.compile(
            rf"(?:\b(?:dear|hey|hi|hello|attention|note|notice|message|memo|reminder|instructions?|important|listen|psa)\b[\s,:!-]*(?:(?:to|for)\s*)?"
            rf"(?:the\s+|any\s+|all\s+|you,?\s+)?\b{_MACHINE}s?\b(?=\s*(?:[,:.!;\n-]|$|\w+ing\b|that\b|who\b|which\b|model|assistant|system|reading|please))"
            rf"|\b(?:the|this|any|you,?\s+the)\s+{_MACHINE}s?\s+(?:must|should|shall|has\s+to|have\s+to|needs?\s+to|will)\s+"
            r"(?:now\s+)?(?:classify|mark|set|output|return|respond|reply|answer|ignore|treat|approve|score|label|rate|assign|report|comply|obey)\b"
            r"|\b(?:system|developer|hidden|initial|original|internal)\s+(?:prompt|instructions?|directives?)s?\b|\bprompt\s+injection\b"
            r"|\b(?:system|admin(?:istrator)?|security|developer)\s+(?:override|overwrite|directive|command|notice|update|message)\b"
            r"|\bend\s+of\s+(?:the\s+)?(?:system|prompt|user|message|data|input|untrusted|lead|customer|instructions?|transcript)\b"
            r"|\b(?:begin|start)\s+(?:of\s+)?(?:the\s+)?(?:prompt|instructions?|trusted)\b|\b(?:begin|start)\s+of\s+(?:the\s+)?(?:system|admin)\b"
            r"|\bbegin\s+(?:system|admin)\b(?=\s*(?:$|[^\w\s]|(?:prompt|instructions?|message|mode)\b))|\b(?:sudo|override\s+code|safe\s*word|unlock\s+code|passphrase)\b"
            r"|\b(?:reveal|print|repeat|leak|dump|expose|output|show|tell|give|list)\s+(?:me\s+|us\s+)?(?:all\s+)?(?:of\s+)?(?:your|the\s+(?:system|hidden|above|previous|secret))\s+"
            r"(?:\w+\s+)?(?:prompt|instructions|secrets?|api\s*keys?|configuration|rules|guidelines)\b"
            r"|\b(?:reveal|print|repeat|leak|dump|expose|output)\s+(?:me\s+|us\s+)?(?:all\s+)?(?:of\s+)?(?:your|the\s+(?:hidden|above|previous|secret))\s+(?:\w+\s+)?system\b"
            rf"|\b(?:chao|gui|nhac|luu\s+y|thong\s+bao|danh\s+cho|yeu\s+cau)\s+{_TO}(?:(?:ban\s+)?(?:chatgpt|bot|chatbot|mo\s+hinh|tro\s+ly\s+(?:ao|ai)|he\s+thong\s+(?:ai|phan\s+loai|tu\s+dong))\b"
            rf"|ban\s+ai\b|(?:ban\s+)?(?:ai|may)\b{_TOLD})|\b(?:chao|nhac|luu\s+y|yeu\s+cau)\s+{_TO}ai\b|\b(?:gui|thong\s+bao)\s+{_TO}ai\b(?=\s*[,!;\n-])"
            r"|\b(?:ai|mo\s+hinh|bot|he\s+thong)\s+(?:hay|phai|can\s+phai|bat\s+buoc)\s+(?:phan\s+loai|danh\s+dau|dat|tra\s+loi|tra\s+ve|xep|duyet|bo\s+qua|cham)\b"
            rf"|\b(?:lenh|thong\s+bao|chi\s+thi)\s+(?:tu\s+)?{_OWNER}|\byeu\s+cau\s+(?:tu\s+{_OWNER}|{_OWNER}{_TOLD})|\bloi\s+nhac\s+he\s+thong\b)|系统(?:提示|指令|消息)",
            _I,
        ),
    ),
    (
        "says how it wants to be judged",
        re.compile(
            rf"(?:\b(?:classify|categori[sz]e|mark|label|score|rate|tag|treat|flag|rank|consider|judge|register|record|report|log|file|qualify|grade|assess|evaluate)\b"
            rf".{{0,50}}?\b(?:as|to\s+be|=)\s+(?:an?\s+|the\s+)?{_VERDICT}"
            r"|\b(?:classify|mark|label|score)\s+(?:this|me|it|my\s+\w+)\s+as\b"
            r"|\bconfidence\b.{0,25}?(?:\b(?:1(?:[.,]0+)?|100|0?[.,]9\d*|maximum|max|highest|full|one\s+hundred)\b)"
            r"|\b(?:maximum|max|full|highest|100\s*%?)\s+confidence\b|\bintent\s*(?:[:=]|is|must\s+be|should\s+be|to)\s*[\"'`]?(?:purchase|demo|inquiry|contact|unknown)"
            r"|\b(?:set|assign|make|give|change|raise)\b.{0,30}\b(?:confidence|intent|priority|score|status|verdict)\b.{0,15}?(?:\bto\b|=|:|\bas\b|\bof\b|\bp0\b).{0,12}(?:\bp?0\b|1(?:[.,]0)?\b|100|purchase|auto|approved|max|high)"
            r"|\b(?:priority|status|next_action|verdict)\s*[:=]\s*[\"'`]?(?:p0|0|new_auto|auto|approved|call|high)\b|\bnew_(?:auto|draft|escalate)\b"
            r"|\b(?:respond|reply|answer|output|return)\s+(?:only\s+|just\s+|exactly\s+|strictly\s+)*(?:with|in|as)?\s*(?:valid\s+|raw\s+|this\s+|the\s+(?:following\s+)?)?(?:json|the\s+words?|exactly|verbatim)\b"
            r"|\b(?:auto(?:matically)?[- _]?approve|approve\s+(?:this|me|it|my|the\s+lead)\b|pre-?approved\s+by\s+(?:the\s+)?(?:admin|system|security))"
            r"|\b(?:without|skip(?:ping)?|bypass(?:ing)?|no\s+need\s+(?:for|of)|avoid|needs?\s+no|do(?:es)?\s+not\s+need)\s+(?:any\s+|the\s+|a\s+)?(?:human|manual|person(?:'s)?|reviewer)(?:'s)?\s*(?:review|approval|check|oversight|queue|look)?\b"
            r"|\b(?:do\s+not|don['’]?t|never)\s+(?:flag|escalate|report|mark)\s+(?:this|it|me|my)\b|\bclean\s*(?:[:=]|to)\s*[\"'`]?true\b|\bnot\s+suspicious\b"
            r"|\bphan\s+loai\b.{0,30}\b(?:la|thanh|nhu)\b|\bdanh\s+dau\b.{0,25}\b(?:la|thanh|duyet|uu\s+tien|an\s+toan|hop\s+le)\b|\bdo\s+tin\s+cay\b|\bmuc\s+(?:do\s+)?tin\s+(?:cay|tuong)\b"
            r"|\b(?:dat|gan|chinh|nang|sua|cho)\b.{0,20}\b(?:uu\s+tien|y\s+dinh|trang\s+thai|diem|intent|nguong)\b.{0,15}(?:\bp?0\b|1(?:[.,]0)?\b|100|cao\s+nhat|toi\s+da|purchase|\bauto\b)"
            r"|\b(?:tu\s+dong\s+(?:duyet|phe\s+duyet)|(?:duyet|phe\s+duyet)\s+(?:ngay|luon|tu\s+dong|thang)?\s*(?:lead|tin|yeu\s+cau)\s*(?:nay)?)\b"
            r"|\b(?:khong\s+can|bo\s+qua|khoi\s+can|mien)\s+(?:nguoi|con\s+nguoi|kiem\s+duyet|nhan\s+vien\s+(?:duyet|xem|kiem)|phe\s+duyet|xet\s+duyet)\b"
            r"|\b(?:tra\s+loi|tra\s+ve|phan\s+hoi|xuat\s+ra)\s+(?:chi\s+|dung\s+)?(?:bang|duoi\s+dang|theo)?\s*(?:dinh\s+dang\s+)?json\b"
            r"|\b(?:dung|khong\s+duoc|cam)\s+(?:gan\s+co|canh\s+bao|bao\s+cao|danh\s+dau)\b)|置信度|clasifica\w*.{0,30}\bcomo\b|classe[rz]?\b.{0,30}\bcomme\b|klassifizier\w*.{0,40}\bals\b|классифиц\w*.{0,30}\bкак\b",
            _I,
        ),
    ),
    (
        "asks for settings or deliveries",
        re.compile(
            r"\b(?:set|change|lower|raise|update|modify|disable|turn\s+off|switch\s+off|delete|reset|edit|remove)\b.{0,30}\b(?:thresholds?|auto_from|draft_from|guardrails?|moderation|undo[_ ]window|routing\s+rules?|classifier|webhook_url|(?:your|the\s+(?:system|workspace|console))\s+settings|injection\s+(?:check|filter|detection))\b"
            r"|\b(?:deliver|push|send|submit|post|forward|sync|export|release|dispatch)\s+(?:this|me|my|it|all|every)\b(?:\s+\w+){0,4}?\s+(?:straight\s+|directly\s+|now\s+|immediately\s+|right\s+)?(?:to|into)\s+(?:the\s+|your\s+)?(?:crm|webhook|slack|twenty|pipeline|salesforce\s+now|hubspot\s+now)\b"
            r"|\b(?:call|invoke|run|execute|use|trigger)\s+(?:the\s+)?(?:\w+\s+)?(?:tool|function|webhook|delivery|deliveries|api|sql|shell|command)\b.{0,20}(?:\(|\bwith\b|\bto\b|:|\bnow\b)|\btool_?(?:call|use)s?\b|\bfunction_?calls?\b|\bdrop\s+table\b|\brm\s+-rf\b"
            r"|\b(?:make|grant|give|promote|add)\s+(?:me|my\s+account|this\s+user)\b.{0,15}\badmin|\b(?:export|exfiltrate|leak|dump|email|send\s+me)\s+(?:all|every|the\s+whole|your\s+entire|the\s+full)\s+(?:\w+\s+)?(?:leads|customers?|contacts?|database|customer\s+list|api\s*keys?)\b"
            r"|\b(?:gui|day|chuyen|dua)\s+(?:thang|ngay|truc\s+tiep|lien|luon|lead\s+nay|tin\s+nay|yeu\s+cau\s+nay)\b.{0,20}\b(?:crm|webhook|slack|twenty)\b"
            r"|\b(?:thay\s+doi|doi|sua|ha|giam|tat|vo\s+hieu\s+hoa|xoa)\b.{0,20}\b(?:cai\s+dat|cau\s+hinh|nguong|bo\s+loc|kiem\s+duyet|phan\s+quyen)\b.{0,25}\b(?:he\s+thong|xuong|ve|thanh|0|console|cua\s+ban|tu\s+dong|injection)\b"
            r"|\b(?:cap|cho|nang)\s+(?:toi|tai\s+khoan)\b.{0,15}\b(?:quyen\s+)?(?:admin|quan\s+tri)\b",
            _I,
        ),
    ),
    (
        "holds an answer or marks meant for a machine",
        re.compile(
            r"[\"'“”]?\b(?:intent|confidence|next_action|verdict|is_injection|tool_calls?)\b[\"'“”]\s*:|[{,]\s*(?:intent|confidence|priority|role|clean|verdict)\s*:"
            r"|[\"'](?:role|priority|clean|status)[\"']\s*:\s*[\"']?(?:system|assistant|developer|p0|true|new_auto|approved)"
            r"|<\s*(?:/\s*)?(?:system|assistant|user|human|instructions?|prompt|lead_message|message-[\w-]*|data|context|verdict|output|admin|override|tool\w*|function\w*|invoke|developer|untrusted|input|document|im_start|im_end|think(?:ing)?|answer|result|response|json)\b[^<>]{0,80}>"
            r"|<\|[^|<>]{0,40}\|?>|\[\s*(?:/\s*)?(?:inst|system|assistant|sys|admin|developer|end|/?prompt|instructions?)\b[^\]]{0,20}\]|<<\s*(?:/\s*)?(?:sys|system)\b"
            r"|(?<!#)#{2,}\s*(?:system|instruction|assistant|response|new\s+task|override|prompt|end|admin|task|he\s+thong|chi\s+thi)\w*"
            r"|(?:^|(?<=[\n.|>])|(?<=\s\s)|(?<=[.|>]\s)|(?<=\s)(?<!..))(?:system|assistant|developer|human|he\s+thong|chatgpt)\s*(?:\([^)]{0,20}\)\s*)?(?::|>|＞|：)"
            r"|(?:^|\n)[^\S\n]*(?:admin|user|ai|root|operator)\s*(?:#|:)\s*\S|(?<![-=*~_])[-=*~_]{3,}\s*(?:end|begin|start|stop|het|ket\s+thuc|bat\s+dau)\b|\b(?:end|begin)_(?:of_)?(?:text|turn|prompt|message)\b|```\s*(?:json|system|prompt|yaml|xml)|\bassistant\s+to=|\bheader_id\b|\bstart_header\b",
            _I,
        ),
    ),
    (
        "holds markup or code",
        re.compile(
            r"<\s*(?:script|img|svg|iframe|object|embed|form|input|style|link|meta|body|base|video|audio|marquee|math|details|a\s+href|!--|!\[cdata)\b"
            r"|<!--|\bon(?:error|load|click|mouseover|focus|toggle)\s*=|\bjavascript\s*:|\bvbscript\s*:|data:text/html|\{\{.{0,80}\}\}|\$\{[^}]{0,80}\}|\{%.{0,80}%\}|<%|<\?(?:php|xml)"
            r"|\bdocument\.(?:cookie|location|write)|\bunion\s+select\b|'\s*or\s+'?1'?\s*=|=\s*(?:cmd\||hyperlink\()|!\[[^\]]{0,60}\]\(\s*https?:",
            _I,
        ),
    ),
)
#: The shortest rulers, and what stands before the name "máy".
_RULERS = tuple(map("".join, product("-=*~_", repeat=3)))
_BEFORE_MAY = (
    "chao", "gui", "nhac", "luu y", "thong bao", "danh cho", "yeu cau", "cho", "toi", "den", "voi", "he thong", "ban",
)  # fmt: skip
#: For each of them, words of which one is in whatever it finds, once any white space is a single space. Looking for those first
#: takes a fraction of the time. ``tests/leads/test_suspicion.py`` walks through the patterns to show that none is missing.
_HINTS: tuple[tuple[str, ...], ...] = (
    (
        "ignor", "disregard", "forget", "overrid", "overrul", "bypass", "neglect", "discard", "unlearn", "obey", "t follow",
        "following", "longer appl", "are cancel", "void", "obsolete", "superseded", "bo qua", "quen", "phot lo", "lam ngo",
        "huy bo", "xoa bo", "tuan theo", "lam theo", "忽略", "无视", "無視", "忘记", "игнор", "забудь", "\u1106\u116e\u1109\u1175", "olvida", "oublie",
        "dimentica", "vergiss", "missachte",
    ),
    (
        "you are", "you're", "you’re", "act as", "as if you", "as though", "as a", "pretend", "role", "developer mode", "jailbr",
        "anything now", "your", "new instruction", "new system", "new directive", "new rules", "from now", "if you", "opposite day",
        "simulat", "bay gio", "gio day", "tu gio", "tu nay", "hien tai", "hien gio", "dong vai", "nhap vai", "gia vo", "gia lam",
        "vai tro", "huong dan moi", "che do", "你现在", "扮演", "你是一", "теперь", "eres", "tu es", "du bist",
    ),
    (
        "ai", "a.i", "llm", "gpt", "claude", "gemini", "copilot", "bot", "classifier", "language model", "assistant", "machine",
        "prompt", "instruction", "directive", "override", "overwrite", "command", "notice", "update", "message", "end of",
        "of admin", "of system", "of the admin", "of the system", "begin admin", "begin system", "sudo", "safe word", "safeword",
        "unlock", "passphrase", "trusted", "your", "the system", "hidden", "the above", "the previous", "the secret", "mo hinh", "tro ly",
        "he thong", "quan tri vien", "nha phat trien", "lenh admin", "lenh tu admin", "thong bao admin", "chi thi admin",
        "tu admin", "yeu cau admin", "loi nhac", "系统", *(f"{word} may" for word in _BEFORE_MAY),
    ),
    (
        "purchase", "demo request", "demo_request", "inquiry price", "inquiry_price", "contact request", "contact_request",
        "qualified", "hottest", *(f"{word} hot" for word in ("as", "be", "=", "a", "an", "the")), "approve", "auto", "p0", "verified",
        "legitimate", "trusted", "safe", "clean", "not spam", "high value", "high-value", "sales ready", "sales-ready", "this as",
        "it as", "me as", *(f"{word} my" for word in ("classify", "mark", "label", "score")), "confidence", "intent", "priority",
        "score", "status", "verdict", "next_action", "new_", "json", "the word", "exactly", "verbatim", "human", "manual", "person",
        "reviewer", *(f"{word} {what}" for word in ("t", "never") for what in ("flag", "escalate", "report", "mark")),
        "suspicious", "phan loai", "danh dau", "tin cay", "tin tuong", "uu tien", "y dinh", "trang thai", "diem", "nguong", "duyet",
        "con nguoi", "can nguoi", "qua nguoi", "mien nguoi", "nhan vien", "gan co", "canh bao", "bao cao", "置信度",
        "clasifica", "classe", "klassifizier", "классиф",
    ),
    (
        "threshold", "_from", "guardrail", "moderation", "undo", "routing", "classifier", "webhook", "settings", "injection",
        "crm", "slack", "twenty", "pipeline", "salesforce", "hubspot", "tool", "function", "deliver", "api", "sql", "shell",
        "command", "drop table", "rm -rf", "admin", "the whole", "your entire", "the full",
        *(f"{verb} {which}" for verb in ("export", "exfiltrate", "leak", "dump", "email", "send me") for which in ("all", "every")),
        "cai dat", "cau hinh", "nguong", "bo loc", "kiem duyet", "phan quyen", "quan tri",
    ),
    (
        "intent", "confidence", "next_action", "verdict", "is_injection", "tool_call", "priority", "role", "clean", "status", "<", "[",
        "##", "system", "assistant", "developer", "human", "he thong", "chatgpt", "admin", "user", "ai:", "ai :", "ai#", "ai #",
        "root", "operator", "end_", "begin_", "```", "header", *_RULERS,
    ),
    (
        "<", "onerror", "onload", "onclick", "onmouse", "onfocus", "ontoggle", "script", "data:text", "{{", "${", "{%", "document.",
        "union", "' or", "'or", "=cmd", "= cmd", "hyperlink", "![",
    ),
)  # fmt: skip
#: For signs whose hints stand in very many messages ("ai" in "email", "your"), or whose pattern takes long: words of which
#: one, or ``_NAMED_AI``, is in whatever the pattern finds as well.
_HOLDS: dict[str, tuple[str, ...]] = {
    "gives a machine another role": (
        "now", "longer", "hereby", "going", "act", "behave", "respond", "reply", "answer", "pretend", "role", "developer",
        "jailbr", "task", "job", "instruction", "purpose", "goal", "objective", "identity", "persona", "directive",
        "rules", "llm", "language", "bot", "automated", "large", "opposite", "simulat", "gio", "nay", "hien", "vai", "gia",
        "huong", "che", "你现在", "扮演", "你是一", "теперь", "eres", "maintenant", "bist",
    ),
    "addresses the machine": (
        "a.i", "llm", "gpt", "claude", "gemini", "copilot", "bot", "classifier", "language", "assistant", "machine", "prompt",
        "instruction", "directive", "override", "overwrite", "command", "notice", "update", "message", "system", "user", "data",
        "input", "lead", "customer", "transcript", "admin", "trusted", "sudo", "safe", "unlock", "passphrase",
        "secret", "api", "configuration", "rules", "guidelines", "hinh", "tro", "may", "thong", "tri", "系统",
    ),
    "holds an answer or marks meant for a machine": (
        ":", "<", ">", "[", "#", "：", "＞", "end_", "begin_", "```", "to=", "header", *_RULERS,
    ),
}  # fmt: skip
#: "ai" where a pattern takes it for a name: as a word.
_NAMED_AI = re.compile(r"ai(?<=\bai)s?\b")
#: Words of which one is in whatever ``_CYPHER`` finds.
_CYPHER_HINTS = ("rot", "base", "decode", "giai", "backwards", "reverse", "nguoc", "hex", "caesar", "morse")
#: What words in a text speak for, as bits: a cypher, perhaps the name "ai", that name; from ``_FIRST`` on, the signs.
_NAMES_CYPHER, _MAYBE_AI, _AI, _FIRST = 1, 2, 4, 8


def _bits() -> tuple[dict[str, int], tuple[tuple[str, re.Pattern[str], int, int], ...]]:
    """The bits that each word sets, and each sign with two sets of bits: its pattern finds nothing where none of the one, or
    none of the other, is set."""
    bits = dict.fromkeys(_CYPHER_HINTS, _NAMES_CYPHER) | {"ai": _MAYBE_AI}
    searches = []
    bit = _FIRST
    for (sign, pattern), hints in zip(_SIGNS, _HINTS, strict=True):
        holds = _HOLDS.get(sign, ())
        for word in hints:
            bits[word] = bits.get(word, 0) | bit
        for word in holds:
            bits[word] = bits.get(word, 0) | bit << 1
        searches.append((sign, pattern, bit, bit << 1 | _AI if holds else bit))
        bit <<= 2
    return bits, tuple(searches)


_BITS, _SEARCHES = _bits()
#: Finds all these words in one pass over a text, whatever their number.
_WORDS = AhoCorasick(_BITS, implementation=Implementation.DFA)
_TAGS = range(0xE0000, 0xE0080)
_HIDING = frozenset("\u200b\u2060\ufeff\u00ad\u180e\u2061\u2062\u2063\u2064")
_TURNING = frozenset("\u202d\u202e")
_HIDDEN = re.compile(f"[{''.join(_HIDING | _TURNING)}\U000e0000-\U000e007f]")
_LOOKALIKE = re.compile("[\u0131\u0251\u0261\u0370-\u052f\u07cb]")
_ODD = re.compile(f"[{_HIDDEN.pattern[1:-1]}{_LOOKALIKE.pattern[1:-1]}]")
_UNSEEN = re.compile(f"[{_HIDDEN.pattern[1:-1]}\u200c-\u200f\u2066-\u2069\u202a-\u202c]+")
_TWINS = str.maketrans("аеорсухіјѕԁһкмтвнгԛѡɡıοαερτυνικߋ", "aeopcyxijsdhkmtbhrqwgioaeptuviko")
_LEET = str.maketrans("013457@$!|", "oieastasil")
_LEETED = re.compile(r"[0134@$](?:(?<=[a-z].)[a-z]|(?<=\b[013@])[a-z]{2})")
_SPACED = re.compile(r"(?:\b\w[\s._*·-]{1,2}){5,}\w\b")
#: Part of whatever that finds; a search that begins with certain characters is fast.
_PART_OF_SPACED = re.compile(r"[\s.*·-]\w[\s._*·-]{1,2}\w[\s._*·-]")
_CODED = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}|(?:[0-9a-fA-F]{2}[\s:]?){12,}")
_PAIRS = 8
_HEX = re.compile(rf"\b(?:[0-9a-fA-F]{{2}}[\s:]){{{_PAIRS}}}")
#: Words without which a text of some length is hardly in a language that people write to us.
_COMMON = frozenset(
    [
        "a", "the", "to", "i", "you", "we", "is", "for", "and", "in", "of", "my", "cho", "toi", "em", "anh", "minh", "co", "gia",
        "khong", "ban", "price",
    ]
)  # fmt: skip
_HOLDS_COMMON = re.compile(rf"\b(?:{'|'.join(sorted(_COMMON))})\b")
_ESCAPED = re.compile(r"%[0-9a-fA-F]{2}|&#?\w{2,8};|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}")
_ESCAPES = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_CYPHER = re.compile(r"rot-?13|base-?64|decode|giai\s*ma|backwards|reverse|nguoc|hex|caesar|morse", re.IGNORECASE)


def signs(text: str) -> tuple[str, ...]:
    """What speaks for a suspicion, in words that complete "it …"; empty: none."""
    text = _in_lines(text[:_LONGEST])
    plain = _folded(text)
    met = _met(plain)
    odd = _is_odd(text)
    found = dict.fromkeys(_hiding(text) if odd else ())
    if met:
        found |= dict.fromkeys(_found_in(plain, met))
    for look in _other_looks(text, plain, odd):
        found |= dict.fromkeys(_found_in(look, _met(look)))
    if not found and any(map(_is_suspect, _decoded(text, plain, met))):
        found["hides orders in encoded text"] = None
    return tuple(found)


def gives_orders(text: str) -> bool:
    """Is the message suspected of prompt injection?"""
    return bool(signs(text))


def checked(said: Verdict, text: str) -> Verdict:
    """``said``, or what is left of it when the message is suspected."""
    found = signs(text)
    if found or _ATTACK in said.tags:
        return distrusted(said, found)
    return said


def distrusted(said: Verdict, found: tuple[str, ...] = ()) -> Verdict:
    """``said`` of a message under suspicion of prompt injection: for a person to look at."""
    if INJECTION in said.tags and said.confidence <= FOR_REVIEW:
        return said
    reason = REASON + (f": it {', it '.join(found[:3])}" if found else "")
    return said._replace(confidence=min(said.confidence, FOR_REVIEW), tags=tuple(sorted({*said.tags, INJECTION})),
        reasons=(*(one for one in said.reasons if not one.startswith(REASON)), reason),
    )  # fmt: skip


def status_of(said: Verdict, *, auto_from: float, draft_from: float) -> LeadStatus:
    """The status that ``said`` gives. A suspected message never goes out by itself, whatever the thresholds."""
    status = status_for(said.confidence, auto_from=auto_from, draft_from=draft_from)
    if status is LeadStatus.NEW_AUTO and INJECTION in said.tags:
        return LeadStatus.NEW_ESCALATE
    return status


def awaits_a_person(verdict: Mapping[str, Any], status: LeadStatus) -> bool:
    """Is a lead with this stored verdict suspected, and has nobody decided it yet? It must not go anywhere."""
    return status in OPEN_STATUSES and suspected(verdict)


def suspected(verdict: Mapping[str, Any]) -> bool:
    """Of a stored verdict."""
    return INJECTION in (verdict.get("tags") or ())


def _met(look: str) -> int:
    """The bits of the words in a folded text. In the words any white space counts as one space, line ends too."""
    if not look.isprintable():  # nor is any white space but the space
        look = " ".join(look.split())
    try:
        words = _WORDS.find_matches_as_strings(look, overlapping=True)
    except UnicodeEncodeError:  # a lone surrogate, which escapes may give; no word holds one
        words = _WORDS.find_matches_as_strings(look.encode(errors="replace").decode(), overlapping=True)
    met = 0
    for word in words:
        met |= _BITS[word]
    if met & _MAYBE_AI and _NAMED_AI.search(look):
        met |= _AI
    return met


def _found_in(look: str, met: int) -> Iterator[str]:
    for sign, pattern, hints, holds in _SEARCHES:
        if met & hints and met & holds and pattern.search(look):
            yield sign


def _in_lines(text: str) -> str:
    """With one way to end a line, where forms, mail and Unicode have several."""
    return text if text.isprintable() else "\n".join(text.splitlines())


def _is_suspect(decoded: str) -> bool:
    decoded = _in_lines(decoded)
    plain = _folded(decoded)
    looks = (plain, *_other_looks(decoded, plain, _is_odd(decoded)))
    return any(True for look in looks for _ in _found_in(look, _met(look)))


def _is_odd(text: str) -> bool:
    """Does it hold characters that hide words?"""
    return not text.isascii() and _ODD.search(text) is not None


def _hiding(text: str) -> Iterator[str]:
    tags = sum(ord(one) in _TAGS for one in text)
    if (
        tags > 8 * text.count("\U0001f3f4")
        or sum(one in _HIDING for one in text) > 3
        or any(one in _TURNING for one in text)
    ):  # the flags of England and its neighbours are written with some
        yield "hides characters that nobody sees"


def _other_looks(text: str, plain: str, odd: bool) -> Iterator[str]:
    """The forms, folded, in which orders may stand in ``text`` other than ``plain``, which is it folded."""
    if odd and _LOOKALIKE.search(text):
        yield _folded(text.casefold().translate(_TWINS))
    if odd and _HIDDEN.search(text):
        yield _folded("".join(chr(ord(one) - 0xE0000) for one in text if ord(one) in _TAGS[0x20:]))
    if _PART_OF_SPACED.search(plain) and _SPACED.search(plain):
        loose = unicodedata.normalize("NFKC", text)
        words = (re.sub(r"[\s._*·-]+", "", run) for run in re.split(r"\s{2,}|(?<=\w\w)\s|\s(?=\w\w)", loose))
        yield _folded(" ".join(words))
    if _LEETED.search(plain):
        yield plain.translate(_LEET)


def _folded(text: str) -> str:
    """Lower case, without diacritics, invisible characters and double spaces; ends of lines stay."""
    shown = text if text.isascii() else _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    folded = fold_search(shown)
    return re.sub(r"[^\S\n]+", " ", folded) if "  " in folded or "\t" in folded else folded


def _decoded(text: str, plain: str, met: int) -> Iterator[str]:
    """What stands in the text once decoded, as far as that is text. ``plain``: it folded, with the words ``met`` in it."""
    if ("%" in text or "&" in text or "\\" in text) and _ESCAPED.search(text):
        yield html.unescape(unquote(_ESCAPES.sub(lambda m: chr(int(m[1] or m[2], 16)), text)))
    words = (plain if text.isascii() else text).split()
    sizes = list(map(len, words))
    if max(sizes, default=0) >= 20 or ((":" in text or sizes.count(2) >= _PAIRS - 1) and _HEX.search(text)):
        for run in _CODED.finditer(text):
            yield from _plain_texts(run[0])
    # Folding leaves every letter in which the pattern sees one of its own as that letter, but for the dotless i.
    names_one = (met & _NAMES_CYPHER or "\u0131" in text) and _CYPHER.search(text)
    if names_one:
        joined = _CODED.search(re.sub(r"\s+", "", text))
        if joined:  # broken into lines
            yield from _plain_texts(joined[0])
    if names_one or (text.isascii() and _COMMON.isdisjoint(words) and not _HOLDS_COMMON.search(plain)):
        yield codecs.encode(text, "rot13")
        yield text[::-1]


def _plain_texts(run: str) -> Iterator[str]:
    compact = re.sub(r"[\s:]", "", run)
    for decode in (_base64, bytes.fromhex):
        try:
            raw = decode(compact)
            said = raw.decode()
        except (ValueError, binascii.Error):
            continue
        if sum(one.isprintable() or one.isspace() for one in said) == len(said):
            yield said


def _base64(text: str) -> bytes:
    text = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
