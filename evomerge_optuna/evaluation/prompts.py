"""Prompts: a problem after its shots, as plain text or through the tokenizer's chat template."""

from collections.abc import Sequence
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.explain import one_line
from evomerge_optuna.spec import Prompted, StudySpec


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
    if not getattr(tokenizer, "chat_template", None):
        raise SpecError(
            f"{key}.chat: the tokenizer has no chat template; leave chat out and write the whole "
            "prompt"
        )
    before = [] if task.system is None else [_message("system", task.system)]
    for shot in shots:
        before += [_message("user", shot.text), _message("assistant", shot.reference or "")]
    conversations = [[*before, _message("user", problem.text)] for problem in problems]
    try:
        return [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in conversations
        ]
    except Exception as error:  # a template raises what it likes, as where it knows no system role
        raise SpecError(
            f"{key}.chat: the chat template refuses the prompt: {one_line(error)}"
        ) from error


def encode(tokenizer: Any, text: str) -> list[int]:
    """The text's token ids with the tokenizer's special tokens, once.

    A chat template may have written the first token, which most tokenizers would add again.
    """
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    ids: list[int] = tokenizer(text, add_special_tokens=not begun)["input_ids"]
    return ids


def check_chats(spec: StudySpec) -> None:
    """Tries the chat tasks' templates with the tokenizer of every model that `study test` scores.

    Raises:
        SpecError: a model's tokenizer has no chat template, or it takes no such messages.
    """
    from evomerge_optuna.models.catalog import load_tokenizer

    for name, task in spec.tasks.items():
        if not isinstance(task, Prompted) or not task.chat:
            continue
        for key, model in spec.model_ids().items():
            tokenizer = load_tokenizer(model, key)
            prompts(task, (), [Problem("a")], tokenizer, f"{key}: {model}: tasks.{name}")


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
