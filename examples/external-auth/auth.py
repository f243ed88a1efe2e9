"""A small authorization service over HTTP: ``python auth.py --port 8092``.

It is asked with the method and path of each request. 200 lets it pass, and says who asks; 401 does not.
"""

from __future__ import annotations

import argparse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USERS = {"Bearer 1234": "ann", "Bearer 5678": "ben"}


class Auth(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        user = USERS.get(self.headers.get("authorization", ""))
        if user is None:
            self.answer(401, "who are you?\n", {"www-authenticate": "Bearer"})
        elif self.command != "GET" and user != "ann":
            self.answer(403, f"{user} may look, not touch\n", {})
        else:
            self.answer(200, "", {"x-user": user})

    do_POST = do_PUT = do_DELETE = do_GET

    def answer(self, status: int, text: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8092)
    ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Auth).serve_forever()


if __name__ == "__main__":
    main()
