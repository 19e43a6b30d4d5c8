"""One module per outside service, implementing ``webapp.leads.ports``; ``registry`` chooses among them."""
