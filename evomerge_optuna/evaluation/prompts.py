"""Prompts: a problem after its shots, as plain text or through the model's chat template."""

from collections.abc import Callable, Sequence
from functools import partial

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import IMAGE, Asked, LMEvalTask, Prompted, StudySpec, VqaTask

Content = str | list[dict[str, str]]  # a text, or texts and the places of images
Message = dict[str, Content]

# Of a tokenizer without a chat template that is asked about images: what is said, a line each.
_PLAIN = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


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


def image_prompts(
    task: VqaTask, problems: Sequence[Problem], reader: Reader, key: str
) -> list[str]:
    """What the model is given for each problem beside its image, which has its place in the text.

    A model that takes no images is asked the question alone. What is right then is guessed, or
    known without the image: the question-only baseline of Antol et al. 2015.

    Args:
        key: the task's place in the spec, named in errors.

    Raises:
        SpecError: the processor has no chat template or the template takes no such messages, or
            it has no placeholder of images.
    """
    texts = [problem.text for problem in problems]
    if reader.processor is None:
        return _without_images(task, texts, reader, key)
    if task.chat:
        if not getattr(reader.processor, "chat_template", None):
            raise SpecError(
                f"{key}.chat: the processor has no chat template; leave chat out and write the "
                "whole prompt"
            )
        apply = reader.processor.apply_chat_template
        return _chats(apply, task, [], [_parts(text) for text in texts], key)
    placeholder = getattr(reader.processor, "image_token", None)
    if not isinstance(placeholder, str):
        raise SpecError(
            f"{key}: the processor of the model names no placeholder of images; write chat: true"
        )
    return [text.replace(IMAGE, placeholder) for text in texts]


def check_chat(task: Asked | LMEvalTask, reader: Reader, key: str) -> None:
    """Tries a chat task's template.

    Raises:
        SpecError: the tokenizer has no chat template, or the template takes no such messages.
    """
    if task.chat:
        _text_chats(reader, task, [], ["a"], key)


def check_image_tasks(spec: StudySpec, models: OpenedModels) -> None:
    """Tries the prompts of tasks with images with the processor of the study's host.

    Raises:
        SpecError: no model of the study takes images, or see `image_prompts`.
    """
    for name, task in spec.tasks.items():
        if not isinstance(task, VqaTask):
            continue
        if spec.host is None:
            raise SpecError(
                f"tasks.{name}: a vqa task has images, and none of the models takes any; name a "
                "vision-language model among them"
            )
        processor = models.named(spec.host).processor
        reader = Reader(processor.tokenizer, processor=processor)
        image_prompts(task, [Problem(IMAGE)], reader, f"tasks.{name}")


def _text_chats(
    reader: Reader,
    task: Asked | LMEvalTask,
    turns: list[Message],
    contents: Sequence[str],
    key: str,
) -> list[str]:
    """As `_chats`, by the template of the tokenizer.

    Raises:
        SpecError: it has none, or the template takes no such messages.
    """
    if not getattr(reader.tokenizer, "chat_template", None):
        raise SpecError(
            f"{key}.chat: the tokenizer has no chat template; write chat_template: auto, or a "
            "template, in merge, or leave chat out and write the whole prompt"
        )
    return _chats(reader.tokenizer.apply_chat_template, task, turns, contents, key)


def _without_images(task: VqaTask, texts: list[str], reader: Reader, key: str) -> list[str]:
    if not task.chat:
        return [text.replace(IMAGE, "") for text in texts]
    words = ["\n".join(part["text"] for part in _parts(t) if "text" in part) for t in texts]
    template = getattr(reader.tokenizer, "chat_template", None) or _PLAIN
    apply = partial(reader.tokenizer.apply_chat_template, chat_template=template)
    return _chats(apply, task, [], words, key)


def _chats(
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


def _parts(text: str) -> list[dict[str, str]]:
    """A message's content with an image where the text has IMAGE."""
    before, after = (part.strip() for part in text.split(IMAGE))
    parts = [_text(before), {"type": "image"}, _text(after)]
    return [part for part in parts if part.get("text") != ""]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(role: str, content: Content) -> Message:
    return {"role": role, "content": content}
