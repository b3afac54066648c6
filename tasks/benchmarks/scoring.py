"""The scoring engine beside the literal algorithm, full logits and the bare trunk."""

from __future__ import annotations

from collections.abc import Mapping

from storage.refs import Ref
from tasks.benchmarks.literal import one_each, same_passes
from tasks.benchmarks.measurement import Figure, Measurement, Target
from tasks.benchmarks.scene import Judged, Reader, Scene, judged
from tasks.benchmarks.sizes import Size
from tasks.benchmarks.stress import selected_positions, stress_roots
from tasks.benchmarks.timing import in_turns
from tasks.benchmarks.verdicts import compared, gains_by_engine, gains_by_the_letter
from tasks.screening.retrieval import RetrievalConfig

LITERAL = "literal: a pass per position and candidate, full logits, as long as ours"
LITERAL_CUT = "the same, each pass ending at its position"
LITERAL_BESIDE = "literal, a batch per thread as ours"
STRESS_TOP_K = 32


def scoring(scene: Scene, larger: Scene, size: Size) -> list[Measurement]:
    """All measurements of the scoring engine on the policy of the scene; the long roots are those of ``larger``."""
    reader, roots = scene.loaded(), scene.roots()
    rows = scene.rows(size.roots)
    positions = scene.positions(roots, rows)
    work = judged(scene, reader, roots, scene.candidates(roots, positions))
    conditions = scene_conditions(scene, len(rows), work)
    return [
        screening_speed(reader, work, len(rows), scene.build.verification.epsilon, size.repeats, conditions),
        shared_passes(work, conditions),
        *pass_speed(reader, work, size.repeats, conditions),
        stress(larger, reader, size),
    ]


def scene_conditions(scene: Scene, roots: int, work: Judged) -> dict[str, str | int | float]:
    """What every figure on these roots depends on."""
    return {
        "roots": roots,
        "chunks in the index": scene.corpus.chunks.rows,
        "root tokens, at most": scene.build.roots.root_tokens,
        "K": scene.build.retrieval.top_k,
        "pairs of position and candidate": work.verdicts,
        "unique passes": len(work.pairs),
        "tokens a pass": round(work.tokens / max(1, len(work.pairs))),
        "numbers": f"{scene.policy.dtype} on {scene.policy.device}",
        "tokens a batch": scene.policy.tokens_per_batch,
    }


def screening_speed(
    reader: Reader,
    work: Judged,
    roots: int,
    epsilon: float,
    repeats: int,
    conditions: Mapping[str, str | int | float],
) -> Measurement:
    """Roots per second from tokens to verdicts (entropies and verification), ours and by the letter."""
    found: dict[str, dict[tuple[int, int, int], float]] = {}
    ways = {
        "ours": lambda: found.update(ours=gains_by_engine(reader, work)),
        LITERAL: lambda: found.update({LITERAL: gains_by_the_letter(reader, work, cut=False)}),
        LITERAL_CUT: lambda: found.update({LITERAL_CUT: gains_by_the_letter(reader, work, cut=True)}),
        LITERAL_BESIDE: lambda: found.update(
            {LITERAL_BESIDE: gains_by_the_letter(reader, work, cut=False, beside=True)}
        ),
    }
    times = in_turns(ways, repeats=repeats, warm_up=False)
    agreement = compared(found["ours"], found[LITERAL], epsilon)
    return Measurement(
        name="roots screened, entropies and verification",
        unit="roots/s",
        ours=times.figure("ours", "one pass per unique pair", amount=roots),
        alternatives=tuple(times.figure(way, amount=roots) for way in (LITERAL, LITERAL_CUT, LITERAL_BESIDE)),
        ratio=times.ratio(LITERAL, "ours"),
        ratio_of="ours over literal",
        target=Target(sense="at least", value=5.0),
        conditions={
            **conditions,
            **agreement.conditions(),
            "ratio to passes that end at their position": round(times.ratio(LITERAL_CUT, "ours"), 2),
            "ratio to literal, a batch per thread": round(times.ratio(LITERAL_BESIDE, "ours"), 2),
        },
    )


def shared_passes(work: Judged, conditions: Mapping[str, str | int | float]) -> Measurement:
    """The factor that the data gives: positions of a root that are judged by the same pass."""
    factor = work.verdicts / max(1, len(work.pairs))
    return Measurement(
        name="factor: pairs per unique pass (the data's)",
        unit="pairs/pass",
        ours=Figure.of("one pass per unique pair", [factor]),
        alternatives=(Figure.of("literal", [1.0]),),
        ratio=factor,
        ratio_of="passes saved by sharing",
        conditions=conditions,
    )


def pass_speed(
    reader: Reader, work: Judged, repeats: int, conditions: Mapping[str, str | int | float]
) -> list[Measurement]:
    """Time of a unique pass beside full logits, and tokens per second beside the bare trunk, on the same batches."""
    passes = same_passes(work.contexts)
    times = in_turns(
        {
            "ours": lambda: reader.scorer.score(work.contexts),
            "full": lambda: reader.full.entropies(passes),
            "everywhere": lambda: reader.full.entropies(passes, everywhere=True),
            "full, at once": lambda: reader.beside.entropies(passes),
            "trunk": lambda: reader.full.trunk(passes),
            "trunk, at once": lambda: reader.beside.trunk(passes),
        },
        repeats=repeats,
    )
    count = len(passes)
    return [
        Measurement(
            name="factor: time of a unique pass (ours)",
            unit="s/pass",
            ours=times.per("ours", count, "head on the needed positions, a batch per thread"),
            alternatives=(
                times.per("full", count, "full logits, softmax at the needed positions"),
                times.per("everywhere", count, "full logits, softmax everywhere"),
                times.per("full, at once", count, "full logits at the needed positions, a batch per thread"),
            ),
            ratio=times.ratio("full", "ours"),
            ratio_of="full logits over ours",
            target=Target(sense="at least", value=1.6),
            conditions={
                **conditions,
                "ratio to softmax everywhere": round(times.ratio("everywhere", "ours"), 2),
                "ratio to full logits, a batch per thread": round(times.ratio("full, at once", "ours"), 2),
            },
        ),
        Measurement(
            name="verification beside the bare trunk",
            unit="tokens/s",
            ours=times.figure("ours", "verification", amount=work.tokens),
            alternatives=(
                times.figure("trunk, at once", "trunk forward, no logits, a batch per thread", amount=work.tokens),
                times.figure("trunk", "the same, one batch at a time on all threads", amount=work.tokens),
            ),
            ratio=times.ratio("trunk, at once", "ours"),
            ratio_of="ours over trunk",
            target=Target(sense="at least", value=0.85),
            conditions={**conditions, "ratio to one batch at a time": round(times.ratio("trunk", "ours"), 2)},
        ),
    ]


def stress(scene: Scene, reader: Reader, size: Size) -> Measurement:
    """Long roots with a fifth of their tokens selected, ``STRESS_TOP_K`` candidates each, ours and by the letter.

    Both ways do the same passes, a few of all unique passes of the roots: the whole would take the literal way too
    long. A pass is taken whole, with every position that it serves, and they are taken evenly (``evenly``), so that
    they serve as many positions as the whole does.
    """
    roots = stress_roots(scene, reader, size.stress_roots, size.stress_tokens)
    positions = selected_positions(scene, reader, roots)
    found: Ref = scene.candidates(roots, positions, RetrievalConfig(top_k=STRESS_TOP_K))
    whole = judged(scene, reader, roots, found)
    work = whole.drawn(evenly(whole, size.stress_passes))
    alone = Judged(whole.roots, work.pairs, work.contexts)
    times = in_turns(
        {
            "ours": lambda: reader.scorer.score(work.contexts),
            LITERAL: lambda: reader.full.entropies(one_each(work.contexts, cut=False)),
            LITERAL_CUT: lambda: reader.full.entropies(one_each(work.contexts, cut=True)),
        },
        repeats=size.repeats,
        warm_up=False,
    )
    agreement = compared(
        gains_by_engine(reader, alone), gains_by_the_letter(reader, alone, cut=True), scene.build.verification.epsilon
    )
    return Measurement(
        name=f"stress: a fifth of the tokens of {size.stress_tokens}-token roots selected",
        unit="pairs/s",
        ours=times.figure("ours", "one pass per unique pair", amount=work.verdicts),
        alternatives=tuple(times.figure(way, amount=work.verdicts) for way in (LITERAL, LITERAL_CUT)),
        ratio=times.ratio(LITERAL, "ours"),
        ratio_of="ours over literal",
        target=Target(sense="at least", value=7.0),
        conditions={
            **scene_conditions(scene, len(whole.roots), work),
            "root tokens, at most": size.stress_tokens,
            "K": STRESS_TOP_K,
            "unique passes of the roots, of which these were taken": len(whole.pairs),
            "pairs of the roots": whole.verdicts,
            **agreement.conditions(),
            "ratio to passes that end at their position": round(times.ratio(LITERAL_CUT, "ours"), 2),
        },
    )


def evenly(work: Judged, count: int) -> list[int]:
    """Numbers of ``count`` passes all over the work: by positions and tokens, the middle one of each equal part."""
    order = sorted(range(len(work.pairs)), key=lambda n: (len(work.pairs[n].positions), work.contexts[n].needed, n))
    parts = min(count, len(order))
    return sorted(order[(2 * part + 1) * len(order) // (2 * parts)] for part in range(parts))
