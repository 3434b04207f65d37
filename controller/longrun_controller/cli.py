"""The command line behind the Makefile: one command a verb."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from longrun_controller import environment as environments
from longrun_controller import plan as plans
from longrun_controller import playbooks, secrets, status, tools
from longrun_controller.environment import ROOT, Environment
from longrun_controller.errors import ProblemError
from longrun_controller.locks import alone
from longrun_controller.platforms import PLATFORMS, platform_of
from longrun_controller.progress import Progress, Step, console
from longrun_controller.terraform import Terraform

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make and look after a longrun server. Each command is a target of the Makefile: `make up ENV=staging`.",
)
Arguments = Annotated[str, typer.Option("--args", help="More arguments for `longrun`, as one string.")]
Name = Annotated[str, typer.Option("--env", metavar="NAME", help="The folder below environments/.")]
# Exit statuses: a problem that a person can put right, and Ctrl-C as shells give it.
PROBLEM, INTERRUPTED = 1, 130


def _changes(count: int) -> str:
    return "nothing changed" if not count else f"{count} change{'s' if count > 1 else ''}"


@app.command("tools")
def tools_(name: Name, *, test: Annotated[bool, typer.Option(help="Also what `make lint` and the tests need.")] = False) -> None:
    """Install or build the programs that the other commands need on the environment's platform."""
    environment, progress = Environment.load(name), Progress()
    with progress.step("tools") as step:
        _tools(step, environment, test=test)


@app.command()
def new(name: Name, platform: Annotated[str, typer.Option(help="container, libvirt or aws.")] = "container") -> None:
    """Make the folder of another server, with ports that nothing else uses."""
    environments.check_name(name)
    platform_of(platform)
    # Two at once would choose the same ports.
    with alone("environments"):
        made = environments.create(name, platform)
    console.print(f"[green]✓[/] made environments/{name}: look at [bold]server.tfvars[/], then `make up ENV={name}`")
    for key in ("https_port", "ssh_port"):
        if key in made.values:
            console.print(f"  [dim]·[/] {key} {made.values[key]}")


def _tools(step: Step, environment: Environment, *, test: bool = False) -> None:
    platform = platform_of(environment.platform)
    tools.ensure(step, packages=platform.PACKAGES, provider=platform.PROVIDER)
    if test:
        tools.ensure_packages(step, tools.TEST_PACKAGES)
        tools.build(step, ["tflint", "actionlint", "act"])
        for each in PLATFORMS:
            try:
                tools.ensure_provider(step, platform_of(each).PROVIDER)
            except ProblemError as error:
                step.note(f"{error}; the tests that need it are left out")
    tools.clean(step)


def _prepare(name: str) -> tuple[Environment, Progress]:
    """Read and check everything that a person wrote, before anything is done."""
    environment = Environment.load(name)
    environment.check()
    return environment, Progress(environment.logs)


def _begin(environment: Environment, progress: Progress) -> None:
    """Find out what stands in the way before minutes of work, and make what has to be secret."""
    with progress.step("secrets and keys") as step:
        platform_of(environment.platform).preflight(environment.values)
        if not secrets.ensure(environment):
            step.note("all there already")


def _provision(environment: Environment, progress: Progress, digest: str | None = None) -> None:
    """Make the host, with a digest only where it is the one of the plan as it is now, made before anything is started or changed."""
    platform, terraform, plan = platform_of(environment.platform), Terraform(environment), None
    with progress.step("host (Terraform)") as step:
        if digest is not None:
            plan = terraform.plan(step, platform.foresee(environment.values, step.say))
            if plan.digest != digest:
                message = f"what was shown is not what would be done now, so nothing was changed: run `make plan ENV={environment.name}` again"
                raise ProblemError(message)
        platform.prepare(environment.values, step.say)
        platform.start(environment.values)
        changed = terraform.apply(step, plan)
        step.note("hosts, network and data volume made or changed" if changed else "nothing to change")
        url = urlsplit(terraform.outputs()["public_url"])
        if secrets.ensure_authority(environment, str(url.hostname)):
            step.note(f"certificate authority for {url.hostname} made: clients trust environments/{environment.name}/ca.crt")
    with progress.step("datastores (PostgreSQL, MinIO)") as step:
        step.note(_changes(playbooks.run(step, environment, "datastores")))


def _deploy(environment: Environment, progress: Progress) -> None:
    with progress.step("deploy (MLflow, nginx)") as step:
        step.note(_changes(playbooks.run(step, environment, "deploy")))


def _users(environment: Environment, progress: Progress) -> None:
    secrets.ensure(environment)
    with progress.step("users") as step:
        step.note(_changes(playbooks.run(step, environment, "users")))


@app.command()
def plan(name: Name) -> None:
    """Show what `provision` would do to hosts, networks and data, without doing it, and the digest that `provision --plan` takes."""
    environment, progress = _prepare(name)
    platform = platform_of(environment.platform)
    with progress.step("plan (Terraform)") as step:
        platform.preflight(environment.values)
        if secrets.ensure_ssh_key(environment):
            step.note("ssh key made: the hosts are told of it, so the plan is")
        folder = environment.directory / ".terraform"
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="plan-") as scratch:
            terraform = Terraform(environment, Path(scratch))
            made = terraform.plan(step, platform.foresee(environment.values, step.say))
            text = terraform.readable(made, colour=sys.stdout.isatty())
    if made.beforehand:
        print("Before Terraform does anything:", *made.beforehand, sep="\n  - ")
    print(text.strip())
    print(f"plan: {made.digest}")


@app.command()
def provision(
    name: Name,
    digest: Annotated[str | None, typer.Option("--plan", metavar="DIGEST", help="What `plan` printed: do that, and nothing else.")] = None,
) -> None:
    """Make the host with Terraform, and PostgreSQL and MinIO on it."""
    environment, progress = _prepare(name)
    if digest is not None:
        plans.check_digest(digest, name)
    _begin(environment, progress)
    _provision(environment, progress, digest)


@app.command()
def deploy(name: Name) -> None:
    """Install MLflow behind nginx on a provisioned host."""
    environment, progress = _prepare(name)
    Terraform(environment).outputs()
    _deploy(environment, progress)


@app.command()
def users(name: Name) -> None:
    """Create the users of users.yml that the server does not have yet."""
    environment, progress = _prepare(name)
    Terraform(environment).outputs()
    _users(environment, progress)


@app.command()
def verify(name: Name) -> None:
    """Check a running server without changing it."""
    environment, progress = _prepare(name)
    Terraform(environment).outputs()
    with progress.step("verify") as step:
        playbooks.run(step, environment, "verify")


@app.command()
def up(name: Name) -> None:
    """Do everything: tools, provision, deploy, users, and one training run."""
    environment, progress = _prepare(name)
    _begin(environment, progress)
    with progress.step("tools") as step:
        _tools(step, environment)
    _provision(environment, progress)
    _deploy(environment, progress)
    _users(environment, progress)
    with progress.step("training packages", quiet=True):
        _training_packages()
    with progress.step("training run", quiet=True):
        _longrun(environment, "train", [])
    url = Terraform(environment).outputs()["public_url"]
    suffix = "" if name == "local" else f" ENV={name}"
    console.print()
    console.print(progress.table())
    console.print()
    console.print(f"  MLflow      [bold]{url}[/]   user [bold]admin[/], password: [bold]make password{suffix}[/]", soft_wrap=True)
    console.print(f"  authority   environments/{name}/ca.crt (import it into the browser, or accept the warning)", soft_wrap=True)
    console.print(f"  train again [bold]make train{suffix}[/]   (your own data: make train{suffix} DATA=file.csv TARGET=column)", soft_wrap=True)
    console.print(f'  any client  [bold]eval "$(make -s env{suffix})"[/]   then use mlflow as ever', soft_wrap=True)
    console.print(f"  look        [bold]make status{suffix}[/]   stop: [bold]make down{suffix}[/]", soft_wrap=True)


def _training_packages() -> None:
    subprocess.run(
        [ROOT / "controller" / "bootstrap", ROOT / "training" / ".venv", ROOT / "requirements" / "training.txt", ROOT / "training"],
        check=True,
    )


def _client_variables(environment: Environment, login: str) -> dict[str, str]:
    """Return the client contract: all that a stock MLflow client needs."""
    return {
        "MLFLOW_TRACKING_URI": Terraform(environment).outputs()["public_url"],
        "MLFLOW_TRACKING_USERNAME": login,
        "MLFLOW_TRACKING_PASSWORD": _password(environment, login),
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(environment.ca_certificate),
    }


def _password(environment: Environment, login: str) -> str:
    values = secrets.read(environment)
    passwords = {"admin": values["vault_mlflow_admin_password"], **values["vault_user_passwords"]}
    if login not in passwords:
        known = ", ".join(sorted(passwords))
        message = f"environments/{environment.name}/users.yml has no user {login!r} (there are: {known}): add it and run `make users`"
        raise ProblemError(message)
    return str(passwords[login])


def _longrun(environment: Environment, verb: str, arguments: list[str]) -> None:
    """Run a verb of the training package's `longrun`, with the client contract in its environment, as the user `ci`."""
    variables = {**os.environ, **_client_variables(environment, "ci")}
    done = subprocess.run([ROOT / "training" / ".venv" / "bin" / "longrun", verb, *arguments], env=variables, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


@app.command()
def train(
    name: Name,
    data: Annotated[str, typer.Option(help="CSV or Parquet file; scikit-learn's diabetes data where left out.")] = "",
    target: Annotated[str, typer.Option(help="The column to predict.")] = "",
    arguments: Arguments = "",
) -> None:
    """Train a model against the server."""
    environment, _ = _prepare(name)
    given = [*(["--data", data] if data else []), *(["--target", target] if target else []), *shlex.split(arguments)]
    _longrun(environment, "train", given)


@app.command()
def gate(name: Name, arguments: Arguments = "") -> None:
    """Compare the last trained model with the one before; the exit status is the gate's."""
    environment, _ = _prepare(name)
    _longrun(environment, "gate", shlex.split(arguments))


@app.command()
def report(name: Name, arguments: Arguments = "") -> None:
    """Write the last gate's report."""
    environment, _ = _prepare(name)
    _longrun(environment, "report", shlex.split(arguments))


@app.command("env")
def env_(name: Name, login: Annotated[str, typer.Option(help="The user whose password is printed.")] = "ci") -> None:
    """Print shell exports for any MLflow client: eval "$(make -s env)"."""
    environment, _ = _prepare(name)
    for key, value in _client_variables(environment, login).items():
        print(f"export {key}={shlex.quote(value)}")


@app.command()
def password(name: Name, login: Annotated[str, typer.Option(help="Whose.")] = "admin") -> None:
    """Print a user's password."""
    print(_password(Environment.load(name), login))


@app.command("status")
def status_(name: Name, *, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Show what runs where, how it does, and how much there is."""
    environment, progress = _prepare(name)
    outputs = Terraform(environment).outputs()
    platform = platform_of(environment.platform)
    if not platform.is_running(environment.values):
        message = f"environment {name!r} is stopped: `make up ENV={name}` starts it"
        raise ProblemError(message)
    with tempfile.TemporaryDirectory(prefix="longrun-") as temporary:
        report = Path(temporary) / "status.json"
        with progress.step("status") as step:
            playbooks.run(step, environment, "status", variables=[f"status_output={report}"])
        collected = json.loads(report.read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(collected, indent=2, sort_keys=True))
        return
    healthy = status.show(outputs["public_url"], collected)
    raise typer.Exit(0 if healthy else PROBLEM)


@app.command()
def down(name: Name) -> None:
    """Stop the server and keep everything."""
    environment, progress = _prepare(name)
    with progress.step("stop"):
        platform_of(environment.platform).stop(environment.values)
    console.print(f"All data is kept; `make up ENV={name}` starts it again.")


@app.command()
def destroy(name: Name, confirm: Annotated[str, typer.Option(help="The environment's name, typed again.")] = "") -> None:
    """Delete the server AND all its data."""
    environment, progress = _prepare(name)
    if confirm != name:
        message = f"this deletes every run, model and artifact of {name!r} for ever; if you mean it: `make destroy ENV={name} CONFIRM={name}`"
        raise ProblemError(message)
    platform = platform_of(environment.platform)
    with progress.step("destroy") as step:
        if environment.state.exists() or environment.backend.exists():
            Terraform(environment).destroy(step)
        if left := platform.leftovers(environment.values):
            message = f"these are still there: {', '.join(left)}"
            raise ProblemError(message)
        environment.known_hosts.unlink(missing_ok=True)
    console.print(f"The vault and its key stay in environments/{name}; remove the folder if you don't want the server again.")


def main() -> None:
    """Run the command line; a person's error is one line and status 1."""
    try:
        app()
    except ProblemError as error:
        console.print(f"[red]longrun:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(PROBLEM)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            console.print("[red]longrun:[/] interrupted; run the same command again, it goes on from here")
        raise


if __name__ == "__main__":
    main()
