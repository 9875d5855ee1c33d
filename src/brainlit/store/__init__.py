"""The HDF5 story store: schema, writing, reading, checking."""

from brainlit.files import FullDiskError, atomic_path, sha256_of, waiting_lock, write_json
from brainlit.store.checks.check import Finding, check_store, exit_code, findings_json, findings_text
from brainlit.store.describe import describe_store, description_text
from brainlit.store.reader import StoryStore
from brainlit.store.schema import SCHEMA_VERSION, StoreCorruptError, StoreError, StoreSettingsError, UnknownNameError
from brainlit.store.writer import build_store

__all__ = [
    "SCHEMA_VERSION",
    "Finding",
    "FullDiskError",
    "StoreCorruptError",
    "StoreError",
    "StoreSettingsError",
    "StoryStore",
    "UnknownNameError",
    "atomic_path",
    "build_store",
    "check_store",
    "describe_store",
    "description_text",
    "exit_code",
    "findings_json",
    "findings_text",
    "sha256_of",
    "waiting_lock",
    "write_json",
]
