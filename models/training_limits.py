"""The threads a training may use, and clear errors when memory or disk end."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from storage.errors import ResourceError


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Lets torch use ``count`` threads while the block runs; ``None`` leaves its choice."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def resource_errors(work: Path) -> Iterator[None]:
    """Turns what torch, safetensors and the system raise for a full memory or disk into one clear error."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            "the memory of the GPU does not suffice for this training.",
            hint="Set training.gradient_checkpointing: true, training.batch: 1 or a smaller training.head_block.",
        ) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        text = str(error)
        if "can't allocate memory" in text:
            raise ResourceError(
                "the memory does not suffice for this training.", hint="Set training.batch: 1."
            ) from error
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or any(
            sign in text for sign in ("No space left", "File too large", "PytorchStreamWriter", "unexpected pos")
        ):
            raise ResourceError(
                f"the disk is full: a checkpoint below {work} could not be written.",
                hint="Free space and run the same command again; it carries on from the last checkpoint.",
            ) from error
        raise
