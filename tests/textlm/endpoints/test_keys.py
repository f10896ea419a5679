"""A key belongs to a host: no server sees the key of another one, nor any key over an open line by accident."""

import json
import socket
from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.textlm.endpoints.address import EndpointOptions, parse_endpoint, route_url
from rba_bench.textlm.endpoints.keys import ApiKey, is_local, variable_of, where_to_set
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.text_model import Decoding
from tests.textlm.misbehaving_server import answer, failure, serving

QUICK = EndpointOptions(timeout_s=5, backoff_s=0.01, retries=0)
OPENAI, AZURE, LOCAL, OWN = "sk-of-openai-1", "of-azure-2", "of-this-machine-3", "of-example-4"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", AZURE)
    monkeypatch.setenv("RBA_API_KEY", LOCAL)
    monkeypatch.setenv("RBA_API_KEY_API_EXAMPLE_ORG", OWN)
    for name in ("RBA_API_KEYS", "RBA_ALLOW_PLAIN_HTTP"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://api.openai.com/v1", OPENAI),
        ("https://API.OpenAI.com./v1", OPENAI),
        ("https://eu.api.openai.com/v1", OPENAI),
        ("https://api.openai.com.evil.org/v1", "none"),
        ("https://evil-api.openai.com/v1", "none"),
        ("https://openai.com/v1", "none"),
        ("https://xapi.openai.com/v1", "none"),
        ("https://a.b.api.openai.com/v1", "none"),
        ("https://mine.openai.azure.com/openai/deployments/d?api-version=2024-10-21", AZURE),
        ("https://openai.azure.com.evil.org/v1", "none"),
        ("https://api.example.org/v1", OWN),
        ("https://api-example.org/v1", "none"),
        ("https://example.org/v1", "none"),
        ("https://API.EXAMPLE.ORG:8443/v1", OWN),
        ("http://localhost:8000/v1", LOCAL),
        ("http://127.0.0.1:8000/v1", LOCAL),
        ("http://127.8.9.1/v1", LOCAL),
        ("http://0.0.0.0:8000/v1", LOCAL),
        ("http://[::1]:8000/v1", LOCAL),
        ("http://[::]:8000/v1", LOCAL),
        ("http://[::ffff:127.0.0.1]:8000/v1", LOCAL),
        ("http://localhost.example.org/v1", "none"),
        ("http://127.0.0.1.example.org/v1", "none"),
        ("http://10.0.0.7:8000/v1", "none"),
        ("http://gpu-box:8000/v1", "none"),
    ],
)
def test_each_host_gets_its_own_key_and_no_other(url: str, key: str) -> None:
    assert ApiKey.of(url).reveal() == key


def test_the_own_variable_of_a_host_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_API_KEY_API_OPENAI_COM", "mine")
    monkeypatch.setenv("RBA_API_KEY_127_0_0_1", "mine-too")
    assert ApiKey.of("https://api.openai.com/v1").reveal() == "mine"
    assert ApiKey.of("http://127.0.0.1:9/v1").reveal() == "mine-too"
    monkeypatch.setenv("RBA_API_KEY_127_0_0_1", " ")
    assert ApiKey.of("http://127.0.0.1:9/v1").reveal() == LOCAL
    monkeypatch.setenv("RBA_API_KEY_LOCALHOST", "here")
    assert ApiKey.of("http://127.0.0.1:9/v1").reveal() == "here"
    assert ApiKey.of("https://localhost.org/v1").reveal() == "none"


def test_no_two_hosts_share_a_variable() -> None:
    assert variable_of("api.my-host.org") == "RBA_API_KEY_API_MY__HOST_ORG"
    hosts = ["a.b.org", "a-b.org", "a_b.org", "a--b.org", "a.b-org"]
    assert len({variable_of(host) for host in hosts}) == len(hosts)


@pytest.mark.parametrize("url", ["http://api.example.org/v1", "http://api.openai.com/v1"])
def test_a_key_does_not_travel_unencrypted_unless_that_is_said(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = url.split("/")[2]
    monkeypatch.setenv("RBA_ALLOW_PLAIN_HTTP", "other.org")
    with pytest.raises(UserError, match=f"unencrypted.*https.*RBA_ALLOW_PLAIN_HTTP={host}") as caught:
        EndpointLM.from_spec(f"openai:{url}#m")
    assert "\n" not in str(caught.value) and OWN not in str(caught.value)
    monkeypatch.setenv("RBA_ALLOW_PLAIN_HTTP", f"other.org, {host.upper()}")
    assert ApiKey.of(url).known


def test_keys_stand_in_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(
        "# mine\n\nAPI.Mistral.ai = key=with=signs\n[::1] = six\napi.example.org = of-the-file\n",
        encoding="utf-8",
    )
    file.chmod(0o600)
    monkeypatch.setenv("RBA_API_KEYS", str(file))
    assert ApiKey.of("https://api.mistral.ai/v1").reveal() == "key=with=signs"
    assert ApiKey.of("http://[::1]:8/v1").reveal() == "six"
    assert ApiKey.of("https://api.example.org/v1").reveal() == OWN  # a variable comes first
    assert ApiKey.of("https://mistral.ai/v1").reveal() == "none"
    file.chmod(0o644)
    with pytest.raises(MissingPrerequisite, match=f"chmod 600 {file}"):
        ApiKey.of("https://api.mistral.ai/v1")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"api.x.org sk-1", "line 1 of .*`host = KEY`"), (b"\xff\xfe", "no text"), (None, "No such file")],
)
def test_a_file_of_keys_that_cannot_be_read_is_one_line_without_its_content(
    content: bytes | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    monkeypatch.setenv("RBA_API_KEYS", str(file))
    with pytest.raises(MissingPrerequisite, match=says) as caught:
        ApiKey.of("https://api.x.org/v1")
    assert "sk-1" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_wants_a_key_is_told_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert where_to_set("api.openai.com") == "OPENAI_API_KEY or RBA_API_KEY_API_OPENAI_COM"
    assert where_to_set("::1") == "RBA_API_KEY or RBA_API_KEY___1"
    assert "RBA_API_KEY goes to servers on this machine alone" in where_to_set("x.org")
    monkeypatch.delenv("RBA_API_KEY")
    assert where_to_set("x.org").startswith("RBA_API_KEY_X_ORG (or a line `x.org = KEY`")
    assert "alone" not in where_to_set("x.org")
    with (
        serving(lambda _: failure(401)) as server,
        pytest.raises(MissingPrerequisite, match="it wants one, set RBA_API_KEY or RBA_API_KEY_127_0_0_1"),
    ):
        EndpointLM.from_spec(server.spec, QUICK).chat(["a"], Decoding(5), [0])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_openais_key_does_not_reach_another_server(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # no way to this machine's own servers
    with serving(lambda _: answer("fine")) as server:
        lm = EndpointLM.from_spec(server.spec.replace("127.0.0.1", host), QUICK)
        assert lm.chat(["a"], Decoding(5), [0])[0].text == "fine"
    sent = json.dumps([server.seen[0].headers, server.seen[0].path, server.seen[0].body])
    assert OPENAI not in sent and "secret" not in sent and "bearer" not in sent.lower()


def test_a_server_on_ipv6_is_reached_with_the_key_of_this_machine() -> None:
    try:
        probe = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    probe.close()
    with serving(lambda _: answer("fine"), host="::1") as server:
        lm = EndpointLM.from_spec(f"openai:http://[::1]:{server.port}/v1#m", QUICK)
        assert lm.chat(["a"], Decoding(5), [0])[0].text == "fine"
    assert server.seen[0].headers["authorization"] == f"Bearer {LOCAL}"


def test_azure_gets_its_version_with_every_request_and_its_own_header() -> None:
    with serving(lambda seen: failure(404, "no deployment") if seen.tries else answer("fine")) as server:
        base = f"http://127.0.0.1:{server.port}/openai/deployments/d?api-version=2024-10-21"
        lm = EndpointLM.from_spec(f"openai:{base}#gpt-x", QUICK)
        assert lm.chat(["a"], Decoding(5), [0])[0].text == "fine"
        lm.complete(["a"], Decoding(5), [0])
    assert [seen.path for seen in server.seen] == [
        "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        "/openai/deployments/d/completions?api-version=2024-10-21",
    ]
    for seen in server.seen:
        assert seen.headers["api-key"] == LOCAL and "authorization" not in seen.headers
    assert lm.identity()["url"] == base


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "openai:https://x.openai.azure.com/openai/deployments/d?api-version=v&sig=s3cret#m",
            "only .api-version",
        ),
        ("openai:https://x.org/v1?api_version=s3cret#m", "only .api-version"),
        ("openai:https://x.org/v1?api-version=s3cret/with+more#m", "only .api-version"),
        ("openai:https://x.org/v1/chat/completions?api-version=2024-10-21#m", "without '/chat/completions'"),
    ],
)
def test_nothing_else_may_stand_behind_the_address(spec: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        parse_endpoint(spec)
    assert "s3cret" not in str(caught.value)


def test_routes_stand_before_the_version() -> None:
    assert route_url("http://h/v1", "/models") == "http://h/v1/models"
    assert route_url("http://h?api-version=1", "/models") == "http://h/models?api-version=1"


def test_this_machine_is_told_from_others() -> None:
    for host in ("localhost", "app.localhost", "127.0.0.1", "::1", "0.0.0.0", "::"):
        assert is_local(host), host
    for host in ("localhost.org", "127.0.0.1.nip.io", "10.0.0.1", "192.168.0.1", "fe80::1", ""):
        assert not is_local(host), host


def test_a_file_of_keys_may_begin_with_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbffiles.example.net = k-of-files\n[::1] = k-here\n")
    path.chmod(0o600)
    monkeypatch.setenv("RBA_API_KEYS", str(path))
    assert ApiKey.of("https://files.example.net/v1").reveal() == "k-of-files"
    assert ApiKey.of("http://[::1]:8000/v1").reveal() == "k-here"


@pytest.mark.parametrize(
    "owner", ["https://files.example.net", "files.example.net:443", "export KEY", "a/v1"]
)
def test_a_line_of_keys_for_what_is_no_host_is_refused_and_not_passed_over(
    owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{owner} = k-secret\n")
    path.chmod(0o600)
    monkeypatch.setenv("RBA_API_KEYS", str(path))
    with pytest.raises(MissingPrerequisite, match="line 1 .* without scheme, port and path") as refused:
        ApiKey.of("https://files.example.net/v1")
    assert "k-secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://ho st/v1", "https://host/v\x00", "https://\u202ehost/v1", "https://h/a b"]
)
def test_an_address_with_spaces_or_characters_that_cannot_be_seen_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="no http"):
        parse_endpoint(f"openai:{url}#m")
