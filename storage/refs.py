"""A ref: what passes between tasks in place of data."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from storage.inside import inside


class Ref(BaseModel):
    """A file that is complete, in a place, with a digest.

    Frames, tensors, models and clients never pass between tasks; a ref does. It is JSON, so Prefect can keep it, and it
    holds no absolute path, so two homes agree on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: Annotated[str, AfterValidator(inside)] = Field(description="POSIX path relative to the home folder.")
    sha256: str = Field(description="Digest of the file's bytes.", min_length=64, max_length=64)
    rows: int = Field(description="Rows of the table.", ge=0)
    table: str = Field(description="Name of the table's schema (storage.schemas).")
