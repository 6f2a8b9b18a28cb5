"""A recipe is trained to a run."""

from conviction.run.architecture import inspect
from conviction.run.audited import audit_data
from conviction.run.bench import bench_machine
from conviction.run.described import describe_data
from conviction.run.recipe import Recipe, load_recipe, recipe_schema
from conviction.run.saved import Run
from conviction.run.training import resume, train

__all__ = [
    "Recipe",
    "Run",
    "audit_data",
    "bench_machine",
    "describe_data",
    "inspect",
    "load_recipe",
    "recipe_schema",
    "resume",
    "train",
]
