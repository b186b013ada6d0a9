"""Servers that misbehave, on a free port, and what they received."""

import socket
import threading
from contextlib import contextmanager


class Scripted:
    """Answers each request with the next step of a script: bytes, or None to close the connection
    without an answer."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as reader:
            while request := read_request(reader):
                self.requests.append(request)
                answer = self.script.pop(0) if self.script else None
                if answer is None:
                    return
                connection.sendall(answer)
                if b"connection: close" in answer.lower():
                    return

    def keys(self):
        return [request["headers"]["idempotency-key"] for request in self.requests]


def read_request(reader):
    first = reader.readline()
    if not first:
        return None
    headers = {}
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return {"line": first.decode().strip(), "headers": headers, "body": body}


def answer(status, body=b"", *headers):
    fields = "".join(f"{line}\r\n" for line in [f"Content-Length: {len(body)}", *headers])
    return f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + body


@contextmanager
def scripted(*script):
    server = Scripted(*script)
    try:
        yield server
    finally:
        # A thread that waits in accept() would keep the port open otherwise.
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()


class Cutter:
    """A TCP proxy in front of a hub, which cuts its connections when the test says so."""

    def __init__(self, port):
        self.target = port
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            hub = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [client, hub]
            for source, sink in ((client, hub), (hub, client)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()

    def cut(self):
        cut, self.sockets = self.sockets, []
        for each in cut:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()


def _copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
