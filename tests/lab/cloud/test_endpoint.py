"""A side door as its callers see it. That the emulator's own doors answer so is in test_emulator.py."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from lab.cloud.endpoint import Endpoint, RefusedError

_EVENTS, _PAGE = 7, 3


class _Doors(BaseHTTPRequestHandler):
    """Gives events in pages, and refuses whatever is said."""

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        assert asked.path == "/_lab/events"
        first = int(parse_qs(asked.query)["after"][0]) + 1
        numbers = range(first, min(first + _PAGE, _EVENTS + 1))
        self._answer(200, {"events": [{"number": n, "time": 0.0, "event": {}, "copies": 1} for n in numbers]})

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(400, {"message": f"{self.path} will not have {said}"})

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with HTTPServer(("127.0.0.1", 0), _Doors) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Endpoint(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def test_all_pages_of_the_events_are_read(endpoint: Endpoint) -> None:
    assert [one.number for one in endpoint.events()] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.number for one in endpoint.events(5)] == [6, 7]


def test_a_refusal_is_told_in_the_words_of_the_door(endpoint: Endpoint) -> None:
    with pytest.raises(RefusedError, match="^/_lab/bus will not have {'lost': 2}$"):
        endpoint.door("bus", {"lost": 2})


def test_where_nobody_listens_the_caller_hears_of_it() -> None:
    with pytest.raises(OSError, match="refused"):
        Endpoint("http://127.0.0.1:1").door("bus", {})
