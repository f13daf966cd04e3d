"""A feed that misbehaves as it is told."""

import json
import threading
from http import HTTPStatus

from websockets.sync.server import ServerConnection, serve


class Feed:
    """A WebSocket server that sends what it is told and notes what it gets."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.received: list[dict] = []
        self.connections: list[ServerConnection] = []
        self.refuse: HTTPStatus | None = None
        self.refused = 0
        self.open = self.most_open = 0
        # Without pings of its own, which would end a connection whose client is held back.
        self._server = serve(self._talk, "127.0.0.1", port, process_request=self._admit, ping_interval=None)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _admit(self, connection: ServerConnection, _request):
        if self.refuse is not None:
            self.refused += 1
            return connection.respond(self.refuse, "no\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            for text in connection:
                self.received.append(json.loads(text))
        finally:
            self.open -= 1

    def send(self, frame: str | bytes) -> None:
        self.connections[-1].send(frame)

    def close(self) -> None:
        self._server.shutdown()


def frame(*trades: dict) -> str:
    return json.dumps({"type": "trade", "data": trades})
