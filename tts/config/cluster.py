"""Knobs of the trial pods, for studies whose launcher is kubernetes. What is empty stays as the pods' template has it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tts.config.knob import Section

LabelPair = Annotated[str, Field(pattern=r"^[^=\s]+=[^=\s]*$", description="KEY=VALUE")]


class Toleration(Section):
    """A taint of nodes that trial pods put up with, as Kubernetes writes it."""

    key: Annotated[str, Field(description="Key of the taint; empty, with Exists: any taint.")] = ""
    operator: Annotated[Literal["Exists", "Equal"], Field(description="Equal also compares the value.")] = "Exists"
    value: Annotated[str, Field(description="Value of the taint, with Equal.")] = ""
    effect: Annotated[Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"], Field(description="Effect of the taint; empty: any.")] = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Toleration":
        if self.operator == "Exists" and self.value:
            raise ValueError(f"a toleration with Exists has no value, got {self.value!r}")
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration with Equal needs a key")
        return self


class ClusterConfig(Section):
    """Where trial pods run."""

    namespace: Annotated[str, Field(description="Namespace; empty: the one this program's own pod, or the kubeconfig's context, is in.")] = ""
    template: Annotated[str, Field(description="YAML file with the trial pods' template; empty: the one that comes with the program.")] = ""
    image: Annotated[str, Field(description="Image of the trial pods; empty: the template's.")] = ""
    node_selector: Annotated[tuple[LabelPair, ...], Field(description="Labels that a node must have, KEY=VALUE.")] = ()
    tolerations: Annotated[tuple[Toleration, ...], Field(description="Taints of nodes that trial pods put up with.")] = ()
    spread: Annotated[Literal["", "node", "zone"], Field(description="Spreads trial pods evenly over nodes or zones, where it can.")] = ""
    priority_class: Annotated[str, Field(description="Priority class of the trial pods.")] = ""
    queue: Annotated[str, Field(description="Kueue's local queue that admits the Job.")] = ""
    pod_retries: Annotated[int, Field(ge=0, le=1000, description="Times that a worker's pod is started again after a failure of its own.")] = 6
    deadline_hours: Annotated[float, Field(gt=0, description="Hours after which Kubernetes ends the trial pods, whatever happened to us.")] = 168.0
    ttl_seconds: Annotated[int, Field(ge=0, description="Seconds that the finished Job is kept, to look at.")] = 3600
    grace_seconds: Annotated[int, Field(ge=30, description="Seconds between SIGTERM and SIGKILL: for a step, its checkpoint and its upload.")] = 120
    pending_minutes: Annotated[
        float, Field(ge=0, description="Minutes that pods may wait for a node, an image or a secret before tuning gives up; 0: no limit.")
    ] = 0.0
    node_cache: Annotated[str, Field(description="Folder in the pod where features are kept; shared by a node's pods if it is a volume of it.")] = (
        "/var/cache/tts"
    )
