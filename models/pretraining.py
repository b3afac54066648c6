"""Pretraining of a small base model from nothing: texts in, a policy folder out.

    record = pretrain(PretrainConfig(), documents, Path("base"), work=Path("base-work"))

``work`` takes the tokenizer, the tokenized corpus and a checkpoint every ``save_tokens`` tokens; called again with the
same ``work`` it carries on from the last one and reads no document. The policy folder is written at the end, with
``pretraining.json`` beside the weights.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from models.mixture import MixtureRows
from models.muon import build_optimizer
from models.pretrain_config import PretrainConfig, PretrainText
from models.pretrain_corpus import DuplicateFilter, PretrainCorpus, encode_corpus, load_corpus, save_corpus
from models.tokenizer_training import SEPARATOR, save_tokenizer, train_tokenizer

RECORD = "pretraining.json"
LOG = "log.jsonl"
Report = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class PretrainRecord:
    """What was done, for the model card: everything needed to do it again.

    ``loss_curve``: (tokens, mean training loss in nats per token over the rows since the entry before). ``remarks``:
    what a reader of the card should know beside it.
    """

    config: dict[str, Any]
    corpus_digest: str
    documents: int
    characters: int
    corpus_tokens: int
    refused: dict[str, int]
    packages: dict[str, str]
    libraries: dict[str, str]
    parameters: int
    trained_tokens: int
    seconds: float
    loss_curve: tuple[tuple[int, float], ...]
    remarks: tuple[str, ...] = ()


def pretrain(
    config: PretrainConfig,
    documents: Iterable[PretrainText],
    out: Path,
    *,
    work: Path,
    reserved: Iterable[str] = (),
    packages: Mapping[str, str] | None = None,
    report: Report = lambda tokens, loss: None,
) -> PretrainRecord:
    """Train a tokenizer and a model on ``documents`` and write the policy folder ``out``.

    ``reserved`` are the texts that must stay unseen: a document with a good part of its long lines among them is left
    out. ``packages`` (name → version) goes into the record. ``work`` is the folder for checkpoints.
    ``report`` is told the tokens trained so far and the latest loss.

    Raises InputError when nothing is left to train on. For another corpus choose another ``work``.
    """
    torch.set_num_threads(config.threads)
    work.mkdir(parents=True, exist_ok=True)
    corpus, tokenizer = prepare_corpus(config, documents, reserved, work)
    model = new_model(config, tokenizer)
    _train(config, corpus, tokenizer, model, work, report)
    curve, seconds = _loss_curve(work / LOG)
    record = PretrainRecord(
        config=config.model_dump(),
        corpus_digest=corpus.digest,
        documents=len(corpus.starts) - 1,
        characters=corpus.characters,
        corpus_tokens=len(corpus.ids),
        refused=corpus.refused,
        packages=dict(packages or {}),
        libraries=_libraries(),
        parameters=model.num_parameters(),
        trained_tokens=config.steps(config.total_tokens) * config.rows_per_step * config.context,
        seconds=seconds,
        loss_curve=curve,
    )
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out)
    (out / RECORD).write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return record


def new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights (fp32), drawn from ``config.seed``."""
    torch.manual_seed(config.seed)
    architecture = Qwen2Config(
        vocab_size=config.vocabulary,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.context,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return Qwen2ForCausalLM(architecture)


class _InOrder(Trainer):
    """The Trainer, reading rows in the order of their numbers: the mixture is random already, and resumable so."""

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]


class _Log(TrainerCallback):
    """Appends tokens, loss and seconds to ``log.jsonl`` and tells ``report``."""

    def __init__(self, path: Path, tokens_per_step: int, report: Report) -> None:
        self._path = path
        self._tokens_per_step = tokens_per_step
        self._report = report
        self._started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        tokens = state.global_step * self._tokens_per_step
        seconds = round(time.monotonic() - self._started, 1)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"tokens": tokens, "loss": round(float(logs["loss"]), 4), "seconds": seconds}) + "\n")
        self._report(tokens, float(logs["loss"]))


def _train(
    config: PretrainConfig,
    corpus: PretrainCorpus,
    tokenizer: PreTrainedTokenizerFast,
    model: Qwen2ForCausalLM,
    work: Path,
    report: Report,
) -> None:
    """Train ``model`` in place, from the last checkpoint in ``work`` where there is one."""
    steps = config.steps(config.total_tokens)
    separator = tokenizer.encode(SEPARATOR, add_special_tokens=False)
    length = steps * config.rows_per_step
    rows = MixtureRows(corpus, config.mixture, config.context, separator, length=length, seed=config.seed)
    optimizer = build_optimizer(
        model,
        muon=config.optimizer == "muon",
        muon_learning_rate=config.muon_learning_rate,
        adamw_learning_rate=config.adamw_learning_rate,
        weight_decay=config.weight_decay,
    )
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=config.rows_per_step,
        max_grad_norm=config.clip,
        bf16=config.bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        logging_steps=max(1, min(20, steps // 20)),
        save_steps=max(1, config.steps(config.save_tokens)),
        save_total_limit=3,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
    )
    if config.compiled:
        model.compile()
    trainer = _InOrder(
        model=model,
        args=arguments,
        train_dataset=rows,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, config.learning_rate_factor)),
        callbacks=[_Log(work / LOG, config.rows_per_step * config.context, report)],
    )
    trainer.remove_callback(PrinterCallback)
    last: str | None = get_last_checkpoint(str(work))  # type: ignore[no-untyped-call]
    trainer.train(resume_from_checkpoint=last)


def _loss_curve(log: Path) -> tuple[tuple[tuple[int, float], ...], float]:
    """(tokens, loss) along the run, and its seconds; steps repeated after a kill count once and cost twice."""
    curve: dict[int, float] = {}
    total = before = 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        curve[entry["tokens"]] = entry["loss"]
        # Every start of the program counts its seconds from zero.
        total += entry["seconds"] - (before if entry["seconds"] >= before else 0.0)
        before = entry["seconds"]
    return tuple(sorted(curve.items())), round(total, 1)


def prepare_corpus(
    config: PretrainConfig, documents: Iterable[PretrainText], reserved: Iterable[str], work: Path
) -> tuple[PretrainCorpus, PreTrainedTokenizerFast]:
    """The deduplicated, tokenized corpus and its tokenizer: those in ``work``, or new ones that are saved there."""
    folder = work / "tokenizer"
    corpus = load_corpus(work)
    if corpus is not None:
        return corpus, _load_tokenizer(folder)
    duplicates = DuplicateFilter()
    for text in reserved:
        duplicates.reserve(text)
    chosen = [document for document in documents if duplicates.accept(document.text)]
    # Every n-th document, so that a longer corpus does not take longer.
    stride = max(1, -(-sum(len(document.text) for document in chosen) // config.tokenizer_characters))
    texts = (document.text for document in chosen[::stride])
    save_tokenizer(train_tokenizer(texts, config.vocabulary, config.context), folder)
    tokenizer = _load_tokenizer(folder)
    corpus = encode_corpus(chosen, tokenizer, duplicates.refused)
    save_corpus(corpus, work)
    return corpus, tokenizer


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def _libraries() -> dict[str, str]:
    names = ("torch", "transformers", "tokenizers", "accelerate", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
