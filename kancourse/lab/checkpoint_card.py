"""The checkpoint that comes with the course: what it is measured on, and its card, written by code from the records.

    python -m kancourse.lab.checkpoint_card path/to/run

takes the folder of a run with a checkpoint per seed (`seed-0/best.safetensors`, …), packs the first into
`data/checkpoints/`, judges what the packed model writes, asks it what stories said, and writes the record and the card.

Notable points:
- Judged at several temperatures, in several draws of documents each: there the band is over draws, all from one model.
- The other seeds, packed in memory, are judged at the first one's best temperature: that band is over trainings.
- Questions about what a text said, at most one of a document (`microworld.prompts`); an answer is right when every
  token of it is the likeliest. Left out are results of a calculation that stands in the answer: it needs no reading.
- Two controls say what can be had without reading: the *usual answer* of a question's
  kind, counted on other documents, and the model itself with *another story* in place of its own.
- Draws of questions are of different documents, so the band of the answers is over questions.
"""

import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from kancourse.gpt import GPT
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.microworld import Prompt, judge, prompts
from kancourse.lab.packed_file import load_packed, save_packed, trained_on
from kancourse.lab.recall import answer_scores
from kancourse.lab.records import environment, read_record, summary, write_record
from kancourse.lab.sample import generate_documents
from kancourse.lab.tokenizers import Tokenizer
from kancourse.lab.train import BEST
from kancourse.packed import PackedGPT, packed_bytes
from kancourse.paths import data_dir

__all__ = ["NAME", "TRAINED", "answers", "card", "checkpoint_path", "judged_record", "quality"]

NAME, TRAINED, JUDGED = "mixkabrn-tiny", "mixkabrn_checkpoint", "mixkabrn_checkpoint_judged"
TEMPERATURES, DRAWS, DOCUMENTS, QUESTIONS = (0.25, 0.5, 0.75, 1.0), (0, 1, 2), 150, 500


def checkpoint_path() -> Path:
    """Where the packed checkpoint lies."""
    return data_dir() / "checkpoints" / f"{NAME}.safetensors"


def quality(
    model: GPT | PackedGPT, tokenizer: Tokenizer, *, temperature: float, seed: int, n_documents: int = DOCUMENTS
) -> dict[str, float | None]:
    """Shares of one draw of documents: `grammatical` and `consistent` sentences, `right` answers (None: none given)."""
    documents = generate_documents(
        model,
        n_documents,
        tokenizer=tokenizer,
        max_new_tokens=model.config.block_size,
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    verdict = judge("\n\n".join(documents))
    return {
        "grammatical": verdict.n_grammatical / max(1, verdict.n_sentences),
        "consistent": verdict.n_consistent / max(1, verdict.n_sentences),
        "right": verdict.right if verdict.n_questions else None,
    }


def answers(
    model: GPT | PackedGPT,
    tokenizer: Tokenizer,
    *,
    level: int,
    domains: tuple[str, ...],
    seed: int,
    n_questions: int = QUESTIONS,
) -> dict[str, float]:
    """Shares of right answers to questions about what was said: of the `model`, and of the two controls."""
    asked = _need_reading(prompts(level, seed, 2 * n_questions, domains=domains))[:n_questions]
    usual = _usual_answers(_need_reading(prompts(level, seed + 1000, 4 * n_questions, domains=domains)))
    others = asked[1:] + asked[:1]
    moved = [_with_story_of(other, prompt) for prompt, other in zip(asked, others, strict=True)]
    return {
        "model": float(answer_scores(model, asked, tokenizer)[0].mean()),
        "usual answer": fmean(usual.get(_kind(prompt)) == prompt.answer for prompt in asked),
        "another story": float(answer_scores(model, moved, tokenizer)[0].mean()),
    }


def judged_record(path: Path, others: Mapping[int, Path]) -> dict[str, Any]:
    """Everything that is measured of the packed checkpoint, as a record.

    Args:
        path: of the packed model.
        others: checkpoints, not packed, of the same training with other seeds.
    """
    model, tokenizer, _ = load_packed(path)
    trained = read_record(TRAINED)["corpus"]["source"]
    level, domains = trained["level"], tuple(trained["domains"])
    judged = {
        f"{temperature:g}": [quality(model, tokenizer, temperature=temperature, seed=seed) for seed in DRAWS]
        for temperature in TEMPERATURES
    }
    mean = {key: fmean(draw["grammatical"] for draw in draws) for key, draws in judged.items()}
    best = max(mean, key=mean.__getitem__)
    asked = [answers(model, tokenizer, level=level, domains=domains, seed=seed) for seed in DRAWS]
    trainings = [_over_draws(read_record(TRAINED)["runs"][0]["seed"], judged[best], asked)]
    for number, other in others.items():
        twin = PackedGPT(load_checkpoint(other).model)
        writes = [quality(twin, tokenizer, temperature=float(best), seed=seed) for seed in DRAWS]
        knows = [answers(twin, tokenizer, level=level, domains=domains, seed=seed) for seed in DRAWS]
        trainings.append(_over_draws(number, writes, knows))
    return {
        "kind": "checkpoint",
        "trained": TRAINED,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "packed_bytes": packed_bytes(model.model),
        "documents": DOCUMENTS,
        "draws": list(DRAWS),
        "judged": judged,
        "best_temperature": float(best),
        "questions": QUESTIONS,
        "answers": asked,
        "trainings": trainings,
        "environment": environment(),
    }


def card(trained: dict[str, Any], judged: dict[str, Any]) -> str:
    """The card of the checkpoint, in Markdown.

    Args:
        trained: the record of its training.
        judged: the record of what was measured afterwards.
    """
    run, corpus, source = trained["runs"][0], trained["corpus"], trained["corpus"]["source"]
    best = f"{judged['best_temperature']:g}"
    right = {who: _band([row[who] for row in judged["answers"]]) for who in judged["answers"][0]}
    over = {key: _band([row[key] for row in judged["trainings"]]) for key in ("grammatical", "model")}
    rows = [
        "| temperature | grammatical sentences | sentences that fit what was said | right of its own questions |",
        "|---|---|---|---|",
    ]
    for temperature, draws in judged["judged"].items():
        shares = [_band([draw[key] for draw in draws if draw[key] is not None]) for key in draws[0]]
        mark = " (most grammatical)" if temperature == best else ""
        rows.append(f"| {temperature}{mark} | {' | '.join(shares)} |")
    lines = [
        f"# {NAME}",
        "",
        "A small language model of retention, mixtures of experts and ternary KANs, "
        f"{trained['parameters']['total']:,} parameters, packed into `{judged['file']}` ({judged['bytes']:,} bytes). "
        "Lesson 11 of the course builds it; this card is written by code from two records and is not edited.",
        "",
        "## Try it",
        "",
        "```sh",
        f"kancourse sample data/checkpoints/{judged['file']} --temperature {best}",
        f"kancourse evaluate data/checkpoints/{judged['file']} --domains {' '.join(source['domains'])}",
        "```",
        "",
        "## What it was trained on",
        "",
        f"- **Data:** microworld, level {source['level']}, {', '.join(source['domains'])}; "
        f"{corpus['train_documents']:,} documents, {corpus['train_tokens']:,} tokens, generated from seed "
        f"{source['seed']}; licence {corpus['licence']}. Programs were left out, to be learned in the lesson.",
        f"- **Training:** {run['steps']:,} steps, {run['tokens']:,} tokens, learning rate "
        f"{trained['experiment']['lr']:g}, seed {run['seed']}, {run['seconds'] / 60:.0f} minutes on "
        f"{trained['environment']['processor']}, {trained['environment']['threads']} thread(s), "
        f"{trained['environment']['date']}; record `data/results/{judged['trained']}.json`.",
        f"- **Loss:** {run['best_val_loss']:.4f} nats per token on held-out documents; no model can be below "
        f"{corpus['val_floor']:.4f}, and knowing only how frequent each token is gives "
        f"{corpus['val_unigram_entropy']:.4f}.",
        "",
        "## What it writes",
        "",
        f"Judged by the grammar that wrote the data, {judged['documents']} documents a draw, "
        f"{len(judged['draws'])} draws of one model: mean (lowest to highest).",
        "",
        *rows,
        "",
        "## What it remembers",
        "",
        f"{judged['questions']} questions a draw, by the grammar, about what a text said, each answer read off as "
        f"the likeliest: **{right['model']}** are right. Without reading one could have {right['usual answer']} "
        "(always the usual answer to such a question); the model itself, shown another text, has "
        f"{right['another story']}.",
        "",
        "## Trained again",
        "",
        f"{len(judged['trainings'])} trainings that differ in their seed alone end at a loss of "
        f"{trained['val_loss']['mean']:.4f} ({trained['val_loss']['min']:.4f} to {trained['val_loss']['max']:.4f}), "
        f"with {over['grammatical']} of sentences grammatical at temperature {best} and {over['model']} of the "
        "questions about a text right. The file holds the first of them, not the best.",
        "",
        "## What it is not for",
        "",
        f"Anything outside its {corpus['tokenizer_vocab_size']} words. It knows nothing of the world, and what it says "
        "of Tom's apple may be wrong. The weights come under the licence of this repository.",
        "",
        f"SHA-256 of the file: `{judged['sha256']}`",
    ]
    return "\n".join(lines) + "\n"


def main(run: Path) -> None:
    """Pack the first seed's checkpoint, judge it and the others, write record and card."""
    found = {row["seed"]: run / f"seed-{row['seed']}" / BEST for row in read_record(TRAINED)["runs"]}
    first, *_ = found.values()
    checkpoint = load_checkpoint(first)
    told = trained_on(read_record(TRAINED))  # its `corpus` is what a training state says, too
    path = save_packed(checkpoint_path(), checkpoint.model, tokenizer=checkpoint.tokenizer, bits=1.6, trained_on=told)
    record = judged_record(path, {seed: other for seed, other in found.items() if other != first})
    write_record(JUDGED, record)
    path.with_suffix(".md").write_text(card(read_record(TRAINED), record), encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size:,} bytes, best temperature {record['best_temperature']:g}")


def _over_draws(seed: int, writes: list[dict[str, Any]], knows: list[dict[str, float]]) -> dict[str, float]:
    """Of one training: its seed, the share of grammatical sentences, and of right answers, as means over the draws."""
    means = {who: fmean(draw[who] for draw in knows) for who in knows[0]}
    return {"seed": seed, "grammatical": fmean(draw["grammatical"] for draw in writes), **means}


def _kind(prompt: Prompt) -> tuple[str, str, str]:
    """What kind of question a prompt ends with: its domain, its first word, and how the answer was begun."""
    question, _, begun = prompt.text.rsplit("\n", 1)[-1].rpartition("?")
    return prompt.domain, question.split()[0] if question.split() else "", begun


def _need_reading(asked: list[Prompt]) -> list[Prompt]:
    """Those whose answer has not begun with the calculation it is the result of."""
    return [prompt for prompt in asked if "=" not in _kind(prompt)[2]]


def _usual_answers(asked: list[Prompt]) -> dict[tuple[str, str, str], str]:
    """The most frequent answer to each kind of question."""
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for prompt in asked:
        counts.setdefault(_kind(prompt), Counter())[prompt.answer] += 1
    return {kind: count.most_common(1)[0][0] for kind, count in counts.items()}


def _with_story_of(other: Prompt, prompt: Prompt) -> Prompt:
    """The prompt's question after the text of another."""
    story = other.text.rpartition("\n")[0]
    return dataclasses.replace(prompt, text=f"{story}\n{prompt.text.rpartition(chr(10))[2]}")


def _band(values: list[float]) -> str:
    told = summary(values)
    return f"{told['mean']:.1%} ({told['min']:.1%} to {told['max']:.1%})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
