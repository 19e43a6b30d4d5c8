"""Bodies as the senders of inbound webhooks really post them, shortened where that changes nothing."""

from typing import Any

TYPEFORM: dict[str, Any] = {
    "event_id": "01HTYPEFORMEVENT",
    "event_type": "form_response",
    "form_response": {
        "form_id": "lT4Z3j",
        "token": "a3a12ec67a1365927098a606107fac15",
        "landed_at": "2026-11-20T07:59:10Z",
        "submitted_at": "2026-11-20T08:01:46Z",
        "hidden": {"utm_source": "newsletter", "gclid": "Cj0KCQ"},
        "definition": {
            "id": "lT4Z3j",
            "title": "Talk to sales",
            "fields": [
                {"id": "SMEUb7VJz92Q", "title": "Your e-mail", "type": "email", "ref": "5f1c", "properties": {}}
            ],
        },
        "answers": [
            {"type": "text", "text": "Ada", "field": {"id": "A1", "type": "short_text", "ref": "first_name"}},
            {"type": "text", "text": "Lovelace", "field": {"id": "A2", "type": "short_text", "ref": "last_name"}},
            {"type": "email", "email": "ada@analytical.example", "field": {"id": "A3", "type": "email", "ref": "5f1c"}},
            {
                "type": "phone_number",
                "phone_number": "+442071838750",
                "field": {"id": "A4", "type": "phone_number", "ref": "77aa"},
            },
            {
                "type": "text",
                "text": "Need urgent pricing for 50 seats, please send a quote",
                "field": {"id": "A5", "type": "long_text", "ref": "99bb"},
            },
            {"type": "boolean", "boolean": True, "field": {"id": "A6", "type": "legal", "ref": "cc00"}},
            {"type": "number", "number": 12000, "field": {"id": "A7", "type": "number", "ref": "budget"}},
        ],
    },
}

GOOGLE: dict[str, Any] = {
    "lead_id": "TeSter-123-ABCDEFGHIJKLMNOPQRSTUVWXYZ-abcdefghijklmnopqrstuvwxyz-0123456789-AaBbCcDdEeFfGgHhIiJjKkLl",
    "api_version": "1.0",
    "form_id": 40000000000,
    "campaign_id": 123498765,
    "google_key": "a-shared-google-key",
    "gcl_id": "EAIaIQobChMI",
    "adgroup_id": 20000000000,
    "creative_id": 30000000000,
    "user_column_data": [
        {"column_name": "Full Name", "string_value": "Nguyễn Hạnh", "column_id": "FULL_NAME"},
        {"column_name": "User Email", "string_value": "hanh@congty.example", "column_id": "EMAIL"},
        {"column_name": "User Phone", "string_value": "+84912345678", "column_id": "PHONE_NUMBER"},
        {"column_name": "Company", "string_value": "Công ty Hạnh", "column_id": "COMPANY_NAME"},
        {"column_name": "Job", "string_value": "CTO", "column_id": "JOB_TITLE"},
        {"string_value": "Cho tôi báo giá gói Enterprise", "column_id": "what_do_you_need?"},
        {"string_value": "trong tháng này", "column_id": "when?"},
    ],
}

HUBSPOT_FORM: dict[str, Any] = {
    "formId": "f1", "portalId": 62515, "conversionId": "8f1c6c3e-1", "submittedAt": 1795162506000,
    "fields": [
        {"objectTypeId": "0-1", "name": "firstname", "value": "Grace"},
        {"objectTypeId": "0-1", "name": "lastname", "value": "Hopper"},
        {"objectTypeId": "0-1", "name": "email", "value": "grace@navy.example"},
        {"objectTypeId": "0-1", "name": "company", "value": "Navy"},
        {"objectTypeId": "0-1", "name": "message", "value": "Could we get a demo next week?"},
    ],
    "context": {"pageUri": "https://example.com/contact", "hutk": "x"},
}  # fmt: skip

HUBSPOT_CONTACT: dict[str, Any] = {
    "vid": 901,
    "portal-id": 62515,
    "properties": {
        "firstname": {"value": "Grace", "versions": [{"value": "Grace", "source-type": "FORM"}]},
        "lastname": {"value": "Hopper", "versions": []},
        "email": {"value": "grace@navy.example", "versions": []},
        "message": {"value": "Could we get a demo next week?", "versions": []},
    },
    "form-submissions": [{"conversion-id": "8f1c6c3e-2", "page-url": "https://example.com/contact"}],
}

WEBFLOW: dict[str, Any] = {
    "triggerType": "form_submission",
    "payload": {
        "name": "Contact Us", "siteId": "65427cf400e02b306eaa049c",
        "data": {
            "First Name": "Zaphod", "Last Name": "Beeblebrox", "Email": "zaphod@heartofgold.example",
            "Phone Number": "15550000000", "Message": "Please call me about buying 3 ships",
        },
        "submittedAt": "2026-11-20T08:00:00.000Z", "id": "6321ca84df3949bfc6752327", "formId": "65429eadebe8a9f3a30f62d0",
    },
}  # fmt: skip

PLAIN: dict[str, Any] = {
    "Email": "linus@kernel.example", "first_name": "Linus", "last_name": "T", "note": "How much for 20 licences?",
    "tel": "+358401234567", "organization": "Kernel", "budget": "1,500", "utm_source": "google",
    "submission_id": "s-1",
}  # fmt: skip
