"""Which column of a data set is the question, which the answer, which the options."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.problem import Row, column
from evomerge_optuna.proposal.leaves import Leaf, leaves, spelt
from evomerge_optuna.spec.data import can_name

QUESTION, ANSWER, TEXT = "question", "answer", "text"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Names as people give them, the likeliest first; in any case, with any signs between words.
_QUESTIONS = _words(
    "question query problem instruction prompt input ask user sentence goal stem 質問 問題 "
    "問い 設問 入力 問题 问题 題目 题目 질문 문제 pregunta problema frage aufgabe pergunta domanda "
    "вопрос"
)
_ANSWERS = _words(
    "answer answers finalanswer correctanswer answerkey correct correctoption rightanswer right "
    "target output response solution label reference gold goldanswer expected expectedanswer "
    "groundtruth completion result assistant 答え こたえ 回答 解答 正解 出力 答案 정답 답변 답 "
    "respuesta antwort reponse réponse resposta risposta ответ"
)
_CONTEXTS = _words("context passage article document paragraph premise 文脈 本文 上下文")
_OPTIONS = _words("choices options endings candidates alternatives 選択肢 选项")
_TEXTS = _words("text content sentence document body 本文 文章")
_PROMPTS = _words("prompt caption text description sentence プロンプト")
_STEMS = ("", "option", "choice", "op", "ending", "sol", "opt", "alternative", "選択肢")


@dataclass(frozen=True)
class Columns:
    """What a spec says of the data's columns; None: there is no such column.

    Attributes:
        prompt: a template with the question.
        answer: the path of the right answer.
        options: the column with a list of options, or a template of each.
        labels: what the answer's column calls the options, where it is not by their text or index.
        answer_as: what it holds, where that is to be said.
        picture: the column with pictures.
        text: a template of texts without answers.
        guesses: what no name told, though there are several: of `QUESTION`, `ANSWER`, `TEXT`.
        texts: the columns that hold texts and numbers.
    """

    prompt: str | None = None
    answer: str | None = None
    options: str | tuple[str, ...] | None = None
    labels: str | tuple[str, ...] | None = None
    answer_as: str | None = None
    picture: str | None = None
    text: str | None = None
    guesses: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()

    def guessed(self, part: str) -> str | None:
        """The column that is proposed as the `QUESTION`, `ANSWER` or `TEXT`, if there is one."""
        found = {QUESTION: self.prompt, ANSWER: self.answer, TEXT: self.text}[part]
        return None if found is None else found.strip("{}")


def columns_of(rows: Sequence[Row], said: Mapping[str, str] = MappingProxyType({})) -> Columns:
    """What the columns of these rows are, by their names, else by what they hold.

    Args:
        said: paths of columns that somebody has named, by `QUESTION`, `ANSWER`, `TEXT`.
    """
    found = leaves(rows)
    texts = [leaf for leaf in found if leaf.kind == "text"]
    picture = next((leaf.path for leaf in found if leaf.kind == "picture"), None)
    options, of_options = _options(found)
    rest = [leaf for leaf in texts if leaf.path not in of_options]
    lists = [leaf for leaf in found if leaf.kind == "list" and leaf.path != options]
    told = {part: _said(part, path, [*rest, *lists]) for part, path in said.items()}
    named = [leaf for leaf in rest if can_name(leaf.path) and leaf is not told.get(ANSWER)]
    question = told.get(QUESTION) or _named(_QUESTIONS, named)
    others = [leaf for leaf in rest if leaf is not question]
    answer = told.get(ANSWER) or _named(_ANSWERS, [*others, *lists])
    guesses: set[str] = set()
    if len(rest) > 2:
        guesses = {part for part, leaf in ((QUESTION, question), (ANSWER, answer)) if leaf is None}
    if question is None and answer is not None:
        question = max((leaf for leaf in named if leaf is not answer), key=_length, default=None)
    if answer is None and question is not None and len(others) == 1 and others[0].is_filled:
        answer = others[0]
    if question is None and answer is None and len(rest) == len(named) == 2:
        question, answer = sorted(rest, key=_length, reverse=True)
    if answer is None and (chat := _chat(rows)) is not None:
        return chat
    only = told.get(TEXT) or _named(_TEXTS, named) or _named(_PROMPTS, named)
    if only is None:
        only = max(named, key=_length, default=None)
        guesses |= {TEXT} if len(named) > 1 else set()
    labels, answer_as = (None, None)
    if options is not None and answer is not None:
        labels, answer_as = _how_answered(rows, options, answer.path, found)
    return Columns(
        prompt=None if question is None else _prompt(question, rest, answer),
        answer=None if answer is None else answer.path,
        options=options,
        labels=labels,
        answer_as=answer_as,
        picture=picture,
        text=None if only is None else f"{{{only.path}}}",
        guesses=frozenset(guesses),
        texts=tuple(leaf.path for leaf in rest),
    )


def _said(part: str, path: str, among: Sequence[Leaf]) -> Leaf:
    for leaf in among:
        if leaf.path == path and (part == ANSWER or can_name(path)):
            return leaf
    has = ", ".join(leaf.path for leaf in among) or "none"
    raise UsageError(f"--{part}: there is no column '{path}' with texts; the data has {has}")


def _length(leaf: Leaf) -> float:
    return leaf.length


def _named(names: Sequence[str], among: Sequence[Leaf]) -> Leaf | None:
    """The first of these names that a filled column has, or the last part of a path."""
    for name in names:
        for leaf in among:
            last = spelt(leaf.path.rpartition(".")[2])
            whole = leaf.name
            is_called = whole == spelt(name) or (last == "text" and whole == spelt(name) + "text")
            if is_called and leaf.is_filled:
                return leaf
    return None


def _prompt(question: Leaf, texts: Sequence[Leaf], answer: Leaf | None) -> str:
    """The question after what it is about, or with what an instruction is about after it."""
    others = [leaf for leaf in texts if leaf not in (question, answer)]
    before = _named(_CONTEXTS, others)
    after = _named(("input",), others) if question.name == "instruction" else None
    parts = [leaf.path for leaf in (before, question, after) if leaf is not None]
    return "\n".join(f"{{{path}}}" for path in parts)


def _options(found: Sequence[Leaf]) -> tuple[str | tuple[str, ...] | None, set[str]]:
    """The options, and the columns that they are in."""
    lists = [leaf for leaf in found if leaf.kind == "list" and leaf.is_filled]
    for leaf in lists:
        if spelt(leaf.path.removesuffix(".text")) in _OPTIONS:
            return leaf.path, {leaf.path}
    texts = [leaf for leaf in found if leaf.kind == "text"]
    for stem in _STEMS:
        for names in (("a", "b", "c", "d", "e", "f"), ("1", "2", "3", "4", "5", "6"),
                      ("0", "1", "2", "3", "4", "5")):  # fmt: skip
            if stem == "" and names[0] != "a":
                continue
            known = {leaf.name: leaf for leaf in texts if leaf.is_filled}
            columns = []
            for name in names:
                if stem + name not in known:
                    break
                columns.append(known[stem + name].path)
            if len(columns) >= 2:
                return tuple(f"{{{path}}}" for path in columns), set(columns)
    return None, set()


def _how_answered(
    rows: Sequence[Row], options: str | tuple[str, ...], answer: str, found: Sequence[Leaf]
) -> tuple[str | tuple[str, ...] | None, str | None]:
    """The labels of options, and what the answer's column holds, as a choice task has them."""
    texts = [_texts(row, options) for row in rows]
    answers = [str(column(answer, row, "")).strip() for row in rows]
    most = max(map(len, texts), default=0)
    if all(a in {t.strip() for t in of} for a, of in zip(answers, texts, strict=True)):
        numbers = any(t.strip().lstrip("-").isdecimal() for of in texts for t in of)
        return None, "text" if numbers else None
    path = f"{options.removesuffix('.text')}.label" if isinstance(options, str) else ""
    if any(leaf.path == path for leaf in found):
        return path, None
    given = set(answers)
    for letters in ("ABCDEFGHIJ", "abcdefghij", "123456789"):
        if given <= set(letters[:most]) and (letters[0] != "1" or "0" not in given):
            return tuple(letters[:most]), "label" if letters[0] == "1" else None
    if given <= {str(number) for number in range(most)}:
        return None, "index"
    return None, None


def _texts(row: Row, options: str | tuple[str, ...]) -> list[str]:
    if isinstance(options, str):
        found = column(options, row, "")
        return [str(part) for part in found] if isinstance(found, list) else []
    return [str(column(re.sub(r"[{}]", "", one), row, "")) for one in options]


def _chat(rows: Sequence[Row]) -> Columns | None:
    """Of conversations of a question and an answer, the paths to both."""
    for name in ("messages", "conversations", "conversation"):
        for role, content in (("role", "content"), ("from", "value")):
            if rows and all(_is_pair(row.get(name), role, content) for row in rows):
                return Columns(f"{{{name}.0.{content}}}", f"{name}.1.{content}")
    return None


def _is_pair(cell: object, role: str, content: str) -> bool:
    """Are these two messages, the first one a person's?"""
    if not isinstance(cell, list) or len(cell) != 2:
        return False
    if not all(isinstance(part, Mapping) and part.get(content) for part in cell):
        return False
    return cell[0].get(role) in ("user", "human")
