"""The scoring engine with the Triton kernel, run by Triton's interpreter, beside the same engine with logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, PhiConfig, PhiForCausalLM
from triton import knobs

from models import entropy_kernel
from models.batches import Context
from models.heads import LinearHead
from models.kernel_head import _why_broken, kernel_by_itself, why_no_kernel
from models.scoring import Scorer
from storage.errors import PolicyError

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, Any] = {
    "a soft cap": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=3.0)),
    "a scale": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.25)),
    "a bias": lambda: PhiForCausalLM(PhiConfig(**SIZES)),
}
CONTEXTS = [Context([(7 * n * n + k) % 97 for n in range(20)], [1, 11, 19]) for k in range(4)]


def random_model(family: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(5)
    model = FAMILIES[family]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
            elif name == "lm_head.bias":
                parameter.normal_()
    return model.to(dtype).eval()


def scored(scorer: Scorer) -> Tensor:
    """Entropies and likelihoods of the contexts, [2, positions]."""
    return torch.cat([torch.stack([scores.entropy, scores.nll]) for scores in scorer.score(CONTEXTS)], dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kernel_gives_the_entropies_of_the_logits(family: str) -> None:
    model = random_model(family)
    kernel = Scorer(model, kernel="triton", workers=3, tokens_per_batch=20)
    torch.testing.assert_close(scored(kernel), scored(Scorer(model)), atol=2e-5, rtol=0)


def test_16_bit_weights_are_not_rounded_to_16_bit_logits() -> None:
    model = random_model("a scale", torch.bfloat16)
    kernel, rounded = scored(Scorer(model, kernel="triton")), scored(Scorer(model))
    assert 0 < float((kernel - rounded).abs().max()) < 0.1


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = random_model("a scale")
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(PolicyError, match="the output of the model type cohere is no plain linear layer") as caught:
        Scorer(model, kernel="triton")
    assert caught.value.hint == "Set build.numeric.kernel: torch."


def test_a_kernel_with_other_answers_is_refused_and_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = entropy_kernel.hidden_entropy_and_nll

    def off(*given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        entropy, nll = right(*given, **named)
        return entropy, nll + 0.01

    monkeypatch.setattr(entropy_kernel, "hidden_entropy_and_nll", off)
    with pytest.raises(PolicyError, match=r"by up to 0.01 nats, allowed are 0.002"):
        Scorer(random_model("a bias"), kernel="triton")
    assert (
        _why_broken.__wrapped__(torch.device("cpu"), torch.float32) == "its entropies are off by up to 0.01 nats here"
    )


def test_a_kernel_that_does_not_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any, **named: Any) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(entropy_kernel, "hidden_entropy_and_nll", fails)
    found = _why_broken.__wrapped__(torch.device("cpu"), torch.float32)
    assert found == "it does not run here (Failed to find C compiler)"


def test_without_interpreter_a_cpu_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert why_no_kernel(cpu, torch.float32) is None
    assert why_no_kernel(cpu, torch.float64) == "it knows no weights of torch.float64"
    monkeypatch.setattr(knobs.runtime, "interpret", False)
    assert why_no_kernel(cpu, torch.float32) == "it needs a GPU, the policy is on a cpu"
    assert kernel_by_itself(cpu, torch.float32) == "torch"
    with pytest.raises(PolicyError, match="the kernel triton can't be used: it needs a GPU"):
        Scorer(random_model("a bias"), kernel="triton")


def test_a_machine_without_triton_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.kernel_head.find_spec", lambda name: None)
    assert why_no_kernel(torch.device("cuda"), torch.bfloat16) == "Triton is not installed"
    assert kernel_by_itself(torch.device("cuda"), torch.bfloat16) == "torch"


def test_by_itself_it_is_for_16_bits_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.kernel_head.why_no_kernel", lambda device, dtype: None)
    gpu = torch.device("cuda")
    types = (torch.bfloat16, torch.float16, torch.float32)
    assert [kernel_by_itself(gpu, dtype) for dtype in types] == ["triton", "triton", "torch"]
    assert kernel_by_itself(torch.device("cpu"), torch.bfloat16) == "torch"


def test_nan_weights_are_still_the_policys_error() -> None:
    model = random_model("a bias")
    with torch.no_grad():
        model.lm_head.weight[3, 0] = torch.nan
    scorer = Scorer(model, kernel="triton")
    assert isinstance(scorer, Scorer)
    with pytest.raises(PolicyError, match="NaN or infinite logits"):
        scorer.score(CONTEXTS)


def test_logits_of_a_head_are_the_models_own() -> None:
    head = LinearHead(nn.Linear(3, 5), factor=0.5, cap=2.0)
    hidden = torch.randn(4, 3)
    torch.testing.assert_close(head(hidden), 2.0 * torch.tanh(head.output(hidden) * 0.5 / 2.0))
