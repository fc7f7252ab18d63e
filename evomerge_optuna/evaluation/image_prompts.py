"""Prompts about an image, which has its place in the text."""

from collections.abc import Mapping, Sequence
from functools import partial

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.prompts import chats
from evomerge_optuna.families import family_of
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import IMAGE, StudySpec, VqaTask

# Of a tokenizer without a chat template that is asked about images: what is said, a line each.
_PLAIN = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


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
        return chats(apply, task, [], [_parts(text) for text in texts], key)
    placeholder = getattr(reader.processor, "image_token", None)
    if not isinstance(placeholder, str):
        raise SpecError(
            f"{key}: the processor of the model names no placeholder of images; write chat: true"
        )
    return [text.replace(IMAGE, placeholder) for text in texts]


def check_takes_images(reader: Reader, key: str) -> None:
    """Refuses a model that takes no images.

    Args:
        key: the task's place in the spec.

    Raises:
        SpecError: naming the task.
    """
    if not reader.takes_images:
        raise SpecError(
            f"{key}: the model takes no images; a vqa task needs a vision-language model, with "
            "its processor"
        )


def check_image_tasks(spec: StudySpec, models: Mapping[str, OpenedModel]) -> None:
    """Tries the prompts of tasks with images on the study's host.

    Args:
        models: by their keys in the spec.

    Raises:
        SpecError: no model of the study takes images, or see `image_prompts`.
    """
    host = None if spec.host_key is None else models[spec.host_key]
    reader = None if host is None else family_of(host).reader(host)
    for name, task in spec.tasks.items():
        if not isinstance(task, VqaTask):
            continue
        if reader is None or not reader.takes_images:
            raise SpecError(
                f"tasks.{name}: a vqa task has images, and none of the models takes any; name a "
                "vision-language model among them"
            )
        image_prompts(task, [Problem(IMAGE)], reader, f"tasks.{name}")


def _without_images(task: VqaTask, texts: list[str], reader: Reader, key: str) -> list[str]:
    if not task.chat:
        return [text.replace(IMAGE, "") for text in texts]
    words = ["\n".join(part["text"] for part in _parts(t) if "text" in part) for t in texts]
    template = getattr(reader.tokenizer, "chat_template", None) or _PLAIN
    apply = partial(reader.tokenizer.apply_chat_template, chat_template=template)
    return chats(apply, task, [], words, key)


def _parts(text: str) -> list[dict[str, str]]:
    """A message's content with an image where the text has IMAGE."""
    before, after = (part.strip() for part in text.split(IMAGE))
    parts = [_text(before), {"type": "image"}, _text(after)]
    return [part for part in parts if part.get("text") != ""]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
