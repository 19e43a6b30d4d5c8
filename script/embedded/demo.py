"""`script/server --demo`: stand-ins of the outside services, and a workspace full of invented leads."""

from collections.abc import Mapping

from embedded.errors import StartError
from embedded.supervisor import Supervisor


def start_stand_ins(_supervisor: Supervisor, _environ: Mapping[str, str]) -> dict[str, str]:
    """Start the stand-ins (on random loopback ports) and return the variables that lead to them.

    Called when both servers run and the database is migrated, before web, workers and clock start.
    """
    raise StartError("--demo is not part of this build.")


def fill(_url: str, _environ: Mapping[str, str]) -> None:
    """Post the demo leads through the real doors. Called once the console is ready, before it says so."""
