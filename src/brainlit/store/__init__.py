"""The HDF5 story store: schema, writing, reading, checking."""

from brainlit.store.checks.check import check_store
from brainlit.store.checks.findings import Finding, exit_code, findings_json, findings_text
from brainlit.store.describe import describe_store, description_text
from brainlit.store.reader import StoryStore
from brainlit.store.schema import StoreCorruptError, StoreError, StoreSettingsError, UnknownNameError
from brainlit.store.writer import build_store

__all__ = [
    "Finding",
    "StoreCorruptError",
    "StoreError",
    "StoreSettingsError",
    "StoryStore",
    "UnknownNameError",
    "build_store",
    "check_store",
    "describe_store",
    "description_text",
    "exit_code",
    "findings_json",
    "findings_text",
]
