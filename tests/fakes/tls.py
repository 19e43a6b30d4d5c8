"""Certificates of stand-ins that speak TLS."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
    authority = _builder("authority", "authority", theirs).add_extension(rights, critical=True)
    certificate = _builder(host, "authority", key, ended=ended).sign(theirs, hashes.SHA256())
    file = _kept(folder / "authority.pem", authority.sign(theirs, hashes.SHA256()))
    return _context(folder, certificate, key), file


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
