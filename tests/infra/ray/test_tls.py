"""Ray's own TLS, as docs/clusters.md offers it: who has no certificate of the authority is no peer."""

from __future__ import annotations

import namespace
import pytest

CERTIFICATES = """
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority \\
    -keyout $HOME/ca.key -out $HOME/ca.pem 2> /dev/null
for who in node stranger; do
    openssl req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $HOME/$who.key -out $HOME/$who.csr 2> /dev/null
done
echo "subjectAltName = IP:127.0.0.1, DNS:localhost" > $HOME/extension
openssl x509 -req -in $HOME/node.csr -CA $HOME/ca.pem -CAkey $HOME/ca.key -CAcreateserial -days 2 \\
    -extfile $HOME/extension -out $HOME/node.pem 2> /dev/null
openssl x509 -req -in $HOME/stranger.csr -signkey $HOME/stranger.key -days 2 \\
    -out $HOME/stranger.pem 2> /dev/null
"""
CALL = """
import pathlib, sys, grpc
home = pathlib.Path(sys.argv[1])
read = lambda name: (home / name).read_bytes()
secure = lambda who: grpc.ssl_channel_credentials(
    read("ca.pem"), who and read(who + ".key"), who and read(who + ".pem"))
token = (("authorization", "Bearer " + (home / ".ray/auth_token").read_text().strip()),)
address, name = "127.0.0.1:6379", "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
for who, channel, metadata in (
    ("in clear", grpc.insecure_channel(address), token),
    ("no certificate", grpc.secure_channel(address, secure(None)), token),
    ("stranger", grpc.secure_channel(address, secure("stranger")), token),
    ("node without token", grpc.secure_channel(address, secure("node")), ()),
    ("node", grpc.secure_channel(address, secure("node")), token),
):
    try:
        channel.unary_unary(name)(b"", timeout=20, metadata=metadata)
        print(who, "OK", sep=": ")
    except grpc.RpcError as error:
        print(who, error.code().name, sep=": ")
"""
SCRIPT = (
    CERTIFICATES
    + """
export RAY_USE_TLS=1 RAY_TLS_CA_CERT=$HOME/ca.pem
export RAY_TLS_SERVER_CERT=$HOME/node.pem RAY_TLS_SERVER_KEY=$HOME/node.key
start_head --port=6379
$PYTHON - $HOME < $HOME/call.py
$PYTHON infra/ray/submit.py experiment=smoke until=download root=$HOME/runs
echo "ended with $?"
kill $HEAD; wait $HEAD
"""
)


@pytest.mark.slow
@pytest.mark.skipif(not namespace.allowed(), reason="needs the right to make a network namespace (root)")
def test_a_head_with_tls_runs_the_workflow_and_knows_no_peer_without_a_certificate(home):
    (home / "call.py").write_text(CALL)
    done = namespace.run(SCRIPT, home, seconds=580)
    told = done.stdout + done.stderr
    for who in ("in clear", "no certificate", "stranger"):
        assert f"{who}: UNAVAILABLE" in done.stdout, told
    assert "node without token: UNAUTHENTICATED" in done.stdout, told
    assert "node: OK" in done.stdout, told
    assert "download: done" in done.stdout and "ended with 0" in done.stdout, told
