"""What both peers derive from an attempt's nonce."""

from __future__ import annotations

from punchd.core.terms import secret_numbers, secret_tag

NONCE = bytes(range(16))


def test_secrets_depend_on_nonce_and_label() -> None:
    """Two numbers of one attempt must not be told from one another's."""
    assert secret_numbers(NONCE, "A") == secret_numbers(NONCE, "A")
    assert 4 == len({*secret_numbers(NONCE, "A"), *secret_numbers(NONCE, "B")})
    assert secret_numbers(NONCE, "A") != secret_numbers(bytes(16), "A")
    assert 8 == len(secret_tag(NONCE, "udp"))
    assert secret_tag(NONCE, "udp") != secret_tag(bytes(16), "udp")
