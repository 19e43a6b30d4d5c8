"""An import-linter contract that says who MAY import whom, instead of who may not.

import-linter's own `forbidden` names what is out of bounds, so a new module is in bounds until somebody
remembers it. Here the list is of what is allowed; only direct imports count.

    source, allowed        modules below `source` import, of ours, only themselves and what is allowed
    forbidden_external     and none of these packages
    target, importers      only these import `target`; `exact` leaves out the modules below it
"""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    type_name = "only"

    source = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    allowed = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    forbidden_external = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    target = fields.StringField(required=False)
    importers = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    exact = fields.BooleanField(required=False, default=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        broken = [*self._outward(graph), *self._inward(graph)]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported, lines in check.metadata["broken"]:
            output.print_error(f"{importer} (line {lines}) imports {imported}")

    def _outward(self, graph: ImportGraph) -> list[tuple[str, str, str]]:
        ours = set(self.session_options["root_packages"])
        broken = []
        for importer in sorted(m for m in graph.modules if _is_below(m, self.source)):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                package = imported.split(".")[0]
                if package in ours:
                    fine = _is_below(imported, [*self.source, *self.allowed])
                else:
                    fine = package not in self.forbidden_external
                if not fine:
                    broken.append((importer, imported, _lines(graph, importer, imported)))
        return broken

    def _inward(self, graph: ImportGraph) -> list[tuple[str, str, str]]:
        if not self.target:
            return []
        targets = {m for m in graph.modules if m == self.target or (not self.exact and _is_below(m, [self.target]))}
        return [
            (importer, imported, _lines(graph, importer, imported))
            for imported in sorted(targets)
            for importer in sorted(graph.find_modules_that_directly_import(imported) - targets)
            if not _is_below(importer, self.importers)
        ]


def _is_below(module: str, roots: list[str]) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in roots)


def _lines(graph: ImportGraph, importer: str, imported: str) -> str:
    details = graph.get_import_details(importer=importer, imported=imported)
    return ", ".join(sorted({str(detail["line_number"]) for detail in details}))
