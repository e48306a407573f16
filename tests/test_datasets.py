r"""The sets of the second source and GSM8K: small files of the published schemas, domains, questions, exact match.

Run alone: pytest tests/test_datasets.py
"""

import json
import re
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from kancourse.lab.answers import FORMATS
from kancourse.lab.corpus import load_corpus
from kancourse.lab.documents import split_of
from kancourse.lab.exact_match import _continued, exact_match, wilson
from kancourse.lab.layouts import Example
from kancourse.lab.questions import Questions, has_answers, load_questions
from kancourse.lab.readers import open_source
from kancourse.lab.sample import generate
from kancourse.lab.sources import CORPORA, find_row
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.zoo import build

N = 40


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> Path:
    """An empty data folder and an empty cache; nothing may go to the network."""
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet(path: Path, **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def jsonl(path: Path, records: list[dict]) -> Path:
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


def texts(corpus, split: str) -> list[str]:
    tokens = getattr(corpus, split)
    return [corpus.tokenizer.decode(tokens.document(i)[:-1]) for i in range(tokens.n_documents)]


def word_problem(n: int) -> dict:
    steps = f"Tom has {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n} apples.\n#### {2 * n}"
    return {"question": f"Tom has {n} apples and gets as many again. How many?", "answer": steps}


def m2d2(data: Path) -> Path:
    """Two fields and one topic, as their archives unpack; the validation files are cut in the middle of a letter."""
    for domain in ("cs_l1", "math_l1", "Philosophy_and_thinking"):
        lines = "\n".join(f"Abstract {n} of {domain}: naïve bounds are tight." for n in range(N))
        write(data / "m2d2" / "data" / domain / "train.txt", lines + "\n")
        for part in ("valid", "test"):
            cut = f"een cut, and {part} of {domain}.\nAnother line of {domain}.\nA naï".encode()
            write(data / "m2d2" / "data" / domain / f"{part}.txt", b"\xaf" + cut[:-1])
    return data / "m2d2"


def test_m2d2_has_a_line_for_a_document_and_a_folder_for_a_domain(data):
    m2d2(data)
    corpus = load_corpus("M2D2", tokenizer="bytes")
    assert corpus.name == "m2d2"
    assert (corpus.train.n_documents, corpus.val.n_documents) == (3 * N, 3 * 3)
    assert texts(corpus, "val")[0].startswith("een cut, and valid of ")
    assert not any("\ufffd" in text or "test of" in text for text in texts(corpus, "val"))
    one = load_corpus("m2d2/cs_l1", tokenizer="bytes")
    same = load_corpus("m2d2", domains=["CS_L1"], tokenizer="bytes")
    assert texts(one, "train") == texts(same, "train")
    assert all("cs_l1" in text for text in texts(one, "train"))
    assert one.source["domains"] == ["cs_l1"]


def test_a_limit_leaves_every_domain_in(data, monkeypatch):
    monkeypatch.setattr("kancourse.lab.domains._AT_A_TIME", 2)
    m2d2(data)
    some = texts(load_corpus("m2d2", tokenizer="bytes", n_documents=10), "train")
    assert {re.search("of (.*):", text)[1] for text in some} == {"cs_l1", "math_l1", "Philosophy_and_thinking"}


def test_archives_are_read_as_they_are(data):
    folder = m2d2(data)
    whole = texts(load_corpus("m2d2", tokenizer="bytes"), "train")
    for domain in sorted((folder / "data").iterdir()):
        with tarfile.open(folder / "data" / f"{domain.name}.tar.gz", "w:gz") as tar:
            tar.add(domain, arcname=domain.name)
        for path in domain.iterdir():
            path.unlink()
    corpus = load_corpus("m2d2", tokenizer="bytes")
    assert sorted(texts(corpus, "train")) == sorted(whole)
    assert corpus.val.n_documents == 9
    assert list(corpus.source["files"]) == ["Philosophy_and_thinking.tar.gz", "cs_l1.tar.gz", "math_l1.tar.gz"]
    archive = folder / "data" / "cs_l1.tar.gz"
    write(archive, archive.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"cs_l1.tar.gz is not a whole .tar.gz: it is cut short or something else"):
        load_corpus("m2d2", tokenizer="bytes")


def test_amps_has_exercises_with_answers_and_with_hints(data):
    folder = data / "amps" / "amps"
    for n in range(N):
        write(folder / "khan" / "504" / f"{n}.json", json.dumps({"problem": f"Add {n}.", "hints": ["First.", f"{n}."]}))
        several = f"Problem:\nSolve $x={n}$.\nAnswer:\n$x={n}$\nAnswer:\n${n}$\n"
        write(folder / "mathematica" / "algebra" / "solve" / f"{n}.txt", several)
    write(
        folder / "mathematica" / "calculus" / "w_steps" / "1.txt", "Problem:\nDerive.\nAnswer:\nStep one.\nStep two.\n"
    )
    corpus = load_corpus("amps", tokenizer="bytes", validation_fraction=0.2)
    found = texts(corpus, "train") + texts(corpus, "val")
    assert len(found) == 3 * N + 1
    assert "Problem: Add 7.\nAnswer: First.\n7." in found
    assert "Problem: Solve $x=7$.\nAnswer: $x=7$" in found
    assert len(corpus.source["files"]) == 81 or list(corpus.source["files"]) == ["81 files"]
    examples = list(open_source(CORPORA["amps"]).examples["all"]())
    assert {e.domain for e in examples} == {"khan", "mathematica/algebra", "mathematica/calculus"}
    assert {e.domain for e in examples if e.answers} == {"mathematica/algebra"}, "hints and steps are never scored"
    algebra = load_corpus("amps/mathematica/algebra", tokenizer="bytes", validation_fraction=0.2)
    assert algebra.train.n_documents + algebra.val.n_documents == 2 * N
    both = load_corpus("amps", domains=["mathematica"], tokenizer="bytes", validation_fraction=0.2)
    assert both.train.n_documents + both.val.n_documents == 2 * N + 1


def competition(n: int, subject: str) -> dict:
    return {
        "problem": f"What is ${n}/2$?",
        "level": "Level 1",
        "type": subject,
        "solution": rf"It is half of {n}: $\boxed{{\frac{{{n}}}{{2}}}}$.",
    }


@pytest.mark.parametrize("published", ["json", "parquet"])
def test_math_as_its_authors_and_as_the_hub_have_it(data, published):
    for part in ("train", "test"):
        for subject in ("Algebra", "Geometry"):
            rows = [competition(n, subject) for n in range(N)]
            folder = subject.lower()
            if published == "json":
                for n, row in enumerate(rows):
                    write(data / "math" / "MATH" / part / folder / f"{n}.json", json.dumps(row))
            else:
                columns = {name: [row[name] for row in rows] for name in rows[0]}
                parquet(data / "math" / folder / f"{part}-00000-of-00001.parquet", **columns)
    corpus = load_corpus("math", tokenizer="bytes", validation_fraction=0.3)
    assert corpus.train.n_documents + corpus.val.n_documents == 2 * N
    assert "set aside for questions" in corpus.note
    questions = load_questions("MATH", domains=["geometry"])
    assert (questions.part, questions.n_all) == ("test", N)
    answers = {example.prompt: example.answers for example in questions.examples}
    assert answers["Problem: What is $6/2$?\nSolution:"] == (r"\frac{6}{2}",)
    with pytest.raises(ValueError, match="math has no domain 'poetry'; it has: Algebra, Geometry"):
        load_corpus("math/poetry", tokenizer="bytes")


def test_gsm8k_sets_its_test_part_aside(data):
    jsonl(data / "gsm8k" / "train.jsonl", [word_problem(n) for n in range(N)] + [word_problem(3)] * 5)
    jsonl(data / "gsm8k" / "test.jsonl", [word_problem(n) for n in range(100, 110)])
    corpus = load_corpus("gsm8k", tokenizer="bytes", validation_fraction=0.3)
    told = texts(corpus, "train") + texts(corpus, "val")
    assert len(told) == N + 5
    assert all(text.startswith("Question: Tom has") and "\nAnswer: Tom has" in text for text in told)
    assert not any("100 apples" in text for text in told)
    questions = load_questions("gsm8k", n_questions=4)
    assert (len(questions.examples), questions.n_all, questions.part) == (4, 10, "test")
    assert [example.answers for example in questions.examples] == [("200",), ("204",), ("210",), ("214",)]
    assert questions.usual_answer == "6"


def test_open_questions_may_have_several_answers(data):
    for part in ("train", "validation"):
        asked = [f"who was number {n} of {part}" for n in range(N)]
        answers = [[f"The {n}", f"number {n}"] for n in range(N)]
        parquet(data / "openqa" / "nq_open" / f"{part}-00000-of-00001.parquet", question=asked, answer=answers)
    corpus = load_corpus("OpenQA", tokenizer="bytes")
    assert texts(corpus, "train")[2] == "Question: who was number 2 of train\nAnswer: The 2"
    questions = load_questions("openqa")
    assert (questions.part, questions.n_all) == ("validation", N)
    assert questions.examples[2].answers == ("The 2", "number 2")


def test_code_exercises_have_no_answers(data):
    heads = [f'def add_{n}(x):\n    """Add {n}."""\n' for n in range(N)]
    bodies = [f"    return x + {n}\n" for n in range(N)]
    parquet(data / "phicode" / "data" / "train-00000-of-00003.parquet", problem=heads, solution=bodies)
    corpus = load_corpus("Phi-Code", tokenizer="bytes", validation_fraction=0.2)
    assert 'def add_2(x):\n    """Add 2."""\n    return x + 2' in texts(corpus, "train") + texts(corpus, "val")
    assert not has_answers("Phi-Code")
    with pytest.raises(
        ValueError, match="phicode has no questions with answers; these have: amps, math, gsm8k, openqa"
    ):
        load_questions("phicode")


def test_held_out_questions_are_those_the_model_was_not_trained_on(data):
    for n in range(200):
        write(data / "amps" / "mathematica" / "algebra" / f"{n}.txt", f"Problem:\nNumber {n}?\nAnswer:\n{n}\n")
    asked = {example.text for example in load_questions("amps").examples}
    corpus = load_corpus("amps", tokenizer="bytes")
    assert asked == set(texts(corpus, "val"))
    assert all(split_of(text, CORPORA["amps"].validation_fraction, 0) == "val" for text in asked)


def test_every_mistake_is_one_sentence(data):
    jsonl(data / "gsm8k" / "train.jsonl", [word_problem(1), {"question": "How many?", "reply": "3"}])
    mistakes = [
        ("gsm8k", {}, ValueError, r"^line 2 of train.jsonl has no column 'answer'; it has: question, reply$"),
        (
            "gsm9k",
            {},
            ValueError,
            r"^unknown corpus 'gsm9k'; known: microworld, tinyshakespeare, .*m2d2, .*openqa, or the",
        ),
        (
            "gsm8k",
            {"domains": ["x"]},
            ValueError,
            r"^'gsm8k' has no domains, got x; these have: microworld, m2d2, amps,",
        ),
        ("gsm8k", {"level": 2}, ValueError, r"^only microworld has levels, got level=2 for 'gsm8k'$"),
        (
            "m2d2",
            {},
            ConnectionError,
            r"^cannot download m2d2 \(.*\), and .*/data/m2d2 holds none of it; to work offline",
        ),
        (
            "m2d2/x_l1",
            {},
            ConnectionError,
            r"put its archive <domain>.tar.gz, or what is in it, into \$KANCOURSE_DATA/m2d2",
        ),
    ]
    for name, options, kind, sentence in mistakes:
        with pytest.raises(kind, match=sentence) as error:
            load_corpus(name, tokenizer="bytes", **options)
        assert "\n" not in str(error.value)
    parquet(data / "openqa" / "train.parquet", question=["who"], answer=[3])
    parquet(data / "openqa" / "validation.parquet", question=["who"], reply=["me"])
    with pytest.raises(ValueError, match=r"the column 'answer' of openqa holds int, not text"):
        load_corpus("openqa", tokenizer="bytes")
    m2d2(data)
    with pytest.raises(
        ValueError, match=r"m2d2 has no domain 'cooking'; it has: Philosophy_and_thinking, cs_l1, math_l1"
    ):
        load_corpus("m2d2", domains=["cooking"], tokenizer="bytes")
    write(data / "m2d2" / "data" / "cs_l1" / "valid.txt", "")
    with pytest.raises(ValueError, match=r"valid.txt is empty: there is no text to learn from"):
        load_corpus("m2d2", tokenizer="bytes")


def test_names_as_people_write_them():
    assert find_row("Phi-Code") is CORPORA["phicode"]
    assert find_row("phi_code") is CORPORA["phicode"]
    assert find_row("no such") is None


# ---- Exact match


def scripted(answers: list[str]) -> Questions:
    examples = [Example(text="", prompt=f"Question: {'y' * n}\nAnswer:", answers=(a,)) for n, a in enumerate(answers)]
    how = FORMATS["hashes"]
    return Questions(
        corpus="gsm8k", part="test", examples=examples, n_all=len(answers), answer_format=how, usual_answer="7"
    )


def test_right_answers_are_counted_beside_the_usual_one(monkeypatch):
    said = {0: " so\n#### 7", 1: "#### 9", 2: "none", 3: "#### 1,000.0"}
    monkeypatch.setattr(
        "kancourse.lab.exact_match._continued",
        lambda model, prompts, tokenizer, most: [said[tokenizer.decode(p).count("y")] for p in prompts],
    )
    model = build("gpt-nano", vocab_size=257, block_size=16, seed=0)
    found = exact_match(model, scripted(["7", "8", "7", "1000"]), ByteTokenizer())
    assert (found.right, found.n, found.answered, found.control, found.control_answer) == (2, 4, 3, 0.5, "7")
    assert (found.low, found.high) == wilson(2, 4)
    assert found.sample.startswith("Question: \nAnswer: so")
    assert "exact match 50.0% (95% band 15.0% to 85.0%): 2 of 4 questions of gsm8k, test" in str(found)
    assert model.training


@pytest.mark.parametrize("preset", ["llama-nano", "retnet-nano"])
def test_prompts_of_any_lengths_in_one_batch_say_what_each_says_alone(preset):
    model = build(preset, n_layer=2, vocab_size=257, block_size=32, seed=1).eval()
    with torch.no_grad():
        model.wte.weight.mul_(20)
    tokenizer = ByteTokenizer()
    prompts = ["a", "abc", "hello you", "b" * 20]
    ids = [[tokenizer.eot_id, *tokenizer.encode(prompt)] for prompt in prompts]
    together = _continued(model, ids, tokenizer, 8)
    alone = [generate(model, p, tokenizer=tokenizer, max_new_tokens=8, temperature=0.0) for p in prompts]
    assert together == alone
    assert len(set(together)) > 1


def test_the_band_is_wilsons():
    assert wilson(0, 300) == pytest.approx((0, 0.012643), abs=1e-5)
    assert wilson(300, 300) == pytest.approx((1 - 0.012643, 1), abs=1e-5)
    assert wilson(15, 300) == pytest.approx((0.03055, 0.08078), abs=1e-4)
    for n in (1, 7, 50):
        for right in range(n + 1):
            low, high = wilson(right, n)
            assert 0 <= low <= right / n <= high <= 1
