#!/usr/bin/python3
"""tests/support/https_server.py PORT CERTIFICATE KEY - takes what is PUT, on every address of its namespace.

SPDX-License-Identifier: Apache-2.0

Prints "ready" when it listens.
"""
import http.server
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):  # without the base's question to DNS for its own name
        http.server.socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "server", self.server_address[1]


def main():
    port, certificate, key = sys.argv[1:]
    server = Server(("", int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
