"""Many images scored with Apache Beam, here or on a cluster: the verdicts of `tfgad score`.

    patterns ─ match ┐
    files ───────────┴ once each ─ decode ─ RunInference ─ table, heat maps
                                     └ broken ─ dead letters

Paths are local or of any file system that Beam knows (`gs://`, `s3://`, `hdfs://`, ...); a runner
on other machines needs paths that those can reach, and tfgad installed there. Beam gathers images
into batches of about as many pixels; the SavedModel scores those of one size at once, and a large
one block by block.

The table is sorted by name. For that, one worker holds all its rows at the end, about a gigabyte
per million images; nothing else grows with their number.

`pipeline` runs the steps, `model` is the SavedModel on a worker, `storage` is the paths and files,
`tables` what is written.
"""

from tfgad.errors import UsageError

try:
    import apache_beam  # noqa: F401
except ImportError as error:
    hint = "pip install 'tfgad[scale]'"
    raise UsageError("--runner", "Apache Beam", "is not installed", hint) from error

from tfgad.inference.beam.model import InputSpec, Pixels, SavedModelHandler, input_spec_of
from tfgad.inference.beam.pipeline import Scored, build, score

__all__ = [
    "InputSpec",
    "Pixels",
    "SavedModelHandler",
    "Scored",
    "build",
    "input_spec_of",
    "score",
]
