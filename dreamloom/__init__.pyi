# What dreamloom offers, and where each name lives. Type checkers and editors read this, and so does __init__.py.

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.base.progress import Progress
from dreamloom.base.stage import Summary
from dreamloom.caption.config import CaptionConfig, EditConfig
from dreamloom.caption.edit_collection import edit_captions
from dreamloom.caption.stage import caption as caption_images
from dreamloom.curate.assemble import balance
from dreamloom.curate.choose import choose
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.score import score
from dreamloom.curate.source import Role, Source
from dreamloom.flows.api import ProjectPlan, ProjectRun, ingest, plan, progress, run
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.project.project_train import ProjectTrainConfig
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.flows.project.retention import RetentionConfig
from dreamloom.scrape.collection import CaptionKind, Choice, Collection, Status, Table
from dreamloom.scrape.datasets.coco import CocoConfig
from dreamloom.scrape.datasets.collection import CollectionConfig
from dreamloom.scrape.datasets.ffhq import FfhqConfig
from dreamloom.scrape.datasets.folder import FolderConfig
from dreamloom.scrape.datasets.huggingface import HuggingfaceConfig
from dreamloom.scrape.datasets.imagenet import ImagenetConfig
from dreamloom.scrape.datasets.webdataset import WebdatasetConfig
from dreamloom.scrape.datasets.zip import ZipConfig
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.filter import filter_laion
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.scrape import scrape as scrape_images
from dreamloom.train.audit.audit import audit
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.results import Audit
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.dreambooth import dreambooth
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.evaluate.evaluate import evaluate
from dreamloom.train.evaluate.measure import Evaluation, Measure
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.loop.loop import train as train_model
from dreamloom.train.run.folder import TrainSummary
from dreamloom.train.tune.config import TuneConfig
from dreamloom.train.tune.results import Tuning
from dreamloom.train.tune.tune import tune

__version__: str

__all__ = [
    "Audit",
    "AuditConfig",
    "BalanceConfig",
    "CaptionConfig",
    "CaptionKind",
    "Choice",
    "ChooseConfig",
    "CocoConfig",
    "Collection",
    "CollectionConfig",
    "DreamBoothConfig",
    "EditConfig",
    "EvaluateConfig",
    "Evaluation",
    "ExportConfig",
    "FfhqConfig",
    "FilterConfig",
    "FolderConfig",
    "HuggingfaceConfig",
    "ImagenetConfig",
    "Measure",
    "Progress",
    "Project",
    "ProjectPlan",
    "ProjectRun",
    "ProjectTrainConfig",
    "RayConfig",
    "RetentionConfig",
    "Role",
    "ScoreConfig",
    "ScrapeConfig",
    "Source",
    "StageFailed",
    "Status",
    "Summary",
    "Table",
    "TrainConfig",
    "TrainSummary",
    "TuneConfig",
    "Tuning",
    "UserError",
    "WebdatasetConfig",
    "ZipConfig",
    "audit",
    "balance",
    "caption_images",
    "choose",
    "dreambooth",
    "edit_captions",
    "evaluate",
    "export",
    "filter_laion",
    "ingest",
    "load_project",
    "plan",
    "progress",
    "read_evaluation",
    "run",
    "score",
    "scrape_images",
    "train_model",
    "tune",
]
