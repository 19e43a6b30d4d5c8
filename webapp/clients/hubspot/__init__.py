"""HubSpot (CRM v3): a contact, a follow-up task for them, a note.

    client   HubspotClient: the destination's steps
    wire     one call, and HubSpot's errors in the domain's words

A contact with an e-mail is changed by it, else made, and HubSpot takes an e-mail once; one without is upserted by a property
of the customer's with unique values, which holds a key of ours. Either is harmless to repeat. Tasks and notes have no such
property. Each is made together with
its link to the contact and carries the delivery's id in its text; before one is sent again, it is looked for among what is
linked to the contact. The links are read rather than searched, since the search knows of a new record only seconds later.
"""
