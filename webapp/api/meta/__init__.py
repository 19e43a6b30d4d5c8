"""Meta's webhooks (docs/api.md §4): comments, Messenger, Lead Ads and WhatsApp.

``doors`` receives; ``proof`` says who may speak for whom, ``tenants`` whose each entry is (both look into
``sources``); ``page`` reads a body of a Facebook page (``feed``, ``messenger``, ``leadgen``), ``whatsapp`` one of
WhatsApp Cloud. What they have in common to read with is in ``reading``.
"""
