"""DFS models in the format of the paper's release (EvoLLM-JP-v1-10B), as stacks of plain layers.

There a model stores each layer once; `num_hops` in its configuration counts the steps, and the
tensors `model.input_layers` and `model.input_scales` give each step's layer and scale. Running it
takes code from its repository; folded it is a plain Mistral model.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import UsageError
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.new_folder import new_folder
from evomerge_optuna.recipes.stack import StackRecipe, Step

LAYERS, SCALES = "model.input_layers", "model.input_scales"
_OF_ITS_OWN_CODE = ("num_hops", "auto_map")


def import_released(folder: Path, out: Path) -> StackRecipe:
    """Writes a released DFS model as a plain Mistral checkpoint into the new folder `out`.

    Returns:
        Its path; the model's name in it is `folder`.

    Raises:
        UsageError: it is not of that format, or `out` exists.
        ExportError: `out` cannot be written.
    """
    with new_folder(out) as temporary, _plain_layers(folder) as (layers, steps):
        recipe = StackRecipe(
            embeddings=str(folder),
            steps=tuple(Step(model=str(folder), layer=n, scale=w) for n, w in steps),
            head=str(folder),
        )
        write_recipe(recipe.located(lambda _: str(layers)), temporary, "cpu")
    return recipe


@contextmanager
def _plain_layers(folder: Path) -> Iterator[tuple[Path, list[tuple[int, float]]]]:
    """A plain checkpoint of the unique layers, for as long as it is needed, and the steps."""
    config = _read_config(folder)
    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(file)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{folder}: its weights cannot be read: {error}") from error
    missing = [name for name in (LAYERS, SCALES) if name not in tensors]
    if missing:
        raise UsageError(f"{folder} has no tensor {missing[0]}; it is no released DFS model")
    layers, scales = tensors.pop(LAYERS).tolist(), tensors.pop(SCALES).float().tolist()
    if not len(layers) == len(scales) == config["num_hops"]:
        raise UsageError(
            f"{folder}: num_hops is {config['num_hops']} in config.json, but there are "
            f"{len(layers)} layers and {len(scales)} scales"
        )
    stored = 1 + max(int(name.split(".")[2]) for name in tensors if ".layers." in name)
    if max(layers) >= stored:
        raise UsageError(f"{folder}: a step takes layer {max(layers)}, but {stored} are stored")
    plain = {key: value for key, value in config.items() if key not in _OF_ITS_OWN_CODE}
    plain |= {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "num_hidden_layers": stored,
    }
    with TemporaryDirectory(prefix="evomerge-") as temporary:
        target = Path(temporary)
        for file in folder.iterdir():
            if file.is_file() and file.suffix in (".json", ".model", ".jinja", ".txt"):
                shutil.copy(file, target)
        (target / "config.json").write_text(json.dumps(plain), encoding="utf-8")
        for index in target.glob("*.index.json"):
            index.unlink()
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        yield target, list(zip(layers, scales, strict=True))


def _read_config(folder: Path) -> dict[str, object]:
    try:
        config: dict[str, object] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: its config.json cannot be read: {error}") from error
    if "num_hops" not in config:
        raise UsageError(f"{folder}: config.json has no num_hops; it is no released DFS model")
    return config
