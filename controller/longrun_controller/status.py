"""Shows what `ansible/status.yml` collected."""

from typing import Any

from rich.table import Table

from longrun_controller.progress import console

GIB = 1024**3


def show(url: str, report: dict[str, Any]) -> bool:
    """Print the report.

    Args:
        url: Where clients reach the server.
        report: `hosts` (by name: `units`, `versions`, `data`, ...), `history` (counts), `certificate` and `health`.

    Returns:
        Whether everything is healthy.
    """
    healthy = report["health"] == 200
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
    facts.add_row("[dim]history[/]", ", ".join(f"{counts[key]} {key.replace('_', ' ')}" for key in ("experiments", "runs", "model_versions", "users")))
    for name, host in sorted(report["hosts"].items()):
        data = host["data"]
        used = data["size_bytes"] - data["free_bytes"]
        facts.add_row(
            f"[dim]data volume of {name}[/]",
            f"{data['path']}: longrun uses {data['used_bytes'] / GIB:.2f} GiB; the disk below is {used / data['size_bytes']:.0%} full, {data['free_bytes'] / GIB:.0f} GiB free",
        )
        facts.add_row(f"[dim]system of {name}[/]", f"{host['system']}, up since {host['up_since']}")
    facts.add_row("[dim]certificate[/]", f"valid until {report['certificate_until']}")
    console.print(facts)
    return healthy
