"""A Consul whose certificate has expired: as much of it as a client sees before it hangs up."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from rig.host import run
from rig.network import inside

SETTINGS = """\
[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
policy = any
copy_extensions = copy
default_md = sha256
[any]
commonName = supplied
"""


@contextlib.contextmanager
def server(pid, port):
    """Listens in the network of a process; gives the certificate that a client is to trust."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
        listener = inside(pid, lambda: socket.create_server(("127.0.0.1", port)))
        thread = threading.Thread(target=serve, args=(listener, context))
        thread.start()
        try:
            yield Path(folder, "cert.pem").read_text()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            listener.close()


def serve(listener, context):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.settimeout(5)
        try:
            context.wrap_socket(connection, server_side=True).close()
        except OSError:
            connection.close()


def make(folder):
    (folder / "openssl.cnf").write_text(SETTINGS)
    (folder / "index.txt").touch()
    run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=consul",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "request.pem"], cwd=folder)
    run(["openssl", "ca", "-batch", "-selfsign", "-notext", "-create_serial", "-config", "openssl.cnf", "-keyfile", "key.pem",
         "-in", "request.pem", "-out", "cert.pem", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z"],
        cwd=folder)
