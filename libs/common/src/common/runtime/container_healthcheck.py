"""The images' HEALTHCHECK: exits 0 if the process of this container is ready.

Runs as a file, with `python -IS`, and uses only a socket: it runs every few seconds in every container, and importing
an HTTP client would take longer than the rest of it.
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
