"""Selection: which requests a destination gets, by keyed hash.

A request's key is hashed with the setting `selection_key`, salted with the destination's url, and selected when the
hash falls below the percentage. So every shard, worker and restart decides alike, raising the percentage keeps all
that was in, and two destinations choose independently. No random generator is asked.
"""

from hashlib import blake2b

from replayer.decap import endpoints
from replayer.head import Request, field_value
from replayer.settings import Destination, Settings

_WHOLE = 1 << 64


class Selector:
    """Decides for one destination by its percentage."""

    __slots__ = ("_by", "_from_header", "_header", "_key", "_salt", "_threshold")

    def __init__(self, settings: Settings, destination: Destination) -> None:
        self._threshold = round(_WHOLE * destination.percentage / 100)
        self._by = destination.percentage_by
        self._header = (destination.percentage_by_header or "").lower().encode()
        self._from_header = settings.client_address == "x-forwarded-for"
        self._key = settings.selection_key.encode()[:64]
        self._salt = blake2b(destination.url.encode(), digest_size=16).digest()

    @property
    def everything(self) -> bool:
        """Every request is selected: the question need not be asked."""
        return self._threshold >= _WHOLE

    def names(self) -> set[bytes]:
        """The fields that a decision looks at, in lower case."""
        if self._by == "header":
            return {self._header}
        return {b"x-forwarded-for"} if self._by == "remoteaddr" and self._from_header else set()

    def select(self, request: Request) -> tuple[bool, bool]:
        """Whether the request is selected, and whether it had the key; without, it is decided for itself alone."""
        key = self._key_of(request)
        keyed = key is not None
        if key is None:
            key = b"%b%d" % (request.key, request.offset & 0xFFFF_FFFF)
        number = int.from_bytes(blake2b(key, digest_size=8, key=self._key, salt=self._salt).digest())
        return number < self._threshold, keyed or self._by == "none"

    def _key_of(self, request: Request) -> bytes | None:
        if self._by == "header":
            return field_value(request, self._header)
        if self._by == "remoteaddr":
            forwarded = field_value(request, b"x-forwarded-for") if self._from_header else None
            first = forwarded.split(b",", 1)[0].strip(b" \t") if forwarded else b""
            return first or endpoints(request.key).src.encode()
        return None
