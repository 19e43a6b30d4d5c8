"""What a model says of a lead may stand in a task only as far as it is the lead's own; and the template beside it."""

import html
import re

import pytest

from tests.leads.writing import snapshot
from webapp.clients.crm import as_html, as_text, verdict_markdown
from webapp.leads import task_check, task_template
from webapp.leads.ports import Suggestion, Usage
from webapp.leads.states import Intent, NextAction, Priority, TaskStep
from webapp.leads.task_template import Step

VI = "Bên em cần 20 bộ bàn ghế gỗ sồi cho quán ở Đà Nẵng, báo giá giúp em nhé. Mai"


def suggestion(summary="They ask for the price.", points=(), steps=((TaskStep.CALL, ""),)):
    return Suggestion(summary, tuple(points), tuple(steps), Usage("m", 1))


def problem(summary, lead=None, **over):
    lead = lead or snapshot()
    return task_check.problem_of(suggestion(summary, **over), lead, lead.message)


class TestSummaries:
    @pytest.mark.parametrize(
        "summary",
        [
            "They ask for the price of 50 seats of the Enterprise plan before Friday.",
            "The customer wants 50 Enterprise seats. They need them before Friday.",
            "Jane from Acme asks what 50 seats cost.",
            "[name] wants 50 seats and gave [phone].",
        ],
    )
    def test_the_leads_own_words_in_a_report_pass(self, summary):
        assert problem(summary) is None

    @pytest.mark.parametrize(
        "summary",
        ["Khách cần 20 bộ bàn ghế gỗ sồi cho quán ở Đà Nẵng và hỏi giá.", "Mai hỏi báo giá 20 bộ bàn ghế."],
    )
    def test_vietnamese_too(self, summary):
        assert problem(summary, snapshot(VI, name="Mai", lang="vi")) is None

    @pytest.mark.parametrize(
        ("summary", "why"),
        [
            ("They want 500 seats.", "a number that the lead did not give"),
            ("They want 50 seats for $9,000.", "markup or signs"),
            ("They want 50 seats for 9,000 dollars.", "a number that the lead did not give"),
            ("They want five thousand seats.", "not in the lead’s own fields"),
            ("They want 50 seats before Monday.", "not in the lead’s own fields"),
            ("Bob Miller wants 50 seats.", "not in the lead’s own fields"),
            ("They want 50 seats, Bob Miller says.", "not in the lead’s own fields"),
            ("They want 50 seats; write to jane@evil.example.", "an address that the lead did not give"),
            ("They want what is at www.evil.example.", "an address that the lead did not give"),
            ("They want what is at evil.example/pay.", "an address that the lead did not give"),
            ("They ask for the price <b>now</b>.", "markup or signs"),
            ("They ask [for the price](x).", "markup or signs"),
            ("They ask.\n## Price", "markup or signs"),
            ("Price 50 seats of the Enterprise plan.", "told somebody to do something"),
            ("They ask for the price. Call before Friday.", "told somebody to do something"),
            ("They say you must ask for the price.", "told somebody to do something"),
            ("", "no summary"),
            ("They ask " * 100, "no summary"),
        ],
    )
    def test_anything_else_does_not(self, summary, why):
        assert why in problem(summary)

    def test_an_address_that_the_lead_gave_may_be_named(self):
        lead = snapshot("My shop is acme.example, what is the price?")
        assert problem("They ask for the price for acme.example.", lead) is None

    def test_an_amount_that_the_lead_gave_may_be_written_otherwise(self):
        lead = snapshot("Budget is 12.000.000, what is the price?", budget=12_000_000.0)
        assert problem("They have a budget of 12,000,000.", lead) is None


class TestQuotations:
    @pytest.mark.parametrize("quote", ["50 seats", "the  ENTERPRISE plan", "Jane"])
    def test_what_stands_in_the_message_may_be_quoted(self, quote):
        assert problem("They ask for the price.", points=[quote], steps=[(TaskStep.QUOTE, quote)]) is None

    @pytest.mark.parametrize("quote", ["500 seats", "seats 50", "call me at once", "x" * 161])
    def test_what_does_not_may_not(self, quote):
        wrong = "quoted words that are not in the message"
        assert problem("They ask for the price.", points=[quote]) == wrong
        assert problem("They ask for the price.", steps=[(TaskStep.CALL, quote)]) == wrong

    def test_a_masked_quotation_is_left_out(self):
        said = suggestion(points=["Jane", "[phone]"], steps=[(TaskStep.CALL, "[phone]"), (TaskStep.CALL, "50 seats")])
        assert task_check.usable(said) == ([Step(TaskStep.CALL, "")], ["Jane"])

    def test_no_step_and_far_too_many_are_refused(self):
        assert problem("They ask for the price.", steps=[]) == "named no step"
        assert problem("They ask for the price.", steps=[(TaskStep.CALL, "")] * 7) == "said too much"

    def test_masks_become_what_is_known(self):
        assert task_check.unmasked("[name] gave [phone].", snapshot()) == "Jane Roe gave their phone number."


class TestTemplate:
    @pytest.mark.parametrize("intent", list(Intent))
    @pytest.mark.parametrize("language", ["en", "vi"])
    def test_every_intent_has_steps_in_both_languages(self, intent, language):
        for priority in Priority:
            for action in NextAction:
                text = task_template.render(snapshot(intent=intent, priority=priority, next_action=action), language)
                assert "\n1. " in text
                assert "None" not in text
                assert ("Việc tiếp theo" in text) == (language == "vi")

    def test_it_says_what_is_known_and_nothing_else(self):
        text = task_template.render(snapshot(), "en")
        for piece in (
            "price inquiry",
            "P1 (today)",
            "90%",
            "jane@acme.example",
            "+84912345678",
            "Acme",
            "> We want 50",
        ):
            assert piece in text
        bare = snapshot(email=None, phone_e164=None, company=None, score=None, decided_by=None)
        text = task_template.render(bare, "en")
        for word in ("E-mail", "Phone", "Company", "Score", "Decided by"):
            assert word not in text
        assert "1. Answer them where they wrote." in text

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("website_form", "biểu mẫu trên website"),
            ("unknown", "chưa rõ"),
            ("google_ads", "Google Ads"),
            ("Hội chợ", "Hội chợ"),
        ],
    )
    def test_in_vietnamese_the_source_is_too(self, source, said):
        assert f"- **Nguồn:** {said}\n" in task_template.render(snapshot(source=source, lang="vi"), "vi")

    def test_a_note_for_a_crm_says_why_in_words(self):
        said = snapshot(reasons=("inquiry_price (3): “price”", "the model says inquiry price (90%)"))
        why = verdict_markdown(said).partition("## Why\n\n")[2]
        assert why == "- price inquiry (3): “price”\n- the model says price inquiry (90%)"

    @pytest.mark.parametrize(
        ("over", "first"),
        [
            ({"next_action": NextAction.CALL}, TaskStep.CALL),
            ({"next_action": NextAction.CALL, "phone_e164": None}, TaskStep.WRITE),
            ({"next_action": NextAction.EMAIL, "email": None}, TaskStep.CALL),
            ({"intent": Intent.COMPLAINT}, TaskStep.APOLOGISE),
            ({"next_action": NextAction.IGNORE}, TaskStep.CLOSE),
        ],
    )
    def test_the_first_step_fits_the_lead(self, over, first):
        assert task_template.steps_for(snapshot(**over))[0].step is first

    def test_a_leads_words_stay_text(self):
        lead = snapshot("# Pay\n[here](https://evil.example)\n<b>now</b>\n1. Wire it", company="**Evil** `x`")
        text = task_template.render(
            lead, "en", steps=[Step(TaskStep.QUOTE, "[here](x)")], summary="They *ask*", points=["<b>"]
        )
        assert "[here](" not in text.replace("\\[", "").replace("\\]", "")
        assert "<b>" not in text.replace("\\<", "")
        assert "> \\# Pay" in text
        assert all(line.startswith(("> ", "- ", "## ", "1. ", "By ")) for line in text.splitlines() if line)

    @pytest.mark.parametrize(
        "message",
        [
            "We want it\n---\nand soon\n===", "- one\n+ two", "1. Wire it\n2) now", "    rm -rf /\n\tls", "&lt;b&gt; &copy;",
            "> said before", "[a]: https://evil.example\n[a]", "~~~\nx\n~~~", "a | b\n--|--\n1 | 2", "<https://evil.example>",
        ],
    )  # fmt: skip
    def test_a_message_makes_no_list_rule_or_heading_of_itself(self, message):
        said = task_template.render(snapshot(message), "en").partition("## Message\n\n")[2]
        rendered = as_html(said)
        assert set(re.findall(r"<(\w+)", rendered)) == {"blockquote", "p"}
        words = [line.strip() for line in message.splitlines()]
        assert html.unescape(re.sub(r"<[^>]+>", "", rendered)).split() == " ".join(words).split()
        assert as_text(said) == "\n".join(f"> {line}" for line in words)

    def test_a_long_message_is_cut(self):
        assert len(task_template.render(snapshot("x" * 50_000), "en")) < 5_000

    def test_the_language_is_the_leads_own_unless_chosen(self):
        assert task_template.language_of(snapshot(lang="vi"), "auto") == "vi"
        assert task_template.language_of(snapshot(lang="mixed"), "auto") == "en"
        assert task_template.language_of(snapshot(lang="vi"), "en") == "en"
