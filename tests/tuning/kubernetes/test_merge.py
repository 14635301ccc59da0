import copy

from hypothesis import given
from hypothesis import strategies as st

from tts.tuning.kubernetes.merge import merged

NAMES = st.sampled_from("abc")
ENTRIES = st.dictionaries(NAMES, st.fixed_dictionaries({"value": st.integers()})).map(
    lambda d: [{"name": name, **entry} for name, entry in d.items()]
)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "env": ENTRIES,
        "containers": ENTRIES,
        "tolerations": st.lists(st.fixed_dictionaries({"key": NAMES}), unique_by=lambda entry: entry["key"]),
        "nodeSelector": st.dictionaries(NAMES, st.text()),
        "args": st.lists(st.text()),
        "hostname": st.text(),
    },
)


@given(TREES, TREES)
def test_what_is_merged_wins_once_and_for_all_and_leaves_its_parts_alone(below, above):
    before = copy.deepcopy((below, above))

    result = merged(below, above)

    assert (below, above) == before
    assert merged(result, above) == result
    assert merged(below, {}) == below
    assert merged(below, below) == below
    for name in ("env", "containers"):
        said = {entry["name"]: entry for entry in result.get(name, [])}
        assert said == {entry["name"]: entry for entry in [*below.get(name, []), *above.get(name, [])]}
    assert {**below.get("nodeSelector", {}), **above.get("nodeSelector", {})} == result.get("nodeSelector", {})
    assert result.get("args") == above.get("args", below.get("args"))
    assert {entry["key"] for entry in result.get("tolerations", [])} == {
        entry["key"] for entry in [*below.get("tolerations", []), *above.get("tolerations", [])]
    }


def test_containers_are_merged_by_name_and_variables_replaced_whole():
    below = {"containers": [{"name": "worker", "image": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}, {"name": "proxy"}]}
    reference = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}

    result = merged(below, {"containers": [{"name": "worker", "env": [reference]}]})

    assert result == {"containers": [{"name": "worker", "image": "a", "env": [reference, {"name": "Y", "value": "2"}]}, {"name": "proxy"}]}


def test_a_volume_of_the_same_name_is_another_volume_and_not_both():
    below = {"volumes": [{"name": "node-cache", "emptyDir": {}}]}
    assert merged(below, {"volumes": [{"name": "node-cache", "hostPath": {"path": "/x"}}]}) == {
        "volumes": [{"name": "node-cache", "hostPath": {"path": "/x"}}]
    }


def test_none_takes_away():
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"c": 2}}
