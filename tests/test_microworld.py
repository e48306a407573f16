"""microworld as a language: exact probabilities, vocabularies, streams. Judge and snapshot have their own files."""

import contextlib
import io
import itertools
import math
import os
import re
import subprocess
import sys
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab.microworld import DOMAINS, LEVELS, facts, log_prob, pieces, prompts, stream, vocabulary, words
from kancourse.lab.microworld.documents import compose, domain, generator, units
from kancourse.lab.microworld.engine import Replay, Roll, Table, Writer, derivations
from kancourse.lab.microworld.worldfacts import WORLD

PARTS = [(level, name) for level in LEVELS for name in DOMAINS]


def some(n, level, domains=DOMAINS, seed=3):
    return list(itertools.islice(stream(seed, level, domains), n))


# --- probabilities


@pytest.mark.parametrize(("level", "name"), PARTS)
def test_reading_a_document_gives_the_probability_it_was_written_with(level, name):
    for document in some(60, level, (name,)):
        assert log_prob(document.text, level, (name,)) == pytest.approx(document.log_prob, abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_the_mixture_counts_the_choice_of_domain(level):
    for document in some(40, level):
        alone = log_prob(document.text, level, (document.domain,))
        assert document.log_prob == pytest.approx(alone - math.log(len(DOMAINS)), abs=1e-9)
        assert log_prob(document.text, level) == pytest.approx(document.log_prob, abs=1e-9)


@pytest.mark.parametrize("text", ["", "Tom", "Tom was", "Grass is green.", "x = 3", "\n\n", "zebra", "Tom was here.\n"])
def test_what_is_no_whole_document_has_probability_zero(text):
    assert log_prob(text) == -math.inf


def test_every_change_of_a_document_changes_its_probability():
    for document in some(30, 1):
        for changed in (document.text + " ", " " + document.text, document.text[:-1], document.text + document.text):
            assert log_prob(changed) == -math.inf


class Exhaustive(Writer):
    """Takes the n-th option at every choice, for every n in turn: all that one step can write."""

    def __init__(self, path):
        super().__init__()
        self.path, self.sizes = path, []

    def _at(self, options, chances):
        likely = [(option, chance) for option, chance in zip(options, chances, strict=True) if chance > 0]
        index = self.path[len(self.sizes)] if len(self.sizes) < len(self.path) else 0
        self.sizes.append(len(likely))
        option, chance = likely[index]
        self.log_prob += math.log(chance)
        return option

    def pick(self, name, options, weights=None):
        weights = weights or [1] * len(options)
        return self._at(options, [weight / sum(weights) for weight in weights])

    def draw(self, name, table, without=()):
        weights = [0 if option in without else table.weight[option] for option in table.options]
        return self._at(table.options, [weight / sum(weights) for weight in weights])

    def answer(self, name, right):
        return right


def everything(program, state):
    """(text, probability) of every derivation of one step."""
    path = []
    while True:
        w = Exhaustive(path)
        text = program(state.copy(), w)
        yield text, math.exp(w.log_prob)
        path = [*path, *[0] * (len(w.sizes) - len(path))]
        while path and path[-1] + 1 == w.sizes[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


@pytest.mark.parametrize("name", DOMAINS)
def test_the_probabilities_of_all_next_sentences_add_up_to_one_and_no_two_are_alike(name):
    # From real states on, an enumeration that shares nothing with the random writer or the reader.
    program = domain(name)
    for seed in range(3):
        state, random = program.start(1), Random(seed)
        while True:
            texts = list(everything(program.step, state))
            assert sum(chance for _, chance in texts) == pytest.approx(1.0, abs=1e-9)
            assert len({text for text, _ in texts}) == len(texts), "a sentence has two derivations"
            if program.step(state, Roll(random.random)) is None:
                break


class TinyState:
    """State of the toy language below."""

    def __init__(self, length=0):
        self.length = length

    def copy(self):
        return TinyState(self.length)


def test_a_whole_toy_language_adds_up_to_one():
    table = Table(["a", "b", "c"], [3, 2, 1])

    def step(state, w):
        if w.pick("kind", ("go on", "stop"), (1, 2) if state.length < 4 else (0, 1)) == "stop":
            return None
        state.length += 1
        return w.draw("letter", table)

    def total(state, chance):
        full = 0.0
        for text, probability in everything(step, state):
            if text is None:
                full += chance * probability
            else:
                [(w, after)] = derivations(step, state, {"kind": "go on", "letter": text}, text, Replay)
                assert math.exp(w.log_prob) == pytest.approx(probability)
                full += total(after, chance * probability)
        return full

    assert total(TinyState(), 1.0) == pytest.approx(1.0)


def test_frequent_documents_come_as_often_as_their_probability_says():
    n = 6000
    documents = some(n, 1, ("code",), seed=77)
    counts = Counter(document.text for document in documents)
    chance = {document.text: math.exp(document.log_prob) for document in documents}
    for text, count in counts.most_common(40):
        expected = n * chance[text]
        assert abs(count - expected) < 5 * math.sqrt(expected), (text, count, expected)


def test_the_floor_is_the_same_from_other_seeds():
    for level in LEVELS:
        here, there = ([d.log_prob for d in some(700, level, seed=seed)] for seed in (5, 6))
        means = [sum(values) / len(values) for values in (here, there)]
        spread = math.sqrt(sum((value - means[0]) ** 2 for value in here) / len(here))
        assert abs(means[0] - means[1]) < 4 * spread * math.sqrt(2 / len(here))


# --- streams


def test_streams_are_pure_functions_of_seed_split_and_index():
    assert some(20, 2) == some(20, 2)
    assert list(itertools.islice(stream(3, 2, start=15), 5)) == some(20, 2)[15:]
    texts = [
        [d.text for d in itertools.islice(stream(seed, 3, split=split), 30)]
        for seed in (0, 1)
        for split in ("train", "val")
    ]
    assert all(not set(a) & set(b) for a, b in itertools.combinations(texts, 2))


def test_no_two_seeds_splits_or_indices_share_random_numbers():
    starts = [
        generator(seed, index, split).random()
        for seed in (0, 1, 2, 10**6, 2**63)
        for split in ("train", "val", "prompts")
        for index in (0, 1, 2, 2**40)
    ]
    assert len(set(starts)) == len(starts)


def test_other_processes_write_the_same(tmp_path):
    script = (
        "from itertools import islice; from kancourse.lab.microworld import stream, vocabulary\n"
        "print([list(islice(stream(11, level), 10)) for level in (1, 2, 3)], vocabulary(3))"
    )
    ours = f"{[some(10, level, seed=11) for level in LEVELS]} {vocabulary(3)}"
    environment = {**os.environ, "PYTHONHASHSEED": "4321"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == ours


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stream(0, 4), "unknown level 4; known: 1, 2, 3"),
        (lambda: stream(0, 1, ("stories", "poems")), "unknown domain 'poems'; known: stories, sums, code, facts"),
        (lambda: stream(0, 1, ()), "at least one"),
        (lambda: stream(0, 1, ("code", "code")), "distinct"),
        (lambda: stream(-1), "must not be negative, got seed -1"),
        (lambda: stream(0, split="test"), "unknown split 'test'; known: train, val, prompts"),
        (lambda: log_prob("x", 0), "unknown level 0"),
        (lambda: vocabulary(9), "unknown level 9"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# --- vocabularies


@given(st.text())
def test_pieces_lose_nothing(text):
    assert "".join(pieces(text)) == text


def test_pieces_are_words_with_their_blank_digits_signs_and_line_breaks():
    assert pieces('Tom said, "Hi 12."\n    x = 3') == [
        *("Tom", " said", ",", ' "', "Hi", " 1", "2", ".", '"', "\n", "   ", " x", " =", " 3"),
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_writes_only_pieces_of_its_vocabulary(level):
    known = set(vocabulary(level))
    assert all(known.issuperset(pieces(document.text)) for document in some(400, level))


def test_vocabularies_nest_and_ids_never_move():
    assert len(set(vocabulary(3))) == len(vocabulary(3))
    for level in (1, 2):
        assert vocabulary(level + 1)[: len(vocabulary(level))] == vocabulary(level)
        assert words(level + 1)[: len(words(level))] == words(level)


@pytest.mark.parametrize(("level", "about"), [(1, 150), (2, 500), (3, 1500)])
def test_sizes_are_near_what_was_wanted_and_as_the_docstring_says(level, about):
    assert abs(len(words(level)) - about) < 0.15 * about
    assert f"{len(words(level)):,}" in words.__doc__
    assert f"{len(vocabulary(level)):,}" in vocabulary.__doc__


class Curious(Roll):
    """Mostly takes the option it has taken least often, so that everything rare comes soon."""

    def __init__(self, random):
        super().__init__(random)
        self.taken = Counter()

    def pick(self, name, options, weights=None):
        options = [option for option, weight in zip(options, weights or [1] * len(options), strict=True) if weight]
        option = options[int(self.random() * len(options))]
        if self.random() < 0.7:
            option = min(options, key=lambda option: self.taken[name, option])
        self.taken[name, option] += 1
        return option

    def draw(self, name, table, without=()):
        return self.pick(name, [option for option in table.options if option not in without])


@pytest.mark.parametrize("level", LEVELS)
def test_every_piece_of_a_vocabulary_can_be_reached(level):
    seen = {"\n"}
    for name in DOMAINS:
        program, w = domain(name), Curious(Random(level).random)
        for _ in range(300 * level):
            state = program.start(level)
            while (text := program.step(state, w)) is not None:
                seen.update(pieces(text))
    state = facts.Facts(level)
    for _ in range(2):  # facts have rare first words: all first and second sentences there are
        for text, _ in everything(facts.step, state):
            seen.update(pieces(text or ""))
        facts.step(state, w)
    assert set(vocabulary(level)) <= seen, set(vocabulary(level)) - seen


# --- what the texts say


@pytest.mark.parametrize("level", LEVELS)
def test_programs_run_and_print_what_their_comments_say(level):
    for document in some(150, level, ("code",)):
        printed, told = [], []
        lines = document.text.split("\n")
        for end in (i for i, line in enumerate(lines, 1) if line.startswith("# prints ")):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec("\n".join(lines[:end]), {})
            printed.append(output.getvalue().splitlines())
            told.append(lines[end - 1].removeprefix("# prints "))
        before = 0
        for lines_printed, comment in zip(printed, told, strict=True):
            assert ", ".join(lines_printed[before:]) == comment, document.text
            before = len(lines_printed)


@pytest.mark.parametrize("level", LEVELS)
def test_calculations_are_right(level):
    found = 0
    for document in some(300, level, ("sums",)):
        for left, right in re.findall(r"([\d(][\d+*/() -]*) (?:=|is) (\d+)\.", document.text):
            assert eval(left) == int(right), document.text
            found += 1
    assert found > 100


def test_world_facts_name_a_subject_once():
    for relation, by_level in WORLD.items():
        subjects = [subject for facts in by_level.values() for subject in facts]
        assert len(set(subjects)) == len(subjects), relation


@pytest.mark.parametrize("level", LEVELS)
def test_english_is_tidy(level):
    for document in some(500, level, ("stories", "sums", "facts")):
        text = document.text
        assert not re.search(r"  |\n\n| \n|\n |^\s|\s$| [,.?!]", text), text
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiouh]|\b1 \w+s\b(?! )", text), text
        assert not re.search(r"\b(\w+) \1\b", text.replace("that that", "")), text
        for sentence in units(text):
            start = sentence.strip().lstrip('"')
            assert start[0].isupper() or start[0].isdigit() or start[0] == "(", text
            assert re.search(r'[.?!]"?$', sentence) or sentence is units(text)[0] or "\n" not in sentence, text


@pytest.mark.parametrize("level", LEVELS)
def test_documents_and_sentences_grow_with_the_level(level):
    lengths = [len(pieces(document.text)) for document in some(400, level)]
    assert {1: 30, 2: 50, 3: 70}[level] < sum(lengths) / len(lengths) < {1: 60, 2: 90, 3: 130}[level]


# --- prompts


@pytest.mark.parametrize("level", LEVELS)
def test_prompts_are_documents_cut_before_a_right_answer(level):
    for prompt in prompts(level, 0, 60):
        assert prompt.answer.strip()
        assert prompt.distance >= 0
        assert set(pieces(prompt.text + prompt.answer)) <= set(vocabulary(level))
        if prompt.domain in ("stories", "facts"):
            assert prompt.distance > 0
    assert prompts(level, 0, 20) == prompts(level, 0, 20)
    assert prompts(level, 0, 20) != prompts(level, 1, 20)


def test_a_unit_knows_where_its_answer_stands():
    for index in range(200):
        document, parts = compose(generator(5, index), 2, DOMAINS)
        assert "".join(unit.text for unit in parts) == document.text
        for i, unit in enumerate(parts):
            if unit.answer_span:
                start, end = unit.answer_span
                assert unit.text[start:end].strip() == unit.text[start:end] != ""
                assert unit.bearing is None or unit.bearing <= i
