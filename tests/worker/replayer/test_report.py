"""The final accounting: equations with their numbers, and a verdict that can be trusted."""

from replayer.ledger import Ledger
from replayer.report import accounting


def balanced() -> Ledger:
    ledger = Ledger(socket_drops=5, datagrams=1_000, segments=990, payload_bytes=1_234_567, framed_bytes=1_234_000)
    ledger.refused["not_tcp"] = 7
    ledger.refused["fragment"] = 3
    ledger.given_up_bytes["hole"] = 567
    ledger.given_up["hole"] = 1
    ledger.framed = 40
    part = ledger.destination("http://test.example.com")
    part.framed, part.selected, part.replayed, part.in_flight = 40, 30, 27, 1
    part.passed_over["method"] = 10
    part.failed["timeout"] = 2
    part.status["2xx"] = 27
    return ledger


def test_each_equation_stands_with_its_numbers() -> None:
    lines = [" ".join(line.split()) for line in accounting(balanced()).splitlines()]
    text = "\n".join(lines)
    assert "arrived 1,005\n= socket drops 5\n+ datagrams 1,000\n" in text
    assert "datagrams 1,000\n= segments 990\n+ refused 10\nfragment 3\nnot_tcp 7\n" in text
    assert (
        "payload bytes 1,234,567\n= in framed requests 1,234,000\n+ duplicate 0\n+ passed over 0\n"
        "+ given up 567\nhole 567\n+ held 0\n"
    ) in text
    assert "http://test.example.com\nframed 40\n= selected 30\n+ passed over 10\nmethod 10\n" in text
    assert (
        "selected 30\n= replayed 27\n+ failed 2\ntimeout 2\n+ dropped 0\n+ queued 0\n+ in flight 1\nanswered 2xx 27"
    ) in text


def test_numbers_are_aligned() -> None:
    lines = [line for line in accounting(balanced()).splitlines() if line and line[-1].isdigit()]
    assert len({len(line) for line in lines}) == 1


def test_the_last_line_is_the_verdict() -> None:
    assert accounting(balanced()).splitlines()[-1] == "balanced: nothing is unaccounted for"
    ledger = balanced()
    ledger.segments -= 1
    ledger.destination("http://test.example.com").replayed += 1
    assert accounting(ledger).splitlines()[-2:] == [
        "NOT BALANCED: datagrams = segments + refused: 1000 ≠ 999",
        "NOT BALANCED: http://test.example.com: selected = replayed + failed + dropped + queued + in flight: 30 ≠ 31",
    ]


def test_the_last_trouble_of_a_destination_stands_with_it() -> None:
    ledger = balanced()
    ledger.destination("http://other.example.com")
    text = accounting(ledger, {"http://test.example.com": "10.0.0.1 port 80: refused", "http://gone": "x"})
    [line] = [line for line in text.splitlines() if "last trouble" in line]
    assert line == "    last trouble: 10.0.0.1 port 80: refused"
    assert text.index(line) < text.index("http://other.example.com")


def test_what_did_not_happen_takes_no_line() -> None:
    text = accounting(Ledger())
    assert "fragment" not in text
    assert "evicted" not in text
    assert text.endswith("balanced: nothing is unaccounted for")
