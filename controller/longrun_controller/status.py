"""Shows what `ansible/status.yml` collected."""

import datetime
from http import HTTPStatus
from typing import Any

from rich.table import Table

from longrun_controller.progress import console

GIB = 1024**3


def show(url: str, report: dict[str, Any]) -> bool:
    """Print the report.

    Args:
        url: Where clients reach the server.
        report: `hosts` (by name: `units`, `data`, `system`, `up_since`), `history` (counts), `certificate_until` and `health`.

    Returns:
        Whether everything is healthy.
    """
    healthy: bool = report["health"] == HTTPStatus.OK
    services = Table(box=None, padding=(0, 2))
    for heading in ("host", "service", "state", "version"):
        services.add_column(heading, header_style="dim")
    for name, host in sorted(report["hosts"].items()):
        for unit in host["units"]:
            good = unit["state"] == "active"
            healthy = healthy and good
            services.add_row(name, unit["name"], f"[{'green' if good else 'red'}]{unit['state']}[/]", unit["version"])
    console.print()
    console.print(f"[bold]{url}[/]  {'[green]healthy[/]' if healthy else '[red]NOT healthy[/]'}  [dim](/health answers {report['health']})[/]")
    console.print()
    console.print(services)
    console.print()
    counts = report["history"]
    facts = Table(box=None, padding=(0, 2), show_header=False)
    known = ", ".join(f"{counts[key]} {key.replace('_', ' ')}" for key in ("experiments", "runs", "model_versions", "users") if key in counts)
    facts.add_row("[dim]history[/]", known or "[red]PostgreSQL does not answer[/]")
    for name, host in sorted(report["hosts"].items()):
        data = host["data"]
        full = data["filled_bytes"] / (data["filled_bytes"] + data["free_bytes"])
        own = f"longrun uses {data['used_bytes'] / GIB:.2f} GiB; " if data["used_bytes"] is not None else ""
        facts.add_row(
            f"[dim]data volume of {name}[/]",
            f"{data['path']}: {own}the disk below is {full:.0%} full, {data['free_bytes'] / GIB:.0f} GiB free",
        )
        facts.add_row(f"[dim]system of {name}[/]", f"{host['system']}, up since {host['up_since']}")
    facts.add_row("[dim]certificate[/]", _certificate(report["certificate_until"]))
    console.print(facts)
    return healthy


def _certificate(until: str | None) -> str:
    """Return how long the server's certificate lasts, in days; ASN.1 times look like 20271226213434Z."""
    if not until:
        return "[red]there is none[/]"
    end = datetime.datetime.strptime(until, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
    days = (end - datetime.datetime.now(datetime.UTC)).days
    return f"valid until {end:%Y-%m-%d} ({days} days)"
