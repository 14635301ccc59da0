import pytest

from tts.errors import UsageError
from tts.tuning.kubernetes.access import connect


def test_without_a_kubeconfig_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UsageError, match=r"there is no kubeconfig at .*nowhere, and this is no pod; set KUBECONFIG"):
        connect()


@pytest.mark.parametrize("text", ["clusters: 1", "[", "", "apiVersion: v1", "current-context: x\ncontexts: []"])
def test_a_kubeconfig_that_is_none_is_named(tmp_path, monkeypatch, text):
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    with pytest.raises(UsageError, match=r"the kubeconfig .*config cannot be used: .+"):
        connect()


def test_a_namespace_is_the_contexts_unless_another_is_named(tmp_path, monkeypatch):
    (tmp_path / "config").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    found = connect()

    assert (found.namespace, found.server, found.account) == ("voices", "https://127.0.0.1:1", "user me of the kubeconfig")
    assert connect("other").namespace == "other"
    assert "hush" not in repr(found) + str(vars(found).get("account"))


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: me, user: {token: hush}}]
contexts: [{name: here, context: {cluster: c, user: me, namespace: voices}}]
"""
