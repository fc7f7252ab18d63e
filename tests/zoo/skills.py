"""What the zoo's models can do, and a merge of them: what is promised, and no digits."""

from contextlib import closing
from operator import eq
from pathlib import Path

import torch
import yaml
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel, CLIPProcessor

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.engines.base import Engine
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.families import check_models, with_host
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import StudySpec, parse_spec
from evomerge_optuna.zoo.images.build import PIPELINES
from evomerge_optuna.zoo.images.judging import judge
from evomerge_optuna.zoo.images.scenes import COLOURS, SHAPES, Prompt, all_scenes, scene_rows

STUDIES = Path(__file__).parent.parent.parent / "studies"


def check_images(folder: Path) -> None:
    """Each pipeline can do one thing; with all they have learnt added up it does the three."""
    pipelines = [StableDiffusionPipeline.from_pretrained(folder / name) for name in PIPELINES]
    assert max(all_right(pipeline) for pipeline in pipelines) < 0.2
    base, *experts = [pipeline.unet.state_dict() for pipeline in pipelines]
    merged = {
        name: sum(expert[name] - base[name] for expert in experts) + base[name] for name in base
    }
    pipelines[0].unet.load_state_dict(merged)
    assert all_right(pipelines[0]) >= 0.6


def all_right(pipeline: StableDiffusionPipeline) -> float:
    """The share of pictures of the search split that show what their rows say."""
    rows = scene_rows("search")
    pipeline.set_progress_bar_config(disable=True)
    noise = [torch.Generator().manual_seed(int(str(row["seed"]))) for row in rows]
    prompts = [row["prompt"] for row in rows]
    drawn = pipeline(
        prompts, generator=noise, num_inference_steps=5, guidance_scale=1, output_type="np"
    )
    seen = judge((255 * drawn.images).round().astype("uint8"))
    wanted = [(row["colour"], row["shape"], row["manner"]) for row in rows]
    found = [(one.colour, one.shape, one.manner) for one in seen]
    return sum(map(eq, found, wanted)) / len(rows)


def check_judges(folder: Path) -> None:
    """The prompt of a scene is the likeliest of all to its CLIP, for nine scenes of ten."""
    clip = CLIPModel.from_pretrained(folder / "sd-clip")
    processor = CLIPProcessor.from_pretrained(folder / "sd-clip")
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    texts = [Prompt(*kind, "ja", 0).text for kind in kinds]
    images = [scene.picture() for scene in all_scenes()]
    read = processor(text=texts, images=images, padding=True, return_tensors="pt")
    with torch.inference_mode():
        likeliest = clip(**read).logits_per_image.argmax(1).tolist()
    found, wanted = (
        [kinds[place] for place in likeliest],
        [(s.colour, s.shape) for s in all_scenes()],
    )
    assert sum(map(eq, found, wanted)) >= 0.9 * len(wanted)


def spec_of(study: str, folder: Path) -> StudySpec:
    """The spec of an example, its models in a folder beside each other."""
    content = yaml.safe_load((STUDIES / f"{study}.yaml").read_text())
    for models, key in (
        (content, "base_model"),
        *((content["models"], k) for k in content["models"]),
    ):
        models[key] = str(folder / models[key].removeprefix("zoo:"))
    return parse_spec(content)


def accuracy_of(spec: StudySpec, engine: Engine) -> float:
    """On the search split, by the only objective."""
    (objective,) = spec.objectives
    with closing(engine):
        return Evaluator(spec).evaluate(engine, "search").scores[str(objective.maximize)].value


def of_source(spec: StudySpec, alias: str) -> float:
    return accuracy_of(spec, load_engine(Path(spec.models[alias]), spec.evaluation))


def of_merge(spec: StudySpec, values: dict[str, float]) -> float:
    """Of the merge with these parameters."""
    models = OpenedModels(spec.model_ids())
    spec = with_host(spec, models)
    space = make_space(spec, check_models(spec, models).layers)
    recipe = space.recipe({**space.baseline(), **values})
    return accuracy_of(spec, candidate_builder(spec.evaluation).build(recipe).engine)


def check_language(folder: Path) -> None:
    """One expert speaks, one adds, one multiplies; a merge of two does both."""
    spec = spec_of("quickstart", folder)
    assert max(of_source(spec, alias) for alias in spec.models) < 0.4
    assert of_merge(spec, {}) < 0.4  # the uniform one
    both = {
        f"{name}.{key}.g0": x
        for name in ("ja", "add")
        for key, x in (("weight", 1), ("density", 0.75))
    }
    assert of_merge(spec, {**both, "mul.weight.g0": 0}) > 0.5


def check_vision(folder: Path) -> None:
    """One sees and answers in English, one speaks Japanese; a merge does both at once."""
    spec = spec_of("quickstart_vlm", folder)
    assert of_source(spec, "vlm") < 0.1
    assert of_merge(spec, {"vlm.weight.g0": 1, "ja.weight.g0": 1}) > 0.5
