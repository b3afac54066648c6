"""Trains a policy on the samples of a dataset version: plain next-token cross-entropy over whole long samples.

    trained = train(parent_folder, sample_files, work_folder, TrainingConfig())

One causal attention over each sample (a document mask would cut the dependencies the data was made for), every token a
target, the Trainer of transformers around it. The same inputs give the same weights on the CPU, also when the run was
killed in between: it goes on from its last sound checkpoint.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from models.extension import ExtensionConfig, extend
from models.heads import split_model
from models.policy import (
    DTYPES,
    check_finite,
    load_config,
    load_model,
    native_context,
    pick_device,
    quiet_transformers,
    stored_dtype,
    vocabulary_rows,
)
from models.policy_files import extra_files, policy_listing
from models.training_data import Samples, check_lengths, collate, load_samples
from models.training_limits import resource_errors, torch_threads
from models.training_loss import next_token_loss
from models.training_state import SealCheckpoints, elapsed_of, last_sound_checkpoint, steps_of
from storage.digests import digest_listing
from storage.errors import ConfigError, PolicyError

CODE_VERSION = 1


class TrainingConfig(BaseModel):
    """One round of training. Defaults marked "paper" are those of the group's public scripts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extension: ExtensionConfig = Field(default_factory=ExtensionConfig, description="Context and RoPE base afterwards.")
    learning_rate: float = Field(4e-5, gt=0, description="Peak learning rate. [paper 4]")
    warmup: float = Field(
        0.2, ge=0, lt=1, description="Share of the steps with a rising rate, then cosine to 0. [paper 4]"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean of gradients. [paper 4]")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW: decay of the mean of their squares. [paper 4]")
    weight_decay: float = Field(0.1, ge=0, description="AdamW; biases and norms are left out. [paper 4]")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient. [paper 4]")
    batch: int = Field(1, ge=1, description="Samples in a forward pass. [ours 4]")
    accumulation: int = Field(32, ge=1, description="Forward passes a step of batch x accumulation samples. [paper 4]")
    epochs: float = Field(1.0, gt=0, description="Passes over the samples. [ours 4]")
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer steps, in place of epochs (scripts: 1,000). [ours 4]"
    )
    bf16: bool = Field(True, description="Autocast to bfloat16; weights and optimizer stay float32. [paper 4]")
    gradient_checkpointing: bool = Field(True, description="Recompute activations in the backward pass. [paper 4]")
    head_block: int = Field(2048, ge=1, description="Predictions whose logits are in memory at once. [paper 4]")
    seed: int = Field(0, description="Seed of dropout, where a model has any. [ours 4]")
    data_seed: int = Field(0, description="Seed of the order of the samples. [ours 4]")
    save_every_steps: int = Field(50, ge=1, description="Steps between two checkpoints to resume from. [ours 4]")
    device: str = Field("auto", description="auto (the GPU when there is one), cpu, cuda. [ours 4]")
    threads: int | None = Field(
        None, ge=1, description="Torch threads; part of what the last bits depend on. Null: torch's. [ours 4]"
    )
    save_dtype: Literal["parent", "float32", "bfloat16", "float16"] = Field(
        "parent", description="Type of the saved weights; parent: that of the policy trained from. [ours 4]"
    )
    remote_code: bool = Field(
        False, description="Run model code that lies in the policy's folder. Off unless you trust it. [ours 4]"
    )


@dataclass(frozen=True, slots=True)
class StepLoss:
    """One optimizer step: mean loss (nats a token), learning rate, gradient norm before clipping."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run gave: the next policy, in a folder, and how it went."""

    folder: Path
    digest: str
    files: dict[str, str]
    steps: tuple[StepLoss, ...]
    samples: int
    tokens: int
    """Tokens trained on, repeats counted."""
    seconds: float
    """Wall-clock time, that before the checkpoint it went on from included."""
    resumed_from: int
    """Step of the checkpoint it went on from; 0 for a run from the start."""


def train(
    parent: Path,
    files: Sequence[Path],
    work: Path,
    config: TrainingConfig,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Trains the policy in ``parent`` on Parquet files of samples and saves the next one under ``work``/policy.

    ``work`` belongs to this run alone: it holds the checkpoints a killed run resumes from. ``on_step`` is told step,
    number of steps and loss. Raises ``PolicyError`` when the loss or a weight becomes NaN, ``ConfigError`` for
    samples that do not fit the model, ``ResourceError`` when memory or disk ran out (the same call carries on).
    """
    start = time.monotonic()
    with torch_threads(config.threads), resource_errors(work), quiet_transformers():
        extended = extend(load_config(parent, remote_code=config.remote_code), config.extension)
        model = load_model(parent, extended, torch.float32, config.remote_code)
        samples = load_samples(files, work / "cache", vocabulary=vocabulary_rows(model))
        check_lengths(samples, context=native_context(extended), batch=config.batch)
        run = work / "checkpoints"
        resume = last_sound_checkpoint(run)
        start -= elapsed_of(resume) if resume else 0.0
        callbacks = [SealCheckpoints(start), _Report(on_step)]
        trainer = _Trainer(model, samples, _arguments(run, config), config, callbacks)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        history = tuple(_history(trainer.state.log_history))
        steps = trainer.state.global_step
        folder = _save(model, parent, work / "policy", config)
    listing = policy_listing(folder)
    return Trained(
        folder=folder,
        digest=digest_listing(listing),
        files=listing,
        steps=history,
        samples=len(samples),
        tokens=round(samples.tokens * steps / _steps_per_epoch(len(samples), config)),
        seconds=time.monotonic() - start,
        resumed_from=steps_of(resume) if resume else 0,
    )


def planned_steps(samples: int, config: TrainingConfig) -> int:
    """Optimizer steps that a training on so many samples takes."""
    return config.max_steps or math.ceil(config.epochs * _steps_per_epoch(samples, config))


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Learning rate of an optimizer step (from 0) over its peak: linear over ``warmup`` of the steps, then cosine to 0.

    The schedule of the paper, shifted by one step so that neither the first nor the last step has rate 0 (ours: a round
    of a few steps would waste them).
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class _Trainer(Trainer):
    """The Trainer with the loss in blocks, the schedule above, and an end to a run whose loss is NaN."""

    def __init__(
        self,
        model: PreTrainedModel,
        samples: Samples,
        arguments: TrainingArguments,
        config: TrainingConfig,
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=samples.rows,
            data_collator=collate,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = False
        self._config = config
        model.train(False)
        if config.gradient_checkpointing:
            # transformers renamed it within its version 5.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        self._trunk, self._head = split_model(model, arguments.device)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross-entropy of a batch; the Trainer divides by the number of accumulated batches."""
        with self.accelerator.autocast():
            loss = next_token_loss(self._trunk, self._head, inputs["input_ids"], block=self._config.head_block)
        if not bool(torch.isfinite(loss)):
            step = self.state.global_step + 1
            raise PolicyError(
                f"the training loss is {loss.item()} at step {step} of {self.state.max_steps}.",
                hint="Lower training.learning_rate, or check the parent with policylong doctor.",
            )
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """The schedule of ``rate_factor``."""
        chosen: Any = self.optimizer if optimizer is None else optimizer
        schedule = LambdaLR(chosen, lambda step: rate_factor(step, num_training_steps, self._config.warmup))
        self.lr_scheduler = schedule
        return schedule


class _Report(TrainerCallback):
    """Tells the caller about each step."""

    def __init__(self, on_step: Callable[[int, int, float], None] | None) -> None:
        self._on_step = on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Called by the Trainer with the loss of a step."""
        if self._on_step is not None and logs and "loss" in logs:
            self._on_step(state.global_step, state.max_steps, logs["loss"])


def _arguments(run: Path, config: TrainingConfig) -> TrainingArguments:
    device = pick_device(config.device)
    arguments = TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=config.batch,
        gradient_accumulation_steps=config.accumulation,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        optim="adamw_torch",
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        bf16=config.bf16,
        seed=config.seed,
        data_seed=config.data_seed,
        save_strategy="steps",
        save_steps=config.save_every_steps,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
    )
    if arguments.world_size > 1:
        raise ConfigError(
            f"this training runs in one process, it was started in {arguments.world_size}.",
            hint="Train in your own stack, then: policylong policy add PATH --trained-on VERSION.",
        )
    if arguments.n_gpu > 1:
        # More GPUs without a launcher would mean nn.DataParallel, which goes around the loss in blocks.
        arguments._n_gpu = 1
    return arguments


def _history(log: Sequence[dict[str, float]]) -> Iterator[StepLoss]:
    for line in log:
        if "loss" in line:
            yield StepLoss(
                int(line["step"]), line["loss"], line["learning_rate"], float(line.get("grad_norm", math.nan))
            )


def _steps_per_epoch(samples: int, config: TrainingConfig) -> int:
    return math.ceil(math.ceil(samples / config.batch) / config.accumulation)


def _save(model: PreTrainedModel, parent: Path, folder: Path, config: TrainingConfig) -> Path:
    """The policy's folder: weights and config anew, tokenizer and code of the parent as they are."""
    before = load_config(parent, remote_code=config.remote_code)
    dtype = DTYPES[stored_dtype(before) if config.save_dtype == "parent" else config.save_dtype]
    if folder.exists():
        shutil.rmtree(folder)
    plain: Any = model.train(False)
    if hasattr(before, "use_cache"):
        plain.config.use_cache = before.use_cache  # the Trainer switches it off for itself
    check_finite(folder, plain.to("cpu", dtype))
    model.save_pretrained(folder, max_shard_size="5GB")
    for name in extra_files(parent):
        shutil.copyfile(parent / name, folder / name)
    return folder
