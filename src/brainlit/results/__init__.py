"""Run records, figures, the report."""

from brainlit.results.run_directory import RunBusyError, RunDirectory, RunError, RunFinishedError

__all__ = ["RunBusyError", "RunDirectory", "RunError", "RunFinishedError"]
