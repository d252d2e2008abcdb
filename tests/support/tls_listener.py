"""A listener that notes which server names (SNI) it is asked for."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import create_connection, create_server
from typing import NamedTuple

from tests.support.certificates import TlsFiles
from tests.support.waiting import PATIENCE_SECONDS


class TlsListener(NamedTuple):
    port: int
    # In the order of the handshakes; None where a client sends no name.
    names: list[str | None]


@contextmanager
def tls_listener(files: TlsFiles) -> Iterator[TlsListener]:
    """Accept connections on loopback, one after the other, and end each after its handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    with create_server(("127.0.0.1", 0)) as server:
        closing = threading.Event()

        def accept() -> None:
            while not closing.is_set():
                connection, _ = server.accept()
                connection.settimeout(PATIENCE_SECONDS)
                with connection, suppress(OSError), context.wrap_socket(connection, server_side=True):
                    pass

        port = server.getsockname()[1]
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield TlsListener(port, names)
        finally:
            closing.set()
            with suppress(OSError), create_connection(("127.0.0.1", port), PATIENCE_SECONDS):
                pass
            thread.join(PATIENCE_SECONDS)
