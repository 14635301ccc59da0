"""What network policies let through, by the rules of networking.k8s.io/v1, for clusters that do not enforce them.

A pod that no policy selects for a direction takes part in everything; once one does, only in what some policy of that direction allows.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Peer:
    """A pod, by its labels and its namespace's, or with no labels an address outside the cluster."""

    name: str
    labels: Mapping[str, str] | None = None
    namespace: str = ""
    address: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_namespace_labels(self) -> Mapping[str, str]:
        """With the one that each namespace has."""
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


def allowed(policies: Sequence[Mapping[str, Any]], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection passes both ends."""
    return _passes(policies, "Egress", source, target, port, protocol) and _passes(policies, "Ingress", target, source, port, protocol)


def _passes(policies: Sequence[Mapping[str, Any]], direction: str, pod: Peer, other: Peer, port: int, protocol: str) -> bool:
    if pod.labels is None:
        return True
    selecting = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    way, ends = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    rules = [(policy["metadata"]["namespace"], rule) for policy in selecting for rule in policy["spec"].get(way, [])]
    return not selecting or any(_matches(rule, ends, namespace, other, port, protocol) for namespace, rule in rules)


def _matches(rule: Mapping[str, Any], ends: str, namespace: str, other: Peer, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    fits = not ports or any(entry.get("protocol", "TCP") == protocol and entry.get("port", port) == port for entry in ports)
    peers = rule.get(ends)
    return fits and (not peers or any(_is(peer, namespace, other) for peer in peers))


def _is(peer: Mapping[str, Any], namespace: str, other: Peer) -> bool:
    if "ipBlock" in peer:
        # Of addresses inside the cluster networks know too different things to rely on a block.
        inside = other.labels is None and ipaddress.ip_address(other.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return inside and not any(
            ipaddress.ip_address(other.address) in ipaddress.ip_network(without) for without in peer["ipBlock"].get("except", [])
        )
    if other.labels is None:
        return False
    near = selects(peer["namespaceSelector"], other.all_namespace_labels) if "namespaceSelector" in peer else other.namespace == namespace
    return near and selects(peer.get("podSelector", {}), other.labels)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    tests = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _values: key in labels,
        "DoesNotExist": lambda key, _values: key not in labels,
    }
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return equal and all(tests[entry["operator"]](entry["key"], entry.get("values", [])) for entry in selector.get("matchExpressions", []))
