"""HubSpot (CRM v3): a contact, a follow-up task for them, a note.

    client   HubspotClient: the destination's steps
    wire     one call, and HubSpot's errors in the domain's words

A contact is upserted by a property with unique values, which is harmless to repeat: the e-mail, or for people without one
a property of the customer's that holds a key of ours. Tasks and notes have no such property. Each is made together with
its link to the contact and carries the delivery's id in its text; before one is sent again, it is looked for among what is
linked to the contact. The links are read rather than searched, since the search knows of a new record only seconds later.
"""
