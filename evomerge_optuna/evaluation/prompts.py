"""Prompts: a problem after its shots, as plain text or through the tokenizer's chat template."""

import re
from collections.abc import Sequence
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.explain import one_line
from evomerge_optuna.spec import IMAGE, Asked, LMEvalTask, Prompted, StudySpec, VqaTask

Content = str | list[dict[str, str]]  # a text, or texts and the places of images
Message = dict[str, Content]


def prompts(
    task: Prompted,
    shots: Sequence[Problem],
    problems: Sequence[Problem],
    tokenizer: Any,
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
    return _chats(tokenizer, task, turns, [problem.text for problem in problems], key)


def image_prompts(
    task: VqaTask, problems: Sequence[Problem], processor: Any, key: str
) -> list[str]:
    """What the model is given for each problem beside its image, which has its place in the text.

    Args:
        key: the task's place in the spec, named in errors.

    Raises:
        SpecError: the processor has no chat template or the template takes no such messages, or
            it has no placeholder of images.
    """
    if task.chat:
        contents = [_parts(problem.text) for problem in problems]
        return _chats(processor, task, [], contents, key)
    placeholder = getattr(processor, "image_token", None)
    if not isinstance(placeholder, str):
        raise SpecError(
            f"{key}: the processor of the model names no placeholder of images; write chat: true"
        )
    return [problem.text.replace(IMAGE, placeholder) for problem in problems]


def check_chat(task: Asked | LMEvalTask, tokenizer: Any, key: str) -> None:
    """Tries a chat task's template.

    Raises:
        SpecError: the tokenizer has no chat template, or the template takes no such messages.
    """
    if task.chat:
        _chats(tokenizer, task, [], ["a"], key)


def reads(tokenizer: Any, argument: str) -> bool:
    """Has the chat template this variable?"""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    return re.search(rf"\b{re.escape(argument)}\b", template) is not None


def check_eyes(spec: StudySpec) -> None:
    """Tries the prompts of tasks with images with the processor of the study's vision.

    Raises:
        SpecError: no model of the study takes images, or see `image_prompts`.
    """
    from evomerge_optuna.models.catalog import load_processor

    for name, task in spec.tasks.items():
        if not isinstance(task, VqaTask):
            continue
        if spec.host is None:
            raise SpecError(
                f"tasks.{name}: a vqa task has images, and none of the models takes any; name a "
                "vision-language model among them"
            )
        processor = load_processor(spec.host, f"tasks.{name}")
        image_prompts(task, [Problem(IMAGE)], processor, f"tasks.{name}")


def _chats(
    tokenizer: Any,
    task: Asked | LMEvalTask,
    turns: list[Message],
    contents: Sequence[Content],
    key: str,
) -> list[str]:
    """Conversations that end with these contents, each where the model's answer begins.

    Args:
        tokenizer: or a processor.
        task: has the system message, and what else the template reads.
        turns: what comes before in all of them, after the system message.

    Raises:
        SpecError: there is no chat template, or it takes no such messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        is_processor = hasattr(tokenizer, "image_processor")
        raise SpecError(
            f"{key}.chat: the {'processor' if is_processor else 'tokenizer'} has no chat template; "
            + ("" if is_processor else "write chat_template: auto, or a template, in merge, or ")
            + "leave chat out and write the whole prompt"
        )
    before = [] if task.system is None else [_message("system", task.system)]
    try:
        return [
            tokenizer.apply_chat_template(
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


def _parts(text: str) -> list[dict[str, str]]:
    """A message's content with an image where the text has IMAGE."""
    before, after = (part.strip() for part in text.split(IMAGE))
    parts = [_text(before), {"type": "image"}, _text(after)]
    return [part for part in parts if part.get("text") != ""]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(role: str, content: Content) -> Message:
    return {"role": role, "content": content}
