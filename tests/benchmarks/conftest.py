"""Keys that the schema of result files requires."""

import json

import pytest

from benchmarks.common.results_file import SCHEMA


@pytest.fixture(scope="session")
def required_keys():
    """Summary keys that the schema requires, by benchmark."""
    return {
        branch["if"]["properties"]["name"]["const"]: set(branch["then"]["properties"]["summary"]["required"])
        for branch in json.loads(SCHEMA.read_text("utf-8"))["allOf"]
    }
