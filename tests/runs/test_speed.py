"""A run's way of computing: asked for, remembered or measured, and written down."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from run_folders import digest
from striate.core.files import read_json
from striate.data.load import load_data
from striate.engine.tune import Choice
from striate.engine.way import Way
from striate.models.catalogue import create_model
from striate.report.progress import Progress
from striate.runs import speed
from striate.runs.recipe import Recipe
from striate.runs.speed import Book, laps_of, settle, way_of
