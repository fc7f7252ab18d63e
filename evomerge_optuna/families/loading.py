"""A whole checkpoint of any family in memory, ready to run."""

from pathlib import Path
from typing import Any

from evomerge_optuna.families.vision_language.text_part import is_vision_language
from evomerge_optuna.models.catalog import load_processor
from evomerge_optuna.models.loading import complete_model, load_model, torch_device


def load_checkpoint(
    folder: Path, device: str, dtype: str | None = None
) -> tuple[Any, Any, Any | None]:
    """As `load_model`, and a vision-language model's processor; of other models None.

    Raises:
        SpecError: the device is not there, or its processor cannot be made.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    if not is_vision_language(AutoConfig.from_pretrained(folder, trust_remote_code=False)):
        return *load_model(folder, device, dtype), None
    model = complete_model(AutoModelForImageTextToText, folder, dtype=dtype or "auto")
    processor = load_processor(str(folder), str(folder))
    return model.to(torch_device(device)).eval(), processor.tokenizer, processor
