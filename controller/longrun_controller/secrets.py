"""What must stay secret: made once for each environment, kept in its encrypted `vault.yml`.

The key that opens the vault lies beside it in `.vault-password`, which git ignores. Secrets travel through pipes and
files with mode 0600, never on a command line.
"""

import datetime
import ipaddress
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from longrun_controller.environment import ROOT, Environment
from longrun_controller.errors import ProblemError

CA_DAYS = 3650
PASSWORD_BYTES = 24


def _write(path: Path, content: str, mode: int) -> None:
    """Write a file so that it is there whole or not at all, and never readable by others in between."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _vault(environment: Environment, verb: str, content: str) -> str:
    """Run `ansible-vault encrypt` or `decrypt` from standard input to standard output."""
    program = Path(sys.executable).with_name("ansible-vault")
    done = subprocess.run(
        [program, verb, "--vault-password-file", environment.vault_key, "--output", "-", "-"],
        input=content,
        capture_output=True,
        text=True,
        check=False,
        # Away from ansible/ansible.cfg, which names a key of its own.
        cwd=environment.directory,
    )
    if done.returncode:
        message = (
            f"{environment.vault.relative_to(ROOT)} does not open with the key in {environment.vault_key.relative_to(ROOT)}: "
            "put back the key that made it (a colleague has it)"
        )
        raise ProblemError(message)
    return done.stdout


def read(environment: Environment) -> dict[str, Any]:
    """Return the environment's secrets by name.

    Raises:
        ProblemError: There are none yet, the key is missing or is not the one that made them.
    """
    if not environment.vault.exists():
        message = f"{environment.vault.relative_to(ROOT)} is not there yet: `make up ENV={environment.name}` makes it"
        raise ProblemError(message)
    if not environment.vault_key.exists():
        message = (
            f"{environment.vault_key.relative_to(ROOT)} is missing, so {environment.vault.relative_to(ROOT)} can't be opened: "
            "copy the key from a colleague or your password manager"
        )
        raise ProblemError(message)
    opened: dict[str, Any] = yaml.safe_load(_vault(environment, "decrypt", environment.vault.read_text(encoding="utf-8")))
    return opened


def ensure(environment: Environment) -> bool:
    """Make what is missing of the key, the vault and the ssh key.

    Returns:
        Whether anything was made.

    Raises:
        ProblemError: A vault is there that can't be opened; nothing was changed.
    """
    made = False
    if environment.vault.exists():
        values = read(environment)
    else:
        values = {}
        if not environment.vault_key.exists():
            _write(environment.vault_key, f"{secrets.token_urlsafe(PASSWORD_BYTES)}\n", 0o600)
    before = yaml.safe_dump(values)
    for name in (
        "vault_postgresql_mlflow_password",
        "vault_minio_root_password",
        "vault_minio_mlflow_secret_key",
        "vault_mlflow_admin_password",
        "vault_mlflow_flask_secret_key",
    ):
        values.setdefault(name, secrets.token_urlsafe(PASSWORD_BYTES))
    passwords = values.setdefault("vault_user_passwords", {})
    for user in environment.users():
        passwords.setdefault(user, secrets.token_urlsafe(PASSWORD_BYTES))
    if yaml.safe_dump(values) != before:
        _write(environment.vault, _vault(environment, "encrypt", yaml.safe_dump(values)), 0o600)
        made = True
    if "vault_tls_ca_certificate" in values:
        made |= _show_authority(environment, values["vault_tls_ca_certificate"])
    if not environment.ssh_key.exists():
        _ssh_key(environment)
        made = True
    return made


def ensure_ssh_key(environment: Environment) -> bool:
    """Make the ssh key pair where there is none: its public half, which is all that a plan needs, may be there alone.

    Returns:
        Whether it was made.
    """
    if environment.ssh_public_key.exists() or environment.ssh_key.exists():
        return False
    _ssh_key(environment)
    return True


def ensure_authority(environment: Environment, server_name: str) -> bool:
    """Make the certificate authority, once the name under which clients reach the server is known.

    An authority that may not sign for that name can't be used: a server that was renamed gets another.

    Args:
        environment: Its vault gets the key and the certificate.
        server_name: Host name or IP address of the server.

    Returns:
        Whether anything was made.
    """
    values = read(environment)
    if "vault_tls_ca_private_key" in values and _general_name(server_name) in _permitted(values["vault_tls_ca_certificate"]):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    values["vault_tls_ca_private_key"] = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    values["vault_tls_ca_certificate"] = _authority(environment, key, _general_name(server_name))
    _write(environment.vault, _vault(environment, "encrypt", yaml.safe_dump(values)), 0o600)
    _show_authority(environment, values["vault_tls_ca_certificate"])
    return True


def _show_authority(environment: Environment, certificate: str) -> bool:
    """Lay the certificate, which is public, beside the vault; kept in there, a colleague's clone gets the same one."""
    if environment.ca_certificate.exists() and environment.ca_certificate.read_text() == certificate:
        return False
    _write(environment.ca_certificate, certificate, 0o644)
    return True


def _ssh_key(environment: Environment) -> None:
    """Make the key pair that logs in to the environment's hosts."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()).decode()
    # The private key last: while it is missing, the pair is made anew.
    _write(environment.ssh_public_key, f"{public} longrun-{environment.name}\n", 0o644)
    _write(environment.ssh_key, private, 0o600)


def _general_name(server_name: str) -> x509.GeneralName:
    """Return a host name or an address as certificates say it."""
    try:
        return x509.IPAddress(ipaddress.ip_network(server_name))
    except ValueError:
        return x509.DNSName(server_name)


def _permitted(certificate: str) -> list[x509.GeneralName]:
    """Return the names that an authority may sign for."""
    constraints = x509.load_pem_x509_certificate(certificate.encode()).extensions.get_extension_for_class(x509.NameConstraints)
    return constraints.value.permitted_subtrees or []


def _authority(environment: Environment, key: ec.EllipticCurvePrivateKey, server_name: x509.GeneralName) -> str:
    """Return the certificate of a new authority that may sign for this server's names only.

    Name constraints keep a stolen key from signing for anybody else's site in a browser that trusts this authority.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"longrun {environment.name} {secrets.token_hex(4)}")])
    now = datetime.datetime.now(datetime.UTC)
    key_usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    loopback = [x509.IPAddress(ipaddress.ip_network(network)) for network in ("127.0.0.0/8", "::1/128")]
    permitted: list[x509.GeneralName] = [x509.DNSName("localhost"), *loopback, server_name]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
