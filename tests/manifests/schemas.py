"""Definitions of the foreign kinds that the manifests use, with just the fields that they use: a cluster without Kueue, Katib, the Prometheus
operator or Kubeflow's pipelines can then check their objects, and refuses a field that is not here.

Written by hand after Kueue 0.14 (v1beta2), Katib 0.19, the Prometheus operator 0.82 and Kubeflow Pipelines 2.17. Katib's own definition
has no fields at all; these are those of its API's types.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "integer"}
QUANTITY: dict[str, Any] = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
ANYTHING: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def one_of(*values: str) -> dict[str, Any]:
    """A text among these."""
    return {"type": "string", "enum": list(values)}


def many(items: dict[str, Any]) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": items}


def fields(required: str = "", **properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "properties": properties, **({"required": required.split()} if required else {})}


def definition(group: str, version: str, kind: str, spec: dict[str, Any], *, scope: str = "Namespaced") -> dict[str, Any]:
    """The definition of a kind."""
    plural = f"{kind.lower()}s"
    schema = fields("spec", apiVersion=TEXT, kind=TEXT, metadata={"type": "object"}, spec=spec)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Whoever extends the API under a name of Kubernetes' own community says that it is not approved there.
        "metadata": {"name": f"{plural}.{group}", "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": scope,
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


TOLERATION = fields(
    "operator", key=TEXT, operator=one_of("Exists", "Equal"), value=TEXT, effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute")
)
QUOTA = fields("name resources", name=TEXT, resources=many(fields("name nominalQuota", name=TEXT, nominalQuota=QUANTITY)))
SETTINGS = many(fields("name value", name=TEXT, value=TEXT))
STRATEGIES = many(fields("name value", name=TEXT, value=one_of("min", "max", "latest")))
RULE = fields("expr", alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS)
RULE["properties"]["for"] = TEXT
FEASIBLE = fields(min=TEXT, max=TEXT, step=TEXT, list=many(TEXT), distribution=one_of("uniform", "logUniform", "normal", "logNormal"))

DEFINITIONS = (
    definition("kueue.x-k8s.io", "v1beta2", "ResourceFlavor", fields(nodeLabels=TEXTS, tolerations=many(TOLERATION)), scope="Cluster"),
    definition(
        "kueue.x-k8s.io", "v1beta2", "ClusterQueue",
        fields(
            namespaceSelector=fields(matchLabels=TEXTS),
            queueingStrategy=one_of("StrictFIFO", "BestEffortFIFO"),
            preemption=fields(withinClusterQueue=one_of("Never", "LowerPriority", "LowerOrNewerEqualPriority")),
            resourceGroups=many(fields("coveredResources flavors", coveredResources=many(TEXT), flavors=many(QUOTA))),
        ),
        scope="Cluster",
    ),
    definition("kueue.x-k8s.io", "v1beta2", "LocalQueue", fields("clusterQueue", clusterQueue=TEXT)),
    definition("monitoring.coreos.com", "v1", "PrometheusRule", fields("groups", groups=many(fields("name rules", name=TEXT, rules=many(RULE))))),
    definition("pipelines.kubeflow.org", "v2beta1", "Pipeline", fields(displayName=TEXT, description=TEXT)),
    definition(
        "pipelines.kubeflow.org", "v2beta1", "PipelineVersion",
        fields(
            "pipelineName pipelineSpec", pipelineName=TEXT, versionName={**TEXT, "pattern": r"^[a-z0-9]([a-z0-9\.\-]*[a-z0-9])?$"},
            displayName=TEXT, description=TEXT, pipelineSpec=ANYTHING, platformSpec=ANYTHING,
        ),
    ),
    definition(
        "kubeflow.org", "v1beta1", "Experiment",
        fields(
            "objective algorithm parameters trialTemplate",
            objective=fields(
                "type objectiveMetricName", type=one_of("minimize", "maximize"), objectiveMetricName=TEXT, additionalMetricNames=many(TEXT),
                metricStrategies=STRATEGIES,
            ),
            algorithm=fields("algorithmName", algorithmName=TEXT, algorithmSettings=SETTINGS),
            earlyStopping=fields("algorithmName", algorithmName=TEXT, algorithmSettings=SETTINGS),
            parallelTrialCount=NUMBER, maxTrialCount=NUMBER, maxFailedTrialCount=NUMBER, resumePolicy=one_of("Never", "LongRunning", "FromVolume"),
            parameters=many(
                fields(
                    "name parameterType feasibleSpace", name=TEXT, parameterType=one_of("double", "int", "discrete", "categorical"),
                    feasibleSpace=FEASIBLE,
                )
            ),
            metricsCollectorSpec=fields(collector=fields("kind", kind=one_of("StdOut", "File", "TensorFlowEvent", "PrometheusMetric", "Push"))),
            trialTemplate=fields(
                "primaryContainerName successCondition failureCondition trialParameters trialSpec",
                primaryContainerName=TEXT, successCondition=TEXT, failureCondition=TEXT,
                trialParameters=many(fields("name reference", name=TEXT, reference=TEXT, description=TEXT)), trialSpec=ANYTHING,
            ),
        ),
    ),
)  # fmt: skip
