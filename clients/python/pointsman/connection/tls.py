"""TLS of the connection: whom the client trusts, and who it says it is."""

import os
from pathlib import Path

import grpc

PathLike = str | os.PathLike[str]


def channel_credentials(
    credentials: grpc.ChannelCredentials | None = None,
    tls: bool | None = None,
    ca_file: PathLike | None = None,
    cert_file: PathLike | None = None,
    key_file: PathLike | None = None,
) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel, or None for plaintext; any file implies TLS.

    Raises ValueError for arguments that contradict each other, and for a file that cannot be read or is no PEM.
    """
    files = [ca_file, cert_file, key_file]
    given = any(file is not None for file in files)
    if credentials is not None and (given or tls is not None):
        raise ValueError("give credentials, or tls and its files, not both")
    if tls is False and given:
        raise ValueError("TLS is switched off, but ca_file, cert_file or key_file is given")
    if (cert_file is None) != (key_file is None):
        raise ValueError("cert_file and key_file belong together: give both")
    if not (tls or given):
        return credentials
    return grpc.ssl_channel_credentials(
        root_certificates=_pem("ca_file", ca_file, b"CERTIFICATE-----"),
        private_key=_pem("key_file", key_file, b"PRIVATE KEY-----"),
        certificate_chain=_pem("cert_file", cert_file, b"CERTIFICATE-----"),
    )


def _pem(name: str, file: PathLike | None, mark: bytes) -> bytes | None:
    if file is None:
        return None
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{name} {os.fspath(file)}: {error.strerror or type(error).__name__}") from error
    if b"-----BEGIN " not in content or mark not in content:
        kind = mark.decode().removesuffix("-----").lower()
        raise ValueError(f"{name} {os.fspath(file)} must hold a {kind} in PEM")
    return content
