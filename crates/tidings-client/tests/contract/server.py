"""Serves the answers of cases.json with what Python has in itself. See main.rs."""

import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

with open(sys.argv[1], encoding="utf-8") as file:
    CASES = {case["name"]: case for case in json.load(file)}
LINE_ENDS = {"crlf": "\r\n", "cr": "\r"}
requests = {}
"""How many requests each path has had."""
lock = threading.Lock()


def answer_for(path, name):
    answers = CASES[name]["answers"]
    with lock:
        index = requests.get(path, 0)
        requests[path] = index + 1
    if CASES[name].get("repeats"):
        index = min(index, len(answers) - 1)
    return answers[index] if index < len(answers) else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        url = urlsplit(self.path)
        _, run, name = url.path.split("/")
        settings = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        answer = answer_for(url.path, name)
        if answer is None:
            self.send_response(204)
            self.end_headers()
            return

        port = self.server.server_port
        headers = {key.lower(): value.encode("latin-1").decode() for key, value in self.headers.items()}
        received = {"method": self.command, "query": url.query, "headers": headers, "body": body}
        replacements = {
            "{first}": f"http://127.0.0.1:{port}/{run}",
            "{other}": f"http://localhost:{port}/{run}",
            "{other-with-user}": f"http://ada:lovelace@localhost:{port}/{run}",
            "{request}": json.dumps(received),
            "{payload}": "x" * int(settings.get("payload", 0)),
        }

        def fill(text):
            return re.sub(r"\{[a-z-]+\}", lambda found: replacements.get(found[0], found[0]), text)

        status = answer.get("status", 200)
        self.send_response(status)
        answer_headers = answer.get("headers", {})
        if status == 200 and "Content-Type" not in answer_headers:
            self.send_header("Content-Type", "text/event-stream")
        for key, value in answer_headers.items():
            self.send_header(key, fill(value))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line_end = LINE_ENDS.get(settings.get("line_end"), "\n")
        for text in answer.get("chunks", []):
            data = fill(text).replace("\n", line_end).encode()
            size = int(settings.get("split", 0)) or len(data)
            for start in range(0, len(data), size):
                self.chunk(data[start : start + size])
        if answer.get("end") == "silent":
            # Until the client is gone.
            self.rfile.read(1)
        if answer.get("end", "clean") == "clean":
            self.chunk(b"")
        else:
            self.close_connection = True

    do_GET = do_POST = do_REPORT = serve

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_):
        pass


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_test).start()
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
