"""Tiny models of every architecture that transformers builds, and a merge of two of each.

`python -m tests.architectures` merges all of them and writes the table of docs/architectures.md.
"""

import importlib.metadata
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from mergekit.architecture import arch_info_for_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.merging.check import check_merge
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.plan import plan_merge
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.architectures import STACKABLE
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.older_form import write_older_form
from evomerge_optuna.models.saved_form import write_saved_form
from evomerge_optuna.recipes.merge import MergeRecipe

TABLE = Path(__file__).parents[1] / "docs" / "architectures.md"
_MOST = 6_000_000  # parameters of a tiny model

# By whatever name an architecture has for it, a small size.
_SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 128, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128,
    "d_model": 32, "ffn_dim": 48, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_LATENT = {
    "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 1, "topk_group": 1,
}  # fmt: skip
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2, "mamba_d_state": 8}
_OWN: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4}, "n_heads": 4, "n_layers": 3,
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v3": _LATENT,
    "deepseek_v32": {**_LATENT, "index_n_heads": 2, "index_head_dim": 8},
    "dots1": {"n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 8, "laurel_rank": 4, "altup_num_inputs": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "intermediate_size": [48] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4_text": {"vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8},
    "glm_moe_dsa": {**_LATENT, "index_n_heads": 2, "index_head_dim": 8},
    "granitemoehybrid": {
        **_MAMBA, "layer_types": ["mamba", "attention", "mamba"], "shared_intermediate_size": 16,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "longcat_flash": {
        **_LATENT, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "num_layers": 2,
        "moe_topk": 2, "zero_expert_num": 2,
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "state_size": 8, "n_groups": 1},
    "plbart": {
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_layers": 2,
        "encoder_layers": 2, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 20, "shape_vocab_size": 20, "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "whisper": {
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_layers": 2,
        "encoder_layers": 2, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32,
    },
    "zamba2": {
        "layer_types": ["mamba", "hybrid", "mamba"], "mamba_ngroups": 1, "n_mamba_heads": 8,
        "mamba_d_state": 8, "num_mem_blocks": 1,
    },
}  # fmt: skip
# Switches by which a model of an architecture has more tensors or fewer.
_SWITCHES = (
    *("attention_bias", "mlp_bias", "use_bias", "bias", "add_qkv_bias", "attention_out_bias"),
    *("use_qk_norm", "qk_layernorm", "qk_norm", "add_bias_linear", "use_conv_bias"),
    *("parallel_attn", "new_decoder_architecture", "tie_word_embeddings"),
)


def tiny_config(model_type: str, **options: Any) -> Any:
    """A configuration of a model of this architecture that is quickly built."""
    kind = CONFIG_MAPPING[model_type]
    known = kind().to_dict().keys() | kind.attribute_map.keys()
    small = {name: value for name, value in _SMALL.items() if name in known}
    return kind(**{**small, **_OWN.get(model_type, {}), **options})


def variants(model_type: str) -> Iterator[dict[str, bool]]:
    """The options of models of an architecture that differ in what tensors they have."""
    seen = [_tensors(tiny_config(model_type))]
    yield {}
    plain = tiny_config(model_type)
    for name in _SWITCHES:
        if not isinstance(getattr(plain, name, None), bool):
            continue
        options = {name: not getattr(plain, name)}
        try:
            tensors = _tensors(tiny_config(model_type, **options))
        except Exception:  # an architecture has no such models
            continue
        if tensors not in seen:
            seen.append(tensors)
            yield options


def _tensors(config: Any) -> tuple[set[str], set[str]]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if sum(p.numel() for p in model.parameters()) > _MOST:
        raise ValueError("too large")
    return set(model.state_dict()), set(model.all_tied_weights_keys)


def save_two(model_type: str, folder: Path, **options: Any) -> tuple[Path, Path]:
    """Two fine-tunes of one random model, as `save_pretrained` writes them, with a tokenizer."""
    config = tiny_config(model_type, **options)
    _tensors(config)  # is it small?
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.normal_(0, 0.2)
        for name in "ab":
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter += 0.1 * torch.randn_like(parameter)
            model.save_pretrained(folder / name)
            a_tokenizer().save_pretrained(folder / name)
    return folder / "a", folder / "b"


def a_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 300 words."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(296))]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip


def average(a: Path, b: Path) -> dict[str, torch.Tensor]:
    """Half of each of two models' tensors, computed by transformers and torch alone."""
    one, other = (AutoModelForCausalLM.from_pretrained(m).state_dict() for m in (a, b))
    return {
        name: (0.5 * tensor.double() + 0.5 * other[name].double()).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in one.items()
    }


def a_merge(a: Path, b: Path) -> MergeRecipe:
    sources = [{"model": str(model), "parameters": {"weight": 0.5}} for model in (a, b)]
    return MergeRecipe(configuration={"merge_method": "linear", "models": sources}, seed=0)


def check_merged(a: Path, b: Path, folder: Path) -> None:
    """Fails unless candidate and export of a merge of two models are their average."""
    recipe, wanted = a_merge(a, b), average(a, b)
    check_merge(recipe)
    merged = ModelInPlace(ResidentMerger("cpu")).merge(recipe)
    _assert_same(merged.model.state_dict(), wanted)
    assert write_recipe(recipe, folder, "cpu") == merged.digest
    write_saved_form(folder)
    write_older_form(folder)
    _assert_same(complete_model(AutoModelForCausalLM, folder).state_dict(), wanted)


def _assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


@dataclass
class Row:
    """What became of one architecture."""

    name: str
    model_type: str
    variants: int = 0
    left_out: list[str] = field(default_factory=list)
    known: bool = False
    refused: str = ""


def sweep(model_type: str, most: int | None = None) -> Row:
    """Merges the variants of an architecture, all of them or the first so many."""
    row = Row(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type], model_type)
    for options in islice(variants(model_type), most):
        folder = Path(tempfile.mkdtemp())
        try:
            a, b = save_two(model_type, folder, **options)
            check_merged(a, b, folder / "out")
            config = AutoConfig.from_pretrained(a)
            row.known = arch_info_for_config(config) is not None
            row.left_out += plan_merge(a_merge(a, b)).left_out_by_mergekit()
        except EvomergeError as error:
            row.refused = str(error).replace(str(folder), "MODEL")
        finally:
            shutil.rmtree(folder)
        row.variants += 1
    return row


def table(rows: list[Row]) -> list[str]:
    """The rows of the documentation's table, with its head."""
    lines = ["| architecture | `model_type` | merged | tensors that plain mergekit leaves out |"]
    lines.append("| --- | --- | --- | --- |")
    for row in rows:
        definition = "by mergekit's definition" if row.known else "by transformers' class"
        merged = row.refused or f"{definition}, {row.variants} of {row.variants} kinds"
        stacked = ", stacked" if row.model_type in STACKABLE else ""
        left_out = sorted({re.sub(r"\.\d+\.", ".*.", name) for name in row.left_out})
        lines.append(
            f"| {row.name} | `{row.model_type}` | {merged}{stacked} | "
            f"{', '.join(f'`{name}`' for name in left_out)} |"
        )
    return lines


HEAD = """# Architectures

This table shows which causal language models of transformers {version} can be merged. For every
architecture with a tiny model, two fine-tunes of it were merged by `linear`. The candidate in
memory and the export, as plain `from_pretrained` reads it, were compared with the average that
transformers and torch compute by themselves. The *kinds* of an architecture differ in their
tensors, because they switch biases, norms and tied embeddings on or off.

A merge has every tensor of its model's class. mergekit {mergekit} has no definition of some
architectures, and leaves tensors out of others, for example Llama's biases. These tensors are
merged by the same method. Plain mergekit then writes another model; `study create` and the exported
`mergekit_config.yml` say so. transformers holds all experts of a layer in one tensor, and they are
merged that way. They are exported one by one, as files have them. The table also says which
architectures can be [stacked](models.md#a-stack).

`python -m tests.architectures` writes this page; `make test-slow` checks it.

"""


def main() -> None:
    """Writes the page."""
    rows, unbuilt = [], []
    for model_type in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            list(variants(model_type))
        except Exception:  # the many ways in which there is no tiny model
            unbuilt.append(model_type)
            continue
        print(model_type, flush=True)
        rows.append(sweep(model_type))
    head = HEAD.format(
        version=transformers.__version__, mergekit=importlib.metadata.version("mergekit")
    )
    not_tried = ", ".join(f"`{name}`" for name in unbuilt)
    foot = f"\nThese were not tried, because no tiny model could be built: {not_tried}.\n"
    TABLE.write_text(head + "\n".join(table(rows)) + "\n" + foot, encoding="utf-8")


if __name__ == "__main__":
    main()
