"""The embedded embedder: upstream's weights, offline, unit vectors whose order does not matter."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from models.embedders import EMBEDDED_SHA256, Embedder, EmbedderConfig, embedder_digest, load_embedder
from storage.digests import digest_file
from storage.errors import ConfigError, InputError, IntegrityError

TEXTS = [
    "Return a shallow copy of the dictionary.",
    "The river froze over in the first week of January, and the boats stayed where they were.",
    "Makes a new dict with the same items.",
    "x",
    "def shift(values, by):\n    return [value + by for value in values]",
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder(EmbedderConfig())


def test_it_loads_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_embedder.cache_clear()
    loaded = load_embedder(EmbedderConfig())
    assert (loaded.dimension, loaded.limit) == (384, 256)
    assert loaded.digest == embedder_digest(EmbedderConfig())


def test_vectors_have_unit_length_and_say_what_the_texts_mean(embedder: Embedder) -> None:
    vectors = embedder.encode(TEXTS, "passage")
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    likeness = vectors @ vectors.T
    assert likeness[0, 2] > 0.4 > 0.2 > likeness[0, 1]
    assert embedder.encode([], "query").shape == (0, 384)


def test_bfloat16_is_float32_to_a_thousandth(embedder: Embedder) -> None:
    exact = load_embedder(EmbedderConfig(dtype="float32")).encode(TEXTS, "passage")
    assert ((embedder.encode(TEXTS, "passage") * exact).sum(axis=1) > 0.999).all()


def test_the_order_of_the_texts_does_not_matter(embedder: Embedder) -> None:
    there, back = embedder.encode(TEXTS, "passage"), embedder.encode(TEXTS[::-1], "passage")
    assert np.array_equal(there, back[::-1])


def test_the_number_of_threads_is_the_configured_one_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    loaded = load_embedder(EmbedderConfig(threads=1))
    forward = loaded._forward
    monkeypatch.setattr(loaded, "_forward", lambda *a: (seen.append(torch.get_num_threads()), forward(*a))[1])
    before = torch.get_num_threads()
    loaded.encode(TEXTS[:1], "query")
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_lengths_count_what_would_be_cut_off(embedder: Embedder) -> None:
    long = "word " * 300
    assert embedder.lengths(["", "word", long]) == [2, 3, 302]
    cut = embedder.encode([long, "word " * 254], "passage")
    assert np.allclose(cut[0], cut[1], atol=1e-2)


def test_what_changes_a_vector_changes_the_digest() -> None:
    digests = {
        embedder_digest(EmbedderConfig(**changes))  # type: ignore[arg-type]
        for changes in ({}, {"dtype": "float32"}, {"max_length": 128}, {"passage_prompt": "passage: "})
    }
    assert len(digests) == 4
    assert embedder_digest(EmbedderConfig(batch_size=3)) in digests


def test_weights_that_are_not_upstreams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.embedders.digest_file", lambda path: digest_file(path)[::-1])
    with pytest.raises(IntegrityError, match=f"upstream's have {EMBEDDED_SHA256[:12]}"):
        embedder_digest(EmbedderConfig())


def test_an_embedder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder /nowhere/model is missing"):
        embedder_digest(EmbedderConfig(model="/nowhere/model"))
    with pytest.raises(InputError, match=r"neither a folder nor to be had from the hub \(HF_HUB_OFFLINE is set\)"):
        embedder_digest(EmbedderConfig(model="nobody/nothing"))
    with pytest.raises(ConfigError, match="there is no embedder 'embedded:other'"):
        embedder_digest(EmbedderConfig(model="embedded:other"))
