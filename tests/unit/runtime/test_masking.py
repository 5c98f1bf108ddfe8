"""No secret in a text that people see, and nothing hidden that is none."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.masking import holds_secret, without_secrets

passwords = st.text(string.ascii_letters + string.digits + "/@:#?%+=-_.~!$&*(){}[]|\\^,;<>é", min_size=1, max_size=20)


@given(
    passwords, st.sampled_from(["redis://:{}@h:6379/0", "postgresql://me:{}@h/d", "can't reach rediss://me:{}@h now"])
)
def test_a_password_in_a_url_is_hidden_also_where_it_was_not_encoded(password: str, text: str) -> None:
    for written in (password, quote(password, safe="")):
        assert without_secrets(text.format(f"x{written}x")) == text.format("***")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (":hunter2@h:6379", "***@h:6379"),
        ("redis:/:hunter2@h", "***@h"),
        ("--redis :hunter2@h --log-level debug", "--redis ***@h --log-level debug"),
        ("unix:///run/redis.sock?db=1&password=hunter2", "unix:///run/redis.sock?db=1&password=***"),
        ("host=h password=hunter2 dbname=d", "host=h password=*** dbname=d"),
        ("AWS_SECRET_ACCESS_KEY=hunter2", "AWS_SECRET_ACCESS_KEY=***"),
        ('{"redis":"redis://:hunter2@h","to":"a@b"}', '{"redis":"redis://:***@h","to":"a@b"}'),
    ],
)
def test_what_is_written_wrong_is_hidden_too(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert holds_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "redis://10.0.0.1:6379/0",
        "postgresql://plimsoll@db/x",
        "unix:///run/plimsoll@1/redis.sock",
        "node-1 says: mail admin@example.com",
        "spiffe://plimsoll.local/node/n1",
        "10.0.0.1:7401 [fd00::1]:7401",
        "eni-1=10.0.0.7",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert without_secrets(text) == text
