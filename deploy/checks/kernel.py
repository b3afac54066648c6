"""Compiles the entropy kernel for GPUs that need not be here: what Triton makes of it, and whether it fits.

python deploy/checks/kernel.py [--json] [CAPABILITY:DTYPE …]       90:bfloat16 is Hopper's
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from models.entropy_kernel import ranges, tiles_of

SHAPES = [f"{capability}:{dtype}" for capability in (80, 89, 90, 100) for dtype in ("bfloat16", "float16", "float32")]
_POINTERS = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}
# Addresses and sizes of a real model are multiples of 16, and Triton compiles for that.
_EVEN = ("hidden", "weight", "bias", "targets", "parts", "vocabulary", "width", "weight_stride")


@dataclass(frozen=True)
class Compiled:
    """The kernel for one GPU and type: the instruction that multiplies, and what a program takes."""

    gpu: str
    dtype: str
    product: str
    shared_bytes: int
    threads: int
    registers: int
    spilled_bytes: int


def compiled(capability: int, dtype: str) -> Compiled:
    """Compiles for a CUDA compute capability (90 for 9.0), with bias, scale and cap; raises what Triton raises."""
    tiles = tiles_of(getattr(torch, dtype))
    pointer = _POINTERS[dtype]
    signature = {
        **dict.fromkeys(("hidden", "weight", "bias"), pointer),
        "targets": "*i64",
        "parts": "*fp32",
        **dict.fromkeys(("rows", "vocabulary", "width", "weight_stride", "splits"), "i32"),
        **dict.fromkeys(("factor", "cap"), "fp32"),
    }
    constants = {
        "HAS_BIAS": True,
        "HAS_FACTOR": True,
        "HAS_CAP": True,
        "WIDEN": False,
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
        "DEPTH": tiles.depth,
        "SPLIT": tiles.split,
    }
    names = [*signature, *constants]
    source = ASTSource(
        ranges,
        signature | dict.fromkeys(constants, "constexpr"),
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in _EVEN},
    )
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    code = made.asm["ptx"]
    product = re.search(r"(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)[\w.:]+", code)
    registers, spilled = _resources(code, capability)
    return Compiled(
        gpu=f"sm_{capability}",
        dtype=dtype,
        product=product[0] if product else "fma",
        shared_bytes=made.metadata.shared,
        threads=32 * made.metadata.num_warps,
        registers=registers,
        spilled_bytes=spilled,
    )


def _resources(code: str, capability: int) -> tuple[int, int]:
    """Registers of a thread and bytes of them that go to memory, by the assembler that comes with Triton."""
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    ptxas = folder / ("ptxas-blackwell" if capability >= 100 and (folder / "ptxas-blackwell").is_file() else "ptxas")
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(code)
        file.flush()
        gpu = f"sm_{capability}{'a' if capability >= 90 else ''}"
        done = subprocess.run(
            [str(ptxas), "-v", "--gpu-name", gpu, file.name, "-o", "/dev/null"],
            capture_output=True,
            text=True,
            check=True,
        )
    said = done.stderr
    return int(re.findall(r"(\d+) registers", said)[0]), sum(map(int, re.findall(r"(\d+) bytes spill stores", said)))


def main() -> None:
    """Prints a line, or with ``--json`` an object, for each GPU and type."""
    asked = [argument for argument in sys.argv[1:] if argument != "--json"] or SHAPES
    found = [compiled(int(shape.split(":")[0]), shape.split(":")[1]) for shape in asked]
    if "--json" in sys.argv:
        print(json.dumps([asdict(one) for one in found]))
        return
    print(f"Triton {triton.__version__}")
    for one in found:
        print(
            f"{one.gpu:7} {one.dtype:9} {one.shared_bytes / 1024:5.0f} KB shared, {one.registers} registers of"
            f" {one.threads} threads, {one.spilled_bytes} bytes spilled, {one.product}"
        )


if __name__ == "__main__":
    main()
