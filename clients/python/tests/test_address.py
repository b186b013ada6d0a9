import pytest

from tidings import Client, ConfigurationError
from tidings._address import access_from_environment, parse_address


@pytest.mark.parametrize(
    ("url", "shown", "token"),
    [
        ("http://:key@127.0.0.1:8080", "http://127.0.0.1:8080", "key"),
        ("https://:key@hub.example.com", "https://hub.example.com:443", "key"),
        ("http://hub.example.com/", "http://hub.example.com:80", None),
        ("http://:a%2Fb%40c@[::1]:81", "http://[::1]:81", "a/b@c"),
    ],
)
def test_an_address_has_one_form(url, shown, token):
    address = parse_address(url)
    assert (str(address), address.token) == (shown, token)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("127.0.0.1:8080", "needs http:// or https://"),
        ("ftp://:secret-key@127.0.0.1", "needs http:// or https://"),
        ("http://:secret-key@:8080", "and a host"),
        ("http://secret-key@127.0.0.1", "put a colon in front of the key"),
        ("http://:secret-key@127.0.0.1:port", "is no URL"),
        ("http://:secret-key@127.0.0.1/stream", "more than a host and a port"),
        ("http://:secret-key@127.0.0.1?topic=chat", "more than a host and a port"),
        ("http://:secret%0Akey@127.0.0.1", "characters that no key"),
    ],
)
def test_a_malformed_address_is_named_without_its_credential(url, reason):
    with pytest.raises(ConfigurationError) as raised:
        Client(url)
    assert reason in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_key_and_a_token_exclude_each_other():
    with pytest.raises(ConfigurationError, match="give one of them"):
        access_from_environment({"TIDINGS_URL": "http://:key@127.0.0.1", "TIDINGS_TOKEN": "token"})


def test_what_is_shown_of_a_hub_has_no_credential():
    access = access_from_environment(
        {"TIDINGS_URL": "http://:secret-key@127.0.0.1", "TIDINGS_TICKET_SECRET": "1:secret-too"}
    )
    assert "secret" not in repr(access)
    assert "secret" not in repr(Client("http://:secret-key@127.0.0.1"))


def test_without_a_hub_the_error_says_what_to_do():
    with pytest.raises(ConfigurationError, match="TIDINGS_URL"):
        Client().publish("chat", "hello")
