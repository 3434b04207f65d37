"""Secrets: made once, encrypted on disk, and never lost to a wrong key."""

import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from longrun_controller import environment as environments
from longrun_controller import secrets
from longrun_controller.environment import Environment
from longrun_controller.errors import ProblemError

Edit = Callable[[str, str], Path]
NAMES = {
    "vault_postgresql_mlflow_password",
    "vault_minio_root_password",
    "vault_minio_mlflow_secret_key",
    "vault_mlflow_admin_password",
    "vault_mlflow_flask_secret_key",
    "vault_user_passwords",
    "vault_tls_ca_private_key",
    "vault_tls_ca_certificate",
}


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with its secrets, made once, for ansible-vault takes its time."""
    directory = tmp_path_factory.mktemp("original")
    (directory / "users.yml").write_text("users:\n  - name: ci\n")
    environment = Environment("local", directory, {"platform": "container", "name": "local", "server_name": "localhost"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "ROOT", directory)
        assert secrets.ensure(environment)
        assert secrets.ensure_authority(environment, "localhost")
    return environment


@pytest.fixture(scope="session")
def values(original: Environment) -> dict[str, Any]:
    """What its vault holds; not to be changed."""
    return secrets.read(original)


@pytest.fixture
def made(local: Environment, original: Environment) -> Environment:
    """A copy of that environment."""
    shutil.copytree(original.directory, local.directory, dirs_exist_ok=True)
    return local


def contents(environment: Environment) -> dict[str, bytes]:
    """Return every file of an environment."""
    return {path.name: path.read_bytes() for path in environment.directory.iterdir() if path.is_file()}


def plain(values: dict[str, Any]) -> list[str]:
    """Return what must not be readable anywhere."""
    passwords = [value for name, value in values.items() if name.endswith(("password", "secret_key"))]
    # The first line of a private key holds its secret number; the others hold the public one too.
    return [*passwords, *values["vault_user_passwords"].values(), values["vault_tls_ca_private_key"].splitlines()[1]]


def test_everything_is_made(values: dict[str, Any]) -> None:
    """A missing secret would show only when a role asks for it, minutes later."""
    assert set(values) == NAMES
    assert set(values["vault_user_passwords"]) == {"ci"}
    generated = [value for name, value in values.items() if name.endswith(("password", "secret_key"))] + [values["vault_user_passwords"]["ci"]]
    assert len(generated) == 6
    assert len(set(generated)) == 6, "two secrets are the same"
    assert all(len(value) >= 32 for value in generated)


def test_nothing_is_readable_by_others(original: Environment) -> None:
    """Other users of the machine must not read what opens the server."""
    for name, mode in {".vault-password": 0o600, "vault.yml": 0o600, "ssh_key": 0o600, "ssh_key.pub": 0o644, "ca.crt": 0o644}.items():
        assert stat.S_IMODE((original.directory / name).stat().st_mode) == mode, name
    assert not list(original.directory.glob("*.part"))


def test_no_secret_lies_on_disk_in_plain_text(original: Environment, values: dict[str, Any]) -> None:
    """The vault is meant for git; the key beside it opens it and nothing else."""
    hidden = plain(values)
    assert len(hidden) == 7
    files = contents(original)
    assert files["vault.yml"].startswith(b"$ANSIBLE_VAULT;")
    for name, content in files.items():
        for value in hidden:
            assert value.encode() not in content, name


def test_a_second_call_changes_nothing(made: Environment) -> None:
    """Every `make up` calls it; a new password would lock the running server out of its database."""
    before = contents(made)
    assert not secrets.ensure(made)
    assert contents(made) == before


def test_a_new_user_gets_a_password_and_nobody_else_a_new_one(made: Environment, values: dict[str, Any], edit: Edit) -> None:
    """Adding somebody must not change what the others log in with."""
    edit("users.yml", "users:\n  - name: ci\n  - name: ann\n")
    assert secrets.ensure(made)
    after = secrets.read(made)
    ann = after["vault_user_passwords"].pop("ann")
    assert after == values
    assert len(ann) >= 32


def test_a_user_who_was_taken_out_keeps_the_password(made: Environment, edit: Edit) -> None:
    """The server still has the user; the password may be wanted again."""
    before = made.vault.read_bytes()
    edit("users.yml", "users: []\n")
    assert not secrets.ensure(made)
    assert made.vault.read_bytes() == before


def test_a_wrong_key_is_one_line_and_changes_nothing(made: Environment) -> None:
    """A key from another machine must not lead to a new vault over the one that holds the passwords."""
    made.vault_key.write_text("not the key\n")
    before = contents(made)
    for call in (secrets.ensure, secrets.read):
        with pytest.raises(ProblemError) as caught:
            call(made)
        text = str(caught.value)
        assert "\n" not in text
        assert "environments/local/vault.yml does not open with the key in environments/local/.vault-password" in text
    assert contents(made) == before


def test_a_missing_key_changes_nothing(made: Environment) -> None:
    """A colleague's clone has the vault and no key: a new key would open nothing."""
    made.vault_key.unlink()
    before = contents(made)
    with pytest.raises(ProblemError, match=r"is missing, so environments/local/vault\.yml can't be opened"):
        secrets.ensure(made)
    assert contents(made) == before


def test_no_vault_yet_says_what_makes_it(local: Environment) -> None:
    """`make password` before `make up` is an easy mistake."""
    with pytest.raises(ProblemError, match="`make up ENV=local` makes it"):
        secrets.read(local)


def test_a_clone_gets_the_same_authority_and_a_key_of_its_own(made: Environment) -> None:
    """Vault and key come from a colleague, the rest is made: clients must go on trusting the same authority."""
    certificate, key = made.ca_certificate.read_text(), made.ssh_key.read_text()
    for path in (made.ca_certificate, made.ssh_key, made.ssh_key.with_name("ssh_key.pub")):
        path.unlink()
    assert secrets.ensure(made)
    assert made.ca_certificate.read_text() == certificate
    assert made.ssh_key.read_text() != key


def test_a_key_pair_without_its_private_half_is_made_anew(made: Environment) -> None:
    """After an interruption between the two files, the halves must belong together."""
    made.ssh_key.unlink()
    secrets.ensure(made)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", made.ssh_key], capture_output=True, text=True, check=True).stdout
    assert shown.split()[:2] == made.ssh_key.with_name("ssh_key.pub").read_text().split()[:2]
    assert shown.startswith("ssh-ed25519 ")


def constraints(environment: Environment) -> list[x509.GeneralName]:
    """Return the names that the environment's authority may sign for."""
    certificate = x509.load_pem_x509_certificate(environment.ca_certificate.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    assert extension.value.permitted_subtrees
    return extension.value.permitted_subtrees


def test_the_authority_signs_for_this_server_only(original: Environment, values: dict[str, Any]) -> None:
    """People import it into their browser: a stolen key must not open a bank's site there."""
    certificate = x509.load_pem_x509_certificate(original.ca_certificate.read_bytes())
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value.ca
    assert basic.value.path_length == 0
    assert {str(name.value) for name in constraints(original)} == {"localhost", "127.0.0.0/8", "::1/128"}
    key = serialization.load_pem_private_key(values["vault_tls_ca_private_key"].encode(), None)
    public = {k.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) for k in (key.public_key(), certificate.public_key())}
    assert len(public) == 1


@pytest.mark.parametrize(("server", "name"), [("mlflow.example.org", "mlflow.example.org"), ("10.1.2.3", "10.1.2.3/32")])
def test_a_renamed_server_gets_an_authority_that_may_sign_for_it(made: Environment, values: dict[str, Any], server: str, name: str) -> None:
    """The old one would be refused by every client, for its constraints name the old server."""
    assert secrets.ensure_authority(made, server)
    assert not secrets.ensure_authority(made, server)
    assert name in {str(constraint.value) for constraint in constraints(made)}
    after = secrets.read(made)
    assert {key for key in values if values[key] != after[key]} == {"vault_tls_ca_private_key", "vault_tls_ca_certificate"}


def test_the_vault_opens_with_ansible_alone(original: Environment, values: dict[str, Any]) -> None:
    """Somebody without longrun must be able to get at the passwords."""
    program = Path(sys.executable).with_name("ansible-vault")
    shown = subprocess.run(
        [program, "view", "--vault-password-file", original.vault_key, original.vault], capture_output=True, text=True, check=True, cwd=original.directory
    ).stdout
    assert yaml.safe_load(shown) == values
