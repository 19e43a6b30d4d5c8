"""Salesforce (REST): a lead by an external id, and a follow-up task for it.

    client   SalesforceClient: the destination's steps
    wire     one call with a token that is good, and Salesforce's errors in the domain's words
    access   the token: fetched once for all threads, renewed once when it is refused

A lead is upserted by a custom external-id field, which is harmless to repeat. A task is too where the org has such a field
on Activity, and is looked for by it first, so that what a colleague did with it stays; elsewhere its comments carry the
delivery's id, which is looked for among the lead's tasks. Queries read the database, so what was just written is seen.
"""
