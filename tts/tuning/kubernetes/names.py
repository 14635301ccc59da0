"""Names of a study's Job, and what marks it as ours."""

import hashlib
import re
import unicodedata

PREFIX = "tts-"
LONGEST = 54
"""Characters of a Job's name: its pods' host names add a hyphen and an index, and may have 63."""
DIGEST = 8
APPLICATION = "smart-tuner-tts"
STUDY = f"{APPLICATION}/study"
"""Annotation of the Job: the study's name, as it is."""
SHAPE = f"{APPLICATION}/shape"
"""Annotation of the Job: what it was made from, hashed. Of another shape, it is made anew."""
INSTANCE = "app.kubernetes.io/instance"


def job_name(study: str, database: str) -> str:
    """A DNS label for the Job of a study, always the same; studies whose names differ in what a label cannot hold get different ones.

    Args:
        study: Name of the study.
        database: What the pods know the study's database by, such as the Secret's name and key: studies of one name in two databases are two.
    """
    plain = unicodedata.normalize("NFKD", study).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain)[: LONGEST - len(PREFIX) - DIGEST - 1].strip("-")
    digest = hashlib.sha256(f"{study}\0{database}".encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    return PREFIX + "-".join(part for part in (readable, digest) if part)


def labels(name: str) -> dict[str, str]:
    """Labels of the Job `name` and of its pods."""
    return {
        "app.kubernetes.io/name": APPLICATION,
        "app.kubernetes.io/component": "trial",
        "app.kubernetes.io/managed-by": APPLICATION,
        INSTANCE: name,
    }
