"""A service of UDP: it sends back what it hears, with its name. ``python echo.py 8092``"""

import socketserver
import sys


class Echo(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"echo: " + self.rfile.read())


with socketserver.UDPServer(("127.0.0.1", int(sys.argv[1])), Echo) as server:
    server.serve_forever()
