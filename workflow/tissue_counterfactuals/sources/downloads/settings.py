"""How files are fetched and kept: section `downloads` of the configuration."""

from typing import Annotated

from pydantic import Field

from tissue_counterfactuals.settings import Block, Settings, Text


class DownloadSettings(Settings):
    """How the files of published data sets, and of addresses given as `path`, are fetched and kept."""

    folder: Text = "downloads"
    """Where downloaded files are kept, relative to the folder in which the workflow runs. The results only hold links
    to them, so that cleaning up costs no download."""
    cache: Text | None = None
    """A folder that others fill, for example a group's shared one; files found there that fit are used in place, never
    copied or changed."""
    offline: Text | None = None
    """A folder of files fetched by hand. When it is given nothing is fetched from the network; each file is known by
    its name, or by its size and checksum, and used in place."""
    lock: Text = "config/downloads.lock.tsv"
    """Table of size and SHA-256 of every file as it was first fetched, enforced from then on. Commit it, and others
    will read the same bytes or be told."""
    table: Text | None = None
    """A table of data sets of your own in the form of resources/datasets.tsv, read instead of it."""
    urls: Annotated[dict[str, Annotated[str, Field(pattern="^https?://")]], Block] = {}
    """Addresses that stand in for those of the table, as data set/file and address; the file must be the same."""
    parallel: int = Field(4, ge=1, le=100)
    """Files fetched at the same time; no more than there are cores."""
    attempts: int = Field(5, ge=1, le=1000)
    """Interruptions in a row, without a byte gained, after which an address is given up."""
    timeout_s: float = Field(60, gt=0, le=86_400)
    """Seconds without an answer, or with next to no data, that count as an interruption."""
    backoff_s: float = Field(2, ge=0, le=3600)
    """Seconds to wait after an interruption; the wait doubles with each further one."""
