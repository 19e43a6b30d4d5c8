"""Certificates of stand-ins that speak TLS."""

import secrets
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(folder: Path, host: str = "localhost") -> tuple[ssl.SSLContext, Path]:
    """(the server's context, the file of its certificate, which vouches for itself)."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _builder(host, host, key).sign(key, hashes.SHA256())
    return _context(folder, certificate, key), _kept(folder / "authority.pem", certificate)


def signed(folder: Path, host: str = "localhost", *, ended: bool = False) -> tuple[ssl.SSLContext, Path]:
    """(the server's context, the file of the authority that has signed its certificate). ``ended``: it was good until
    yesterday."""
    theirs, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    rights = x509.BasicConstraints(ca=True, path_length=None)
    name = f"authority {secrets.token_hex(4)}"  # they are looked up by name
    authority = _builder(name, name, theirs).add_extension(rights, critical=True)
    certificate = _builder(host, name, key, ended=ended).sign(theirs, hashes.SHA256())
    file = _kept(folder / "authority.pem", authority.sign(theirs, hashes.SHA256()))
    return _context(folder, certificate, key), file


class Authorities(NamedTuple):
    """The contexts of servers whose certificate an authority has signed that is known to everybody (certifi), that the
    operator has named, and that is neither."""

    usual: ssl.SSLContext
    own: ssl.SSLContext
    unknown: ssl.SSLContext


def some_authorities(folder: Path, monkeypatch: pytest.MonkeyPatch, *, variable: str = "SSL_CERT_FILE") -> Authorities:
    contexts, files = [], []
    for name in Authorities._fields:
        (folder / name).mkdir()
        context, file = signed(folder / name)
        contexts.append(context)
        files.append(str(file))
    monkeypatch.setattr(certifi, "where", lambda: files[0])
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, files[1])
    return Authorities(*contexts)


def _builder(
    host: str, issuer: str, key: ec.EllipticCurvePrivateKey, *, ended: bool = False
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(host))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=-1 if ended else 1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _context(folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    secret = folder / "key.pem"
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_kept(folder / "cert.pem", certificate), secret)
    return context


def _kept(file: Path, certificate: x509.Certificate) -> Path:
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return file
