"""Asks the process of this container whether it is ready; exits 0 if so. The images' HEALTHCHECK.

Run as a file, with `python -IS`, and on nothing but a socket: it is asked every few seconds of every container, and
importing an HTTP client alone would cost more than everything else here.
"""

import socket
import sys

PORT = 8000
TIMEOUT = 8


def main() -> int:
    try:
        with socket.create_connection(("127.0.0.1", PORT), TIMEOUT) as connection:
            connection.sendall(b"GET /health/ready HTTP/1.0\r\n\r\n")
            return 0 if b" 200 " in connection.recv(64) else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
