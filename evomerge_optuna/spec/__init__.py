"""The spec: what a study searches, with which models, on which tasks. Validated YAML."""

from evomerge_optuna.spec.adapter_merge import AdapterMergeSpec, AdapterStudySpec
from evomerge_optuna.spec.data import SPLITS, DataSource, Documents, ShotSource, TaskData
from evomerge_optuna.spec.dimension import Choices, Dimension, Range
from evomerge_optuna.spec.evaluation import EvaluationSpec
from evomerge_optuna.spec.files import (
    differences,
    is_spec_file,
    load_spec,
    parse_spec,
    read_mapping,
    spec_at,
)
from evomerge_optuna.spec.images import FunctionScorer, HumanScorer, ImageTask
from evomerge_optuna.spec.merge import MergeSpec
from evomerge_optuna.spec.metrics import Metric
from evomerge_optuna.spec.objectives import COSTS, Constraint, Objective
from evomerge_optuna.spec.part import DTypeName
from evomerge_optuna.spec.search import RacingSpec, SamplerSpec, StopSpec
from evomerge_optuna.spec.searched_merge import SearchedMerge
from evomerge_optuna.spec.stack import MERGED, StackSpec
from evomerge_optuna.spec.stages import (
    JointStudySpec,
    MergeSearchSpec,
    ParameterStudySpec,
    StackStudySpec,
    StagedStudySpec,
)
from evomerge_optuna.spec.study import HOST_KEY, StudySpec
from evomerge_optuna.spec.tasks import (
    CUT_OFF,
    IMAGE,
    Asked,
    ChoiceTask,
    Cut,
    Generated,
    GenerateTask,
    LMEvalTask,
    PerplexityTask,
    Prompted,
    PythonTask,
    Regex,
    Scorer,
    Task,
    VqaTask,
)

__all__ = [
    "COSTS",
    "CUT_OFF",
    "HOST_KEY",
    "IMAGE",
    "MERGED",
    "SPLITS",
    "AdapterMergeSpec",
    "AdapterStudySpec",
    "Asked",
    "ChoiceTask",
    "Choices",
    "Constraint",
    "Cut",
    "DTypeName",
    "DataSource",
    "Dimension",
    "Documents",
    "EvaluationSpec",
    "FunctionScorer",
    "GenerateTask",
    "Generated",
    "HumanScorer",
    "ImageTask",
    "JointStudySpec",
    "LMEvalTask",
    "MergeSearchSpec",
    "MergeSpec",
    "Metric",
    "Objective",
    "ParameterStudySpec",
    "PerplexityTask",
    "Prompted",
    "PythonTask",
    "RacingSpec",
    "Range",
    "Regex",
    "SamplerSpec",
    "Scorer",
    "SearchedMerge",
    "ShotSource",
    "StackSpec",
    "StackStudySpec",
    "StagedStudySpec",
    "StopSpec",
    "StudySpec",
    "Task",
    "TaskData",
    "VqaTask",
    "differences",
    "is_spec_file",
    "load_spec",
    "parse_spec",
    "read_mapping",
    "spec_at",
]
