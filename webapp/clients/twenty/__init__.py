"""Twenty CRM (REST core API): people, their company, a note, follow-up tasks; and what is read back from it.

    client      TwentyClient: the destination's steps, and what else is asked of a CRM
    ├ people        the person: upserted by e-mail, found by number
    ├ companies     the person's company
    ├ notes         the verdict as a note
    ├ tasks         the follow-up task of a delivery, and its link to the person
    ├ follow_ups    tasks for people who are in the CRM already (leads.ports.CrmTasks)
    ├ members       who may be given a task
    ├ match         is somebody there already? (leads.ports.CrmMatch)
    └ opportunities what became of them, and what was deleted (leads.ports.CrmOutcomes)
    records     any kind of record: made under an id of ours, changed, looked up, paged through
    values      how Twenty writes numbers, domains and filters

Twenty has no idempotency header. A person is upserted (matched by id or by primary e-mail), so sending again is
harmless. Tasks and task targets take an id of ours: the POST is without ``upsert``, so that a task that a colleague
has already moved on is never overwritten, and "duplicate" means that an earlier attempt arrived. A later decision
changes what the task says, and closes or reopens it; who has it and where it stands is otherwise the colleagues'.
"""
