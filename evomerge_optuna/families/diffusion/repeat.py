"""How plain mergekit merges denoisers: by `mergekit-pytorch`, its program for tensors of any kind.

It reads one file of each model, and knows nothing of layers.
"""

from evomerge_optuna.recipes.merge import MergeRecipe

_MASKED = ("dare", "della")  # how the names of methods with random masks begin


def without_layers(recipe: MergeRecipe) -> MergeRecipe:
    """The same merge without layers, where its parameters are the same for all of them."""
    configuration = dict(recipe.configuration)
    match configuration.get("slices"):
        case [only]:
            del configuration["slices"]
            sources = [dict(source) for source in only["sources"]]
            for source in sources:
                source.pop("layer_range", None)
            shared = configuration.get("parameters", {}) | only.get("parameters", {})
            configuration |= {"models": sources, **({"parameters": shared} if shared else {})}
    return recipe.model_copy(update={"configuration": configuration})


def why_it_differs(recipe: MergeRecipe, files: int) -> list[str]:
    """Why mergekit-pytorch does not make the same denoiser of a recipe; nothing where it does.

    Args:
        files: of the denoiser of each model.
    """
    found, configuration = [], without_layers(recipe).configuration
    if "slices" in configuration:
        found.append("mergekit-pytorch knows no layers, and so does not read slices.")
    if files > 1:
        found.append("mergekit-pytorch reads one file of each model, and here are several.")
    if recipe.components:
        found.append("mergekit-pytorch reads no text encoders; here they are merged, too.")
    if configuration["merge_method"].startswith(_MASKED):
        found.append("mergekit-pytorch takes the tensors in any order, which moves random masks.")
    if recipe.after is not None:
        found.append(f"Into the merge {recipe.after.lora} is fused at {recipe.after.scale:g}.")
    return found
