"""Arguments that several commands take: one name, one help."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from tts.cli.parse import Folder

Corpus = Annotated[
    Path,
    Folder("read", "corpus"),
    tyro.conf.arg(
        metavar="CORPUS", help="Recordings: wavs/ and metadata.csv (id|text), or manifest.jsonl (audio, text, speaker); or a tar archive of them."
    ),
]
Features = Annotated[Path, Folder(), tyro.conf.arg(metavar="FEATURES", help="Feature store, as `tts prepare` makes it.")]
NewFeatures = Annotated[Path, Folder("continued"), tyro.conf.arg(metavar="FEATURES", help="Feature store to make.")]
Store = Annotated[str, tyro.conf.arg(metavar="FEATURES", help="Feature store, as `tts prepare` makes it: a folder, or s3://BUCKET/KEY.")]
Study = Annotated[Path, Folder("continued"), tyro.conf.arg(metavar="STUDY", help="Folder of the study: database, trials, best.yaml, study.html.")]
Run = Annotated[Path, Folder(), tyro.conf.arg(metavar="RUN", help="Folder of a training run: checkpoints, metrics.jsonl, config.json.")]
NewRun = Annotated[Path, Folder("continued"), tyro.conf.arg(metavar="RUN", help="Folder of a training run: checkpoints, metrics.jsonl, config.json.")]
Storage = Annotated[
    str | None, tyro.conf.arg(metavar="URL", help="Database of the study, or in TTS_STORAGE.", help_behavior_hint="(tune: default study.db in STUDY)")
]
StudyName = Annotated[str, tyro.conf.arg(metavar="NAME", help="Name of the study in the database.")]
Out = Annotated[Path, Folder("continued"), tyro.conf.arg(metavar="OUT", help="Folder of the results.")]
Launcher = Annotated[
    Literal["local", "kubernetes"] | None,
    tyro.conf.arg(metavar="{local,kubernetes}", help="Short for --tuning.launcher.", help_behavior_hint=""),
]
WarmStart = Annotated[
    Path | None,
    Folder("read", "file"),
    tyro.conf.arg(metavar="FILE", help="Study to start from, as `tts study export` wrote it.", help_behavior_hint=""),
]
