"""The judge: accepts everything written, rejects planted errors of each kind, survives anything."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab.microworld import DOMAINS, LEVELS, judge, lexicon, pieces, stream, vocabulary
from kancourse.lab.microworld.documents import compose, generator, units

STORY = (
    "Tom and Mia were in the kitchen. He had a red ball. Mia found a book on the table. Tom put the ball in the box. "
    "Mia went to the park.\nWhere is the ball? It is in the box."
)
SUM = (
    "Tom had 3 apples. Mia had 4 apples. She found 2 more.\nHow many apples did Mia have? 4 + 2 = 6. She had 6 apples."
)
CODE = "x = 3\ny = x + 2\nprint(x + y)\n# prints 8"
FACTS = "A cow eats grass. Tom likes milk. Sue likes tea. A dog is an animal.\nWhat does Tom like? He likes milk."


def documents(n, level, domains=DOMAINS, seed=21):
    return [document.text for document in itertools.islice(stream(seed, level, domains), n)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", DOMAINS)
def test_everything_written_is_accepted(name, level):
    answered = 0
    for text in documents(50, level, (name,)):
        verdict = judge(text, complete=True)
        assert verdict.n_sentences == len(units(text))
        assert verdict.grammatical == verdict.consistent == 1.0, [n for n in verdict.notes if not n.consistent]
        assert verdict.n_right == verdict.n_questions
        answered += verdict.n_questions
    assert answered > 30


@pytest.mark.parametrize("text", [STORY, SUM, CODE, FACTS])
def test_the_examples_of_this_file_are_fine(text):
    verdict = judge(text, complete=True)
    assert (verdict.grammatical, verdict.consistent, verdict.right) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param(STORY, "He had a red ball", "He a had red ball", id="word order"),
        pytest.param(STORY, "a red ball", "an red ball", id="article"),
        pytest.param(STORY, "Mia were in", "Mia was in", id="agreement"),
        pytest.param(STORY, "Mia found", "her found", id="case"),
        pytest.param(STORY, "a book", "a zebra", id="unknown word"),
        pytest.param(STORY, "on the table", "in the table", id="preposition"),
        pytest.param(STORY, "the box. Mia", "the box Mia", id="missing stop"),
        pytest.param(STORY, "Tom put", "tom put", id="small letter"),
        pytest.param(STORY, "had a", "had  a", id="two blanks"),
        pytest.param(SUM, "3 apples", "3 apple", id="plural"),
        pytest.param(CODE, "print(x + y)", "print(x + y", id="bracket"),
        pytest.param(FACTS, "A cow", "Cow", id="no article"),
        pytest.param(FACTS, "does Tom like", "does Tom likes", id="agreement in a question"),
    ],
)
def test_broken_form_is_ungrammatical(text, old, new):
    assert old in text
    verdict = judge(text.replace(old, new, 1), complete=True)
    assert verdict.grammatical < 1.0
    assert verdict.consistent <= verdict.grammatical


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param(STORY, "Tom put the ball", "Mia put the ball", id="acts with what another has"),
        pytest.param(STORY, "Mia went to the park", "Ben went to the park", id="unknown person"),
        pytest.param(STORY, "Mia went to the park", "Mia went to the kitchen", id="goes where she is"),
        pytest.param(STORY, "Where is the ball", "Where is the hat", id="asks for what is not there"),
        pytest.param(SUM, "She found", "He found", id="pronoun of nobody near"),
        pytest.param(SUM, "Mia had 4 apples", "Mia had 4 eggs", id="other things"),
        pytest.param(CODE, "y = x + 2", "y = a + 2", id="unset variable"),
        pytest.param(FACTS, "A cow eats grass", "A cow eats fish", id="wrong fact"),
        pytest.param(FACTS, "A dog is an animal", "A dog is a fruit", id="wrong kind"),
    ],
)
def test_what_contradicts_the_text_is_grammatical_but_inconsistent(text, old, new):
    assert old in text
    verdict = judge(text.replace(old, new, 1), complete=True)
    assert verdict.grammatical == 1.0
    assert verdict.consistent < 1.0


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param(STORY, "It is in the box.", "It is on the table.", id="place"),
        pytest.param(STORY, "It is in the box.", "In the bag.", id="place, in short"),
        pytest.param(SUM, "4 + 2 = 6", "4 + 2 = 7", id="sum"),
        pytest.param(SUM, "She had 6 apples", "She had 3 apples", id="the other one's number"),
        pytest.param(CODE, "# prints 8", "# prints 5", id="printed value"),
        pytest.param(FACTS, "He likes milk.", "He likes tea.", id="given fact"),
        pytest.param("What colour is grass? It is green.", "green", "blue", id="world fact"),
        pytest.param("What is 2 + 3? It is 5.", "is 5", "is 6", id="calculation"),
    ],
)
def test_wrong_answers_are_noticed(text, old, new):
    assert judge(text, complete=True).right == 1.0
    wrong = judge(text.replace(old, new, 1), complete=True)
    assert wrong.grammatical == 1.0
    assert wrong.right < 1.0
    assert wrong.n_questions == judge(text, complete=True).n_questions


def test_after_an_error_the_judge_believes_the_text_and_goes_on():
    text = STORY.replace("Tom put the ball in the box", "Mia put the ball in the bag").replace(
        "It is in the box", "It is in the bag"
    )
    verdict = judge(text)
    assert [note.consistent for note in verdict.notes].count(False) == 1
    assert verdict.right == 1.0


def test_several_documents_and_cut_ends():
    assert judge(f"{STORY}\n\n{SUM}<|endoftext|>{FACTS}\n\n").consistent == 1.0
    assert judge(f"{STORY}\n\n{SUM}").n_sentences == judge(STORY).n_sentences + judge(SUM).n_sentences
    cut = judge(STORY + " Mia had a")
    assert (cut.n_sentences, cut.grammatical) == (judge(STORY).n_sentences, 1.0)
    assert judge(STORY + " Mia had a", complete=True).grammatical < 1.0
    for end in range(len(STORY)):
        assert judge(STORY[:end]).grammatical in (1.0, pytest.approx(1.0)) or math.isnan(judge(STORY[:end]).grammatical)


def test_shares_of_nothing_are_nan():
    verdict = judge("")
    assert verdict.n_sentences == verdict.n_questions == 0
    assert math.isnan(verdict.grammatical)
    assert math.isnan(verdict.right)
    assert judge("") + judge(CODE) == judge(CODE)


@given(st.text() | st.lists(st.sampled_from(vocabulary(3)), max_size=60).map("".join))
def test_the_judge_never_raises(text):
    verdict = judge(text)
    assert 0 <= verdict.n_consistent <= verdict.n_grammatical <= verdict.n_sentences
    assert 0 <= verdict.n_right <= verdict.n_questions


@given(st.data())
def test_the_judge_never_raises_on_shuffled_sentences_and_swapped_words(data):
    level = data.draw(st.sampled_from(LEVELS))
    text = next(stream(data.draw(st.integers(0, 200)), level)).text
    other = next(stream(data.draw(st.integers(0, 200)), level)).text
    judge("".join(data.draw(st.permutations([*units(text), *units(other)]))))
    parts = pieces(text)
    for _ in range(3):
        parts[data.draw(st.integers(0, len(parts) - 1))] = data.draw(st.sampled_from(vocabulary(level)))
    verdict = judge("".join(parts))
    assert verdict.n_grammatical <= verdict.n_sentences


def questions(level, name, n):
    """(sentences before, question, answer sentence, the answer) of recall questions in real documents."""
    found = []
    for index in itertools.count():
        _, parts = compose(generator(4, index), level, (name,))
        for i, unit in enumerate(parts):
            if unit.bearing is not None and parts[i - 1].text.endswith("?"):
                start, end = unit.answer_span
                found.append(
                    ([part.text for part in parts[: i - 1]], parts[i - 1].text, unit.text, unit.text[start:end])
                )
        if len(found) >= n:
            return found


@pytest.mark.parametrize("name", ["stories", "facts"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_last_sentence_alone_never_answers_a_question(name, level):
    # Whatever the last sentence says, the answer is right without it.
    for before, question, sentence, _ in questions(level, name, 60):
        answer = judge("".join(before[:-1]) + question + sentence, complete=True).notes[-1]
        assert answer.right is True, (before, question, sentence)


PLACES = {place for spots in lexicon.SPOTS.values() for place in spots}
ROOMS = {lexicon.room_name(room) for rooms in lexicon.ROOMS.values() for room in rooms}
PERSONS = {name for names in lexicon.PEOPLE.values() for name in names}
COLOURS = {colour for colours in lexicon.COLOURS.values() for colour in colours}


@pytest.mark.parametrize("level", LEVELS)
def test_something_else_of_the_same_kind_was_mentioned_before_a_story_question(level):
    for before, question, _, answer in questions(level, "stories", 60):
        right = answer[0].lower() + answer[1:] if answer not in PERSONS else answer
        kind = next(
            kind for kind in (PLACES, PERSONS, COLOURS, ROOMS) if right in kind or lexicon.room_name(right) in kind
        )
        right = right if right in kind else lexicon.room_name(right)
        nouns = {lexicon.room_name(place) if kind is PLACES else place for place in kind}
        noun = lexicon.room_name(right) if kind is PLACES else right
        text = "".join(before)
        assert any(re.search(rf"\b{other}\b", text) for other in nouns - {noun}), (text, question, answer)
