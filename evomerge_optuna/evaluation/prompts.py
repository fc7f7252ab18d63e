"""Prompts: a problem after its shots, as plain text or through the model's chat template."""

from collections.abc import Callable, Sequence

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import Asked, LMEvalTask, Prompted

Content = str | list[dict[str, str]]  # a text, or texts and the places of images
Message = dict[str, Content]


def prompts(
    task: Prompted,
    shots: Sequence[Problem],
    problems: Sequence[Problem],
    reader: Reader,
    key: str,
) -> list[str]:
    """What the model is given for each problem.

    Args:
        key: the task's place in the spec, named in errors.

    Raises:
        SpecError: the tokenizer has no chat template, or the template takes no such messages.
    """
    if not task.chat:
        solved = [f"{shot.text}{task.target_delimiter}{shot.reference}\n\n" for shot in shots]
        return ["".join(solved) + problem.text for problem in problems]
    turns = [
        message
        for shot in shots
        for message in (_message("user", shot.text), _message("assistant", shot.reference or ""))
    ]
    return _text_chats(reader, task, turns, [problem.text for problem in problems], key)


def check_chat(task: Asked | LMEvalTask, reader: Reader, key: str) -> None:
    """Tries a chat task's template.

    Raises:
        SpecError: the tokenizer has no chat template, or the template takes no such messages.
    """
    if task.chat:
        _text_chats(reader, task, [], ["a"], key)


def _text_chats(
    reader: Reader,
    task: Asked | LMEvalTask,
    turns: list[Message],
    contents: Sequence[str],
    key: str,
) -> list[str]:
    """As `chats`, by the template of the tokenizer.

    Raises:
        SpecError: it has none, or the template takes no such messages.
    """
    if not getattr(reader.tokenizer, "chat_template", None):
        raise SpecError(
            f"{key}.chat: the tokenizer has no chat template; write chat_template: auto, or a "
            "template, in merge, or leave chat out and write the whole prompt"
        )
    return chats(reader.tokenizer.apply_chat_template, task, turns, contents, key)


def chats(
    apply: Callable[..., str],
    task: Asked | LMEvalTask,
    turns: list[Message],
    contents: Sequence[Content],
    key: str,
) -> list[str]:
    """Conversations that end with these contents, each where the model's answer begins.

    Args:
        apply: `apply_chat_template` of what has the template.
        task: has the system message, and what else the template reads.
        turns: what comes before in all of them, after the system message.

    Raises:
        SpecError: the template takes no such messages.
    """
    before = [] if task.system is None else [_message("system", task.system)]
    try:
        return [
            apply(
                [*before, *turns, _message("user", content)],
                tokenize=False,
                add_generation_prompt=True,
                **task.chat_args,
            )
            for content in contents
        ]
    except Exception as error:  # a template raises what it likes, as where it knows no system role
        raise SpecError(
            f"{key}.chat: the chat template refuses the prompt: {one_line(error)}"
        ) from error


def _message(role: str, content: Content) -> Message:
    return {"role": role, "content": content}
