"""A pipeline's step: turns the form's texts and numbers into a call of a stage, wherever the step runs.

On a cluster a step's outputs are artefacts that Kubeflow Pipelines uploads and whose URIs are its own. `work` names what outlives a step, so
that a step that was killed goes on: a folder that all steps see, or a URI in an object store. On one machine it is where the results stay.
"""

from tts.step.alone import PIPELINE_LOCK, STEP_LOCK
from tts.step.stages import diagnose, evaluate, prepare, register, train, tune

__all__ = ["PIPELINE_LOCK", "STEP_LOCK", "diagnose", "evaluate", "prepare", "register", "train", "tune"]
